"""Webdataset shards: .tar files in which the members of a sample share the name up to its first dot
(https://github.com/webdataset/webdataset). Nothing is unpacked: an image is read at its place inside the tar."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flora_secure.boundary.foreign import json_of, packed, text_of
from flora_secure.data.files.samples import IMAGE_SUFFIXES, Sample, split_named
from flora_secure.data.folders.kinds import PLAIN, left_out_for
from flora_secure.data.folders.tree import tree_of
from flora_secure.data.images import EncodedFile
from flora_secure.data.labels import client_named, said
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError, ForeignError, first_line

_MOST_TEXT = 1 << 20  # bytes of a label, of captions or of a sample's JSON
_PACKED_SUFFIXES = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
Members = dict[str, tarfile.TarInfo]  # of one sample, by suffix


def list_shards(root: Path, labels: tuple[str, ...] | None, *, notes: Notes) -> list[Sample]:
    """The samples of `root`, a .tar file, or of all that lie in it or in its folders named like splits.

    A sample's label is its .cls, or "label" (or "cls") in its .json, or its .txt where `labels` is given, since a .txt
    is else captions, one a line as CLIP_benchmark has them; without a .txt they are "caption" in its .json, a text or
    a list. Labels win: captions count where no sample has a label. A sample's client is "client" in its .json. A
    shard's split is its folder's name, or its own up to the first dash, dot or digit. A sample whose texts cannot be
    read is left out. Raises DataError for a shard that is no uncompressed tar.
    """
    shards = _shards(root, notes)
    listed: list[tuple[str, Sample]] = []
    keys: dict[tuple[str | None, str], int] = {}
    for shard in shards:
        split = _split(root, shard)
        name = shard.name if root.is_file() else shard.relative_to(root).as_posix()
        for key, members in _grouped(shard, notes):
            sample = f"{name}/{key}"
            keys[split, key] = keys.get((split, key), 0) + 1
            try:
                listed += [(sample, one) for one in _samples(shard, sample, members, labels, split, notes)]
            except ForeignError as error:
                notes.skip("sample whose texts cannot be read", f"{sample}{error}")
    notes.read = f"{sum(keys.values()):,} samples of {len(shards):,} shard{'s' * (len(shards) != 1)}"
    if repeated := sum(count > 1 for count in keys.values()):
        notes.warn(f"keys of shards that stand for more than one sample of a split: {repeated:,}; each of them counts")
    captioned = any(one.caption for _, one in listed) and not any(one.label for _, one in listed)
    for sample in dict.fromkeys(name for name, one in listed if not (one.caption if captioned else one.label)):
        notes.skip(f"sample without a {'caption' if captioned else 'label'}", sample)
    return [one for _, one in listed if (one.caption if captioned else one.label)]


def _shards(root: Path, notes: Notes) -> list[Path]:
    """The shards, in the order of their names; compressed ones, and what else is none, are told."""
    if root.is_file():
        return [root]
    below = sorted(tree_of(root, notes).below())
    found = [path for path in below if path.suffix == ".tar"]
    compressed = dict.fromkeys(path for path in below if path.name.lower().endswith(_PACKED_SUFFIXES))
    if compressed and not found:
        raise DataError(
            f"`data.data_root` {str(root)!r} holds no .tar, but {len(compressed):,} compressed ones, such as "
            f"{next(iter(compressed)).name}: unpack them to .tar (gunzip), since images are read where they lie in it"
        )
    for path in below:
        reason = "compressed shard: unpack it to .tar" if path in compressed else left_out_for(path.name)
        if path.suffix != ".tar" and reason != PLAIN:
            notes.skip(reason, path.relative_to(root).as_posix())
    return found


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


def _grouped(shard: Path, notes: Notes) -> Iterator[tuple[str, Members]]:
    """Consecutive members of one key: (key, suffix → member)."""
    key = ""
    members: Members = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                if (reason := _unused(member, base)) is not None:
                    if reason:
                        notes.skip(reason, f"{shard.name}/{member.name}")
                    continue
                stem, _, suffix = base.partition(".")
                this = f"{folder}/{stem}" if folder else stem
                if this != key and members:
                    yield key, members
                    members = {}
                key = this
                if (kind := f".{suffix.lower()}") in members:
                    notes.skip("member of a shard that comes again later, which counts", f"{shard.name}/{member.name}")
                members[kind] = member
            # tarfile ends without a word where a header would begin and the file does not go on
            if EncodedFile("", shard, tar.offset, tarfile.BLOCKSIZE).read() != bytes(tarfile.BLOCKSIZE):
                notes.skip("shard cut short", shard.name)
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, OverflowError, MemoryError) as error:
        if not members and not key:
            by = packed(EncodedFile("", shard, 0, 8).read())
            why = f"it is compressed ({by}), unpack it" if by else first_line(error)
            raise DataError(f"shard {str(shard)!r} is no uncompressed tar file: {why}") from None
        notes.skip("shard cut short", shard.name)
    if members:
        yield key, members


def _unused(member: tarfile.TarInfo, base: str) -> str | None:
    """Why a member is no part of a sample, "" where that goes without saying; `None` for one that is."""
    if member.isdir():
        return ""
    if not member.isreg() or member.issparse():
        return "member of a shard that is a link, or no plain file"
    if base.startswith("."):
        return "hidden member of a shard"
    return None if "." in base else "member of a shard without a suffix"


def _samples(
    shard: Path, name: str, members: Members, labels: tuple[str, ...] | None, split: str | None, notes: Notes
) -> Iterator[Sample]:
    """One with its label, or with "", or one for each of its captions. Raises ForeignError for a text or a value in it
    that cannot be read."""
    image, *others = [suffix for suffix in members if suffix in IMAGE_SUFFIXES] or [""]
    if not image:
        notes.skip("sample without an image", name)
        return
    for suffix in others:
        notes.skip("further image of a sample", name + suffix)

    def text(suffix: str) -> str:
        member = members.get(suffix)
        if member is None:
            return ""
        if member.size > _MOST_TEXT:
            raise ForeignError(f"{suffix}: more than {_MOST_TEXT:,} bytes")
        try:
            return text_of(EncodedFile(name, shard, member.offset_data, member.size).read()).strip()
        except (ForeignError, OSError) as error:
            raise ForeignError(f"{suffix}: {first_line(error)}") from None

    about = _about(text(".json")) if ".json" in members else {}
    client = client_named(about.get("client"))
    label: str | None = text(".cls") or said(about.get("label", about.get("cls")))
    if label == "" and labels is not None:
        label = text(".txt")
    if label is None or client is None:
        raise ForeignError(".json: a label or client that is neither text nor a whole number")
    if "\n" in label:
        raise ForeignError(": a label of several lines")
    captions: list[str] = []
    if not label:
        given = text(".txt").split("\n") if labels is None and ".txt" in members else about.get("caption")
        captions = [_caption(one) for one in (given if isinstance(given, list) else [given])]
    member = members[image]
    file = EncodedFile(name + image, shard, member.offset_data, member.size)
    for caption in [one for one in captions if one] or [""]:
        yield Sample(file, label, client or None, split, caption)


def _about(text: str) -> dict[str, Any]:
    try:
        found = json_of(text)
    except ForeignError as error:
        raise ForeignError(f".json: {error}") from None
    if not isinstance(found, dict):
        raise ForeignError(".json: it is no object")
    return found


def _caption(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise ForeignError(".json: a caption that is no text")
    return (value or "").strip()
