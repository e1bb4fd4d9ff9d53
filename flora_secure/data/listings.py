"""Lists of image files: folders, tables, and webdataset shards.

In folders there is one folder a class, or one a client with the classes inside:

ROOT/[SPLIT/]CLASS/…/IMAGE            SPLIT: train, test, val or public (and their usual other names)
ROOT/[SPLIT/]CLIENT/CLASS/…/IMAGE     with partition "natural"; test images may lie in class folders directly

Shards are .tar files in which the members of a sample share the name up to its first dot
(https://github.com/webdataset/webdataset). Nothing is unpacked: an image is read at its place inside the tar.
"""

from __future__ import annotations

import csv
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flora_secure.data.dataset import SkipList
from flora_secure.data.images import EncodedFile
from flora_secure.data.samples import IMAGE_SUFFIXES, Sample, split_named
from flora_secure.errors import DataError


def require_folder(root: Path | None, dataset: str) -> Path:
    """Returns `root`, if there is such a folder or file. Raises `DataError`, one line, where there is none."""
    if root is None:
        raise DataError(f"data set {dataset!r} needs `data.data_root`: the folder (or file) that holds it")
    if not root.exists():
        raise DataError(f"`data.data_root` {str(root)!r} does not exist")
    return root


def list_folder(root: Path, *, natural: bool, skips: SkipList) -> Iterator[Sample]:
    """The images below `root`, in the order of their paths; `natural`: the folders above the classes are clients.

    Files without an image's suffix are left out and counted; hidden ones are not looked at. Links are not followed
    into folders, so that no loop is. Raises DataError where `root` is no folder.
    """
    if not root.is_dir():
        raise DataError(f"`data.data_root` {str(root)!r} is no folder: data set 'folder' reads one folder a class")
    splits = [(folder, split_named(folder.name)) for folder in _folders(root)]
    trained = [folder for folder, split in splits if natural and split == "private"]
    classes = {group.name for top in trained for client in _folders(top) for group in _folders(client)}
    if not any(split == "private" for _, split in splits):
        # without train/, a class may well be called "test" or "public"
        yield from _list(root, root, None, natural, skips)
        return
    for folder, split in splits:
        if split is None:
            skips.add("folder beside train/ that is no split", folder.name)
            continue
        clients = natural and split in {"private", None}
        yield from _list(root, folder, split, clients or (natural and not _of_classes(folder, classes)), skips)


def _list(root: Path, top: Path, split: str | None, clients: bool, skips: SkipList) -> Iterator[Sample]:
    for holder in [top, *_folders(top)] if clients else [top]:
        for path in sorted(holder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
                skips.add("image outside a class folder", path.relative_to(root).as_posix())
    for client in _folders(top) if clients else [top]:
        groups = _folders(client)
        if clients and not groups:
            skips.add("client folder without a class folder", client.relative_to(root).as_posix())
        for group in groups:
            paths = [*files_below(group)]
            if not paths:
                skips.add("class folder without a file", group.relative_to(root).as_posix())
            for path in paths:
                name = path.relative_to(root).as_posix()
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    yield Sample(EncodedFile(name, path), group.name, client.name if clients else None, split)
                else:
                    skips.add("file that is no image by its name", name)


def _of_classes(top: Path, classes: set[str]) -> bool:
    """Whether `top` holds class folders, and not clients: by their names, or because images lie two levels down."""
    if classes.intersection(folder.name for folder in _folders(top)):
        return True
    return any(
        entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES
        for group in _folders(top)
        for entry in group.iterdir()
    )


def _folders(top: Path) -> list[Path]:
    return sorted(entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def files_below(top: Path) -> Iterator[Path]:
    """The files in `top` and its folders, in the order of their names, a folder's own before those of its folders.

    Hidden files and folders are left out, and links into folders are not followed.
    """
    for folder, inner, names in os.walk(top):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def list_table(path: Path, *, skips: SkipList) -> Iterator[Sample]:
    """The rows of a .csv, .tsv or .parquet file; paths are relative to the table's folder.

    A table with a column "label" gives labels, one without it captions: a caption a row, or more where Parquet holds
    lists. Rows without a path or a label (a caption), and splits of no known name, are left out and counted. Raises
    DataError for a table that cannot be read or lacks a column.
    """
    if not path.is_file():
        raise DataError(
            f"`data.data_root` {str(path)!r} is no file: data set 'table' reads a .csv, .tsv or .parquet file"
        )
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    column = ""
    for number, row in enumerate(rows, 1):
        column = column or _described_by(path, row)
        where = f"row {number}"
        name, value = _text(row.get("path")), row.get(column)
        texts = [text for one in (value if isinstance(value, list) else [value]) if (text := _text(one))]
        if not name or not texts:
            skips.add(f"row without a path or a {column}", where)
            continue
        given = _text(row.get("split"))
        split = split_named(given) if given else None
        if given and split is None:
            skips.add("split that is none of train, test, val, public", f"{where}: {given}")
            continue
        file, client = EncodedFile(name, path.parent / name), _text(row.get("client")) or None
        if column == "label":
            yield Sample(file, _text(value), client, split)
        else:
            for text in texts:
                yield Sample(file, "", client, split, text)


def _described_by(path: Path, row: dict[str, Any]) -> str:
    """The column that says what an image shows: "label" or, without that, "caption"."""
    found = next((column for column in ("label", "caption") if column in row), None)
    if "path" in row and found is not None:
        return found
    have = ", ".join(str(key) for key in row if key is not None)
    lacks = "'path'" if "path" not in row else "'label' (or 'caption')"
    raise DataError(f"table {str(path)!r} lacks the column {lacks}; it has {have}")


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what a column of whole numbers with a gap becomes
    return "" if value is None else str(value).strip()


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.DictReader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    except UnicodeDecodeError:
        raise DataError(f"table {str(path)!r} cannot be read: it is not UTF-8 text") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"table {str(path)!r} cannot be read: {error}") from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"table {str(path)!r} needs pyarrow: pip install 'flora-secure[parquet]', or use CSV") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        wanted = [name for name in file.schema_arrow.names if name in {"path", "label", "client", "split", "caption"}]
        for batch in file.iter_batches(columns=wanted):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"table {str(path)!r} cannot be read: {str(error).splitlines()[0]}") from None


