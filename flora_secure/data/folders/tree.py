"""What lies in a folder and below it: looked at once, so that all that is left out is counted once.

One rule for links, in folders of images, of shards and of images to answer: a link to a file is read if the file lies
below the same root, and a link to a folder is not followed. So no link shows what its owner did not put there, and
none makes a loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flora_secure.boundary.foreign import MOST_DEPTH
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError


@dataclass(frozen=True)
class Folder:
    """A folder with its `folders` and the names of its `files`, both by their names; hidden ones are in neither."""

    path: Path
    folders: tuple[Folder, ...] = field(default=(), repr=False)
    files: tuple[str, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    def below(self) -> Iterator[Path]:
        """Its files and those of its folders, a folder's own before those of its folders."""
        yield from (self.path / name for name in self.files)
        for folder in self.folders:
            yield from folder.below()


def tree_of(root: Path, notes: Notes) -> Folder:
    """The folder `root` and all below it. Raises DataError where it cannot be read.

    Counted: hidden files and folders, links that are not followed, folders that cannot be read or lie deeper than
    `MOST_DEPTH` in each other.
    """
    try:
        real = os.path.realpath(root)
        return _folder(root, root, real, notes, 0)
    except (OSError, ValueError) as error:
        raise DataError(f"`data.data_root` {str(root)!r} cannot be read: {error}") from None


def lies_below(path: str | Path, real_root: str) -> bool:
    """Whether a path, all links followed, lies below a folder that is given without links."""
    try:
        target = os.path.realpath(path)
    except ValueError:  # it holds a NUL, and is no path
        return True
    return target == real_root or target.startswith(real_root.rstrip(os.sep) + os.sep)


def _folder(root: Path, path: Path, real: str, notes: Notes, depth: int) -> Folder:
    folders, files = [], []
    with os.scandir(path) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        reason = _left_out(entry, real, depth)
        inner = Path(entry.path)
        if not reason and entry.is_dir(follow_symlinks=False):
            try:
                folders.append(_folder(root, inner, real, notes, depth + 1))
            except OSError as error:
                reason = f"folder that cannot be read: {error.strerror}"
        elif not reason:
            files.append(entry.name)
        if reason:
            notes.skip(reason, inner.relative_to(root).as_posix())
    return Folder(path, tuple(folders), tuple(files))


def _left_out(entry: os.DirEntry[str], real: str, depth: int) -> str:
    folder = entry.is_dir(follow_symlinks=False)
    if entry.name.startswith("."):
        return f"hidden {'folder' if folder else 'file'}"
    if entry.is_symlink():
        if not lies_below(entry.path, real):
            return "link that leaves the data root"
        return "link to a folder" if entry.is_dir() else ""
    return f"folder more than {MOST_DEPTH} deep" if folder and depth >= MOST_DEPTH else ""
