"""Folders of image files: one folder a class, or one a client with the classes inside.

ROOT/[SPLIT/]CLASS/…/IMAGE            SPLIT: train, test, val or public (and their usual other names)
ROOT/[SPLIT/]CLIENT/CLASS/…/IMAGE     with partition "natural"; test images may lie in class folders directly
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from flora_secure.data.files.samples import IMAGE_SUFFIXES, Sample, split_named
from flora_secure.data.images import EncodedFile
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError


def require_folder(root: Path | None, dataset: str) -> Path:
    """Returns `root`, if there is such a folder or file. Raises `DataError`, one line, where there is none."""
    if root is None:
        raise DataError(f"data set {dataset!r} needs `data.data_root`: the folder (or file) that holds it")
    if not root.exists():
        raise DataError(f"`data.data_root` {str(root)!r} does not exist")
    return root


def list_folder(root: Path, *, natural: bool, notes: Notes) -> Iterator[Sample]:
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
        yield from _list(root, root, None, natural, notes)
        return
    for folder, split in splits:
        if split is None:
            notes.skip("folder beside train/ that is no split", folder.name)
            continue
        clients = natural and split in {"private", None}
        yield from _list(root, folder, split, clients or (natural and not _of_classes(folder, classes)), notes)


def _list(root: Path, top: Path, split: str | None, clients: bool, notes: Notes) -> Iterator[Sample]:
    for holder in [top, *_folders(top)] if clients else [top]:
        for path in sorted(holder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
                notes.skip("image outside a class folder", path.relative_to(root).as_posix())
    for client in _folders(top) if clients else [top]:
        groups = _folders(client)
        if clients and not groups:
            notes.skip("client folder without a class folder", client.relative_to(root).as_posix())
        for group in groups:
            paths = [*files_below(group)]
            if not paths:
                notes.skip("class folder without a file", group.relative_to(root).as_posix())
            for path in paths:
                name = path.relative_to(root).as_posix()
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    yield Sample(EncodedFile(name, path), group.name, client.name if clients else None, split)
                else:
                    notes.skip("file that is no image by its name", name)


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