_MOST_TEXT = 1 << 20  # bytes of a label, of captions or of a sample's JSON


def list_shards(root: Path, labels: tuple[str, ...] | None, *, skips: SkipList) -> list[Sample]:
    """The samples of `root`, a .tar file, or of all that lie in it or in its folders named like splits.

    A sample's label is its .cls, or "label" (or "cls") in its .json, or its .txt where `labels` is given, since a .txt
    is else captions, one a line as CLIP_benchmark has them; without a .txt they are "caption" in its .json, a text or
    a list. Labels win: captions count where no sample has a label. A sample's client is "client" in its .json. A
    shard's split is its folder's name, or its own up to the first dash, dot or digit. Raises DataError for a shard that
    is no uncompressed tar.
    """
    shards = [root] if root.is_file() else sorted(path for path in root.rglob("*.tar") if path.is_file())
    listed: list[tuple[str, Sample]] = []
    for shard in shards:
        split = _split(root, shard)
        name = shard.name if root.is_file() else shard.relative_to(root).as_posix()
        for key, members in _grouped(shard, skips):
            sample = f"{name}/{key}"
            listed += [(sample, one) for one in _samples(shard, sample, members, labels, split, skips)]
    captioned = any(one.caption for _, one in listed) and not any(one.label for _, one in listed)
    for sample in dict.fromkeys(name for name, one in listed if not (one.caption if captioned else one.label)):
        skips.add(f"sample without a {'caption' if captioned else 'label'}", sample)
    return [one for _, one in listed if (one.caption if captioned else one.label)]


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


def _grouped(shard: Path, skips: SkipList) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
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
                skips.add("shard cut short", shard.name)
    except (tarfile.TarError, OSError, EOFError) as error:
        if not members and not key:
            raise DataError(f"shard {str(shard)!r} is no uncompressed tar file: {error}") from None
        skips.add("shard cut short", shard.name)
    if members:
        yield key, members


def _samples(
    shard: Path,
    name: str,
    members: dict[str, tarfile.TarInfo],
    labels: tuple[str, ...] | None,
    split: str | None,
    skips: SkipList,
) -> Iterator[Sample]:
    """One with its label, or with "", or one for each of its captions."""
    image = next((suffix for suffix in members if suffix in IMAGE_SUFFIXES), None)
    if image is None:
        skips.add("sample without an image", name)
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
            skips.add("JSON of a sample that cannot be read", name)
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
