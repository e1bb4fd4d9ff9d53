"""Webdataset shards: .tar files in which the members of a sample share the name up to its first dot
(https://github.com/webdataset/webdataset). Nothing is unpacked: an image is read at its place inside the tar."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from flora_secure.data.files.kinds import PLAIN, left_out_for
from flora_secure.data.files.samples import IMAGE_SUFFIXES, Sample, split_named
from flora_secure.data.files.tree import tree_of
from flora_secure.data.images import EncodedFile
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError

_MOST_TEXT = 1 << 20  # bytes of a label, of captions or of a sample's JSON


def list_shards(root: Path, labels: tuple[str, ...] | None, *, notes: Notes) -> list[Sample]:
    """The samples of `root`, a .tar file, or of all that lie in it or in its folders named like splits.

    A sample's label is its .cls, or "label" (or "cls") in its .json, or its .txt where `labels` is given, since a .txt
    is else captions, one a line as CLIP_benchmark has them; without a .txt they are "caption" in its .json, a text or
    a list. Labels win: captions count where no sample has a label. A sample's client is "client" in its .json. A
    shard's split is its folder's name, or its own up to the first dash, dot or digit. Raises DataError for a shard that
    is no uncompressed tar.
    """
    shards = [root] if root.is_file() else sorted(_tars(root, notes))
    listed: list[tuple[str, Sample]] = []
    for shard in shards:
        split = _split(root, shard)
        name = shard.name if root.is_file() else shard.relative_to(root).as_posix()
        for key, members in _grouped(shard, notes):
            sample = f"{name}/{key}"
            listed += [(sample, one) for one in _samples(shard, sample, members, labels, split, notes)]
    captioned = any(one.caption for _, one in listed) and not any(one.label for _, one in listed)
    for sample in dict.fromkeys(name for name, one in listed if not (one.caption if captioned else one.label)):
        notes.skip(f"sample without a {'caption' if captioned else 'label'}", sample)
    return [one for _, one in listed if (one.caption if captioned else one.label)]


def _tars(root: Path, notes: Notes) -> Iterator[Path]:
    for path in tree_of(root, notes).below():
        if path.suffix == ".tar":
            yield path
        elif (reason := left_out_for(path.name)) != PLAIN:
            notes.skip(reason, path.relative_to(root).as_posix())


def _split(root: Path, shard: Path) -> str | None:
    if shard != root:
        for folder in shard.relative_to(root).parts[:-1]:
            if split_named(folder) is not None:
                return split_named(folder)
    stem = shard.name
    for place, letter in enumerate(stem):
        if not letter.isalpha():
            return split_named(stem[:place])
    return None


def _grouped(shard: Path, notes: Notes) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Consecutive members of one key: (key, suffix → member)."""
    key = ""
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                if not member.isreg() or member.issparse() or base.startswith(".") or "." not in base:
                    continue
                stem, _, suffix = base.partition(".")
                this = f"{folder}/{stem}" if folder else stem
                if this != key and members:
                    yield key, members
                    members = {}
                key = this
                members[f".{suffix.lower()}"] = member
            # tarfile ends without a word where a header would begin and the file does not go on
            if EncodedFile("", shard, tar.offset, tarfile.BLOCKSIZE).read() != bytes(tarfile.BLOCKSIZE):
                notes.skip("shard cut short", shard.name)
    except (tarfile.TarError, OSError, EOFError) as error:
        if not members and not key:
            raise DataError(f"shard {str(shard)!r} is no uncompressed tar file: {error}") from None
        notes.skip("shard cut short", shard.name)
    if members:
        yield key, members


def _samples(
    shard: Path,
    name: str,
    members: dict[str, tarfile.TarInfo],
    labels: tuple[str, ...] | None,
    split: str | None,
    notes: Notes,
) -> Iterator[Sample]:
    """One with its label, or with "", or one for each of its captions."""
    image = next((suffix for suffix in members if suffix in IMAGE_SUFFIXES), None)
    if image is None:
        notes.skip("sample without an image", name)
        return

    def text(suffix: str) -> str:
        if suffix not in members or members[suffix].size > _MOST_TEXT:
            return ""
        member = members[suffix]
        raw = EncodedFile(name, shard, member.offset_data, member.size).read()
        return raw.decode("utf-8", errors="replace").strip()

    about: dict[str, object] = {}
    if ".json" in members:
        try:
            found = json.loads(text(".json"))
            about = found if isinstance(found, dict) else {}
        except (ValueError, RecursionError):
            notes.skip("JSON of a sample that cannot be read", name)
    label = text(".cls") or _shard_text(about.get("label", about.get("cls")))
    if not label and labels is not None:
        label = text(".txt")
    member = members[image]
    client = _shard_text(about.get("client")) or None
    file = EncodedFile(name + image, shard, member.offset_data, member.size)
    captions = [""]
    if not label:
        given = text(".txt").splitlines() if labels is None and ".txt" in members else about.get("caption")
        texts = given if isinstance(given, list) else [given]
        captions = [found for one in texts if isinstance(one, str) and (found := one.strip())] or [""]
    for caption in captions:
        yield Sample(file, label, client, split, caption)


def _shard_text(value: object) -> str:
    """A text or a whole number as text; anything else says nothing."""
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
