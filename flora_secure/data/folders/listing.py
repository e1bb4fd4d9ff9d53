"""Folders of image files: one folder a class, or one a client with the classes inside.

ROOT/[SPLIT/]CLASS/…/IMAGE            SPLIT: train, test, val or public (and their usual other names)
ROOT/[SPLIT/]CLIENT/CLASS/…/IMAGE     test images may lie in class folders directly
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from flora_secure.boundary.foreign import printable
from flora_secure.data.files.samples import IMAGE_SUFFIXES, Sample, split_named
from flora_secure.data.folders.kinds import PLAIN, left_out_for, suffix_of
from flora_secure.data.folders.tree import Folder, tree_of
from flora_secure.data.images import EncodedFile
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError
from flora_secure.planning.names import proposed
from flora_secure.planning.sections import Layout

_TOLD = 3  # names in a message


def require_folder(root: Path | None, dataset: str) -> Path:
    """Returns `root`, if there is such a folder or file. Raises `DataError`, one line, where there is none."""
    if root is None:
        raise DataError(f"data set {dataset!r} needs `data.data_root`: the folder (or file) that holds it")
    if not root.exists():
        raise DataError(f"`data.data_root` {str(root)!r} does not exist")
    return root


def list_folder(root: Path, *, layout: Layout | None, notes: Notes, least: int = 2) -> list[Sample]:
    """The images below `root`, in the order of their paths.

    `layout`: whether the folders are "classes", or "clients" with the classes inside; `None` takes classes, and
    raises DataError where they may as well be clients. Raises DataError where `root` is no folder, or holds images of
    fewer than `least` classes: the message says what it holds.
    """
    if not root.is_dir():
        raise DataError(
            f"`data.data_root` {str(root)!r} is no folder: data set 'folder' reads one folder a class; {_reads(root)}"
        )
    tree = tree_of(root, notes)
    _warn_of_splits_beside(root, notes)
    splits = [(folder, split_named(folder.name)) for folder in tree.folders]
    if not any(split == "private" for _, split in splits):
        splits = [(tree, None)]  # without train/, a class may well be called "test" or "public"
    else:
        _outside(root, tree, notes)
    trained = [folder for folder, split in splits if split in {"private", None}]
    if layout is None:
        _require_classes(root, [folder for folder, split in splits if split is not None or folder is tree], notes)
    classes = {group.name for top in trained for client in top.folders for group in client.folders}
    listed: list[Sample] = []
    for folder, split in splits:
        if split is None and folder is not tree:
            notes.skip("folder beside train/ that is no split", folder.name)
            continue
        clients = layout == "clients" and (split in {"private", None} or not _of_classes(folder, classes))
        listed += _list(root, folder, split, clients, notes)
    if len({sample.label for sample in listed}) < least:
        raise DataError(_seen(root, tree, [f for f, _ in splits], layout == "clients", listed) + notes.told())
    return listed


def _warn_of_splits_beside(root: Path, notes: Notes) -> None:
    place = root.resolve()
    if split_named(place.name) is None or not os.access(place.parent, os.R_OK):
        return
    beside = [one.name for one in place.parent.iterdir() if one.is_dir() and one != place and split_named(one.name)]
    if beside:
        notes.warn(
            f"the data root is the folder {place.name} alone, and {', '.join(sorted(beside))} lies beside it, unused: "
            "`data.data_root` takes the folder that holds them all"
        )


def _reads(root: Path) -> str:
    return proposed(root, "folder")


def _list(root: Path, top: Folder, split: str | None, clients: bool, notes: Notes) -> Iterator[Sample]:
    for holder in [top, *top.folders] if clients else [top]:
        _outside(root, holder, notes)
    for client in top.folders if clients else [top]:
        if clients and not client.folders:
            notes.skip("client folder without a class folder", _name(root, client.path))
        for group in client.folders:
            paths = [*group.below()]
            if not paths:
                notes.skip("class folder without a file", _name(root, group.path))
            for path in paths:
                name = _name(root, path)
                if suffix_of(path.name) in IMAGE_SUFFIXES:
                    yield Sample(EncodedFile(name, path), group.name, client.name if clients else None, split)
                else:
                    notes.skip(left_out_for(path.name), name)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _outside(root: Path, holder: Folder, notes: Notes) -> None:
    """Count the files that lie where only folders are expected; texts beside them are nothing that is missed."""
    for name in holder.files:
        if suffix_of(name) in IMAGE_SUFFIXES:
            notes.skip("image outside a class folder", _name(root, holder.path / name))
        elif (reason := left_out_for(name)) != PLAIN:
            notes.skip(reason, _name(root, holder.path / name))


def _of_classes(top: Folder, classes: set[str]) -> bool:
    """Whether `top` holds class folders, and not clients: by their names, or because images lie two levels down."""
    return any(folder.name in classes or _own_images(folder) for folder in top.folders)


def _own_images(folder: Folder) -> int:
    return sum(suffix_of(name) in IMAGE_SUFFIXES for name in folder.files)


def _images(folder: Folder) -> int:
    return _own_images(folder) + sum(_images(inner) for inner in folder.folders)


def _require_classes(root: Path, tops: Sequence[Folder], notes: Notes) -> None:
    """DataError where folders may be classes or clients; a warning where folders inside of classes are passed over."""
    deep = list[Folder]()
    for top in tops:
        holders = [folder for folder in top.folders if _images(folder)]
        nested = [folder for folder in holders if any(_images(inner) for inner in folder.folders)]
        inside = Counter(inner.name for folder in nested for inner in folder.folders if _images(inner))
        shared = Counter({name: count for name, count in inside.items() if count > 1})
        # most have images below folders alone, and most of these folders occur elsewhere: a client may lack a class
        alone = sum(not _own_images(folder) for folder in nested)
        if len(shared) > 1 and 2 * alone > len(holders) and 2 * shared.total() > inside.total():
            raise DataError(_two_readings(root, top, holders, sorted(inside)))
        deep += nested
    if deep:
        count = sum(1 for folder in deep for inner in folder.folders if _images(inner))
        notes.warn(
            f"{len(deep):,} class folders hold {count:,} folders of images, which all count as the outer folder's "
            "class: `data.layout` classes says that this is meant, `data.layout` clients takes the outer folders for "
            "clients and the inner ones for classes"
        )


def _two_readings(root: Path, top: Folder, holders: Sequence[Folder], inside: Sequence[str]) -> str:
    outer, inner = _some([folder.name for folder in holders]), _some(inside)
    layout = ""
    if all(split_named(name) for name in inside):
        layout = "; splits lie above the classes: ROOT/train/CLASS, ROOT/test/CLASS"
    return (
        f"`data.data_root` {str(root)!r} can be read in two ways, since folders of the same names lie in most folders "
        f"of {_name(root, top.path) if top.path != root else 'it'}: `data.layout` clients takes {outer} for clients, "
        f"and {inner} for classes; `data.layout` classes takes {outer} for classes; choose one{layout}"
    )


def _some(names: Sequence[str]) -> str:
    """ "the 12 folders a, b, c, …", however many there are."""
    more = ", …" if len(names) > _TOLD else ""
    what = "folder" if len(names) == 1 else "folders"
    return f"the {len(names):,} {what} {', '.join(map(printable, names[:_TOLD]))}{more}"


def _seen(root: Path, tree: Folder, tops: Sequence[Folder], clients: bool, listed: Sequence[Sample]) -> str:
    """What a root without two classes holds, what is expected there, and which root may be meant."""
    wanted = f"ROOT/{'CLIENT/' if clients else ''}CLASS/IMAGE"
    start = f"`data.data_root` {str(root)!r} holds"
    images, folders = sum(map(_images, tops)), [folder for top in tops for folder in top.folders]
    if not images:
        files = Counter(suffix_of(path.name) or "files without a suffix" for path in tree.below())
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in files.most_common(_TOLD))
        found = f"; no image was found among {kinds}" if files else ": no image was found"
        return f"{start} {len(tree.folders):,} folders{found}; expected {wanted}; {_reads(root)}"
    with_images = [folder for folder in folders if _images(folder)]
    own = sum(map(_own_images, tops))
    if not with_images:
        beside = sum(1 for one in root.resolve().parent.iterdir() if one.is_dir() and one.name[0] != ".")
        up = f"; as a class of its folder: `data.data_root` {str(root.resolve().parent)!r}" if beside > 1 else ""
        return f"{start} {own:,} images in no folder of a class: expected {wanted}{up}"
    if clients and not listed:
        return (
            f"{start} {_some([folder.name for folder in with_images])} with {images - own:,} images and no folders "
            f"inside: expected {wanted}; where these are the classes, leave out `data.layout` clients and "
            "`data.partition` natural"
        )
    labels = sorted({sample.label for sample in listed})
    held = f"{start} images of one class alone, {labels[0]!r} ({len(listed):,} images)" if labels else start
    (one, *more) = with_images
    inner = [folder for folder in one.folders if _images(folder)]
    if more or len(inner) < 2:
        return f"{held}: expected {wanted}, two classes or more"
    return (
        f"{held}: expected {wanted}; for {_some([folder.name for folder in inner])} inside it, `data.data_root` "
        f"{str(one.path)!r}"
    )
