"""Writes that are on disk, whole, when they return: a crash before that leaves the old file, or none.

Write a new file beside the old one, flush it, rename it over the old one, flush the folder (POSIX `rename`; Pillai et
al., OSDI 2014, on why each step is needed).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PRIVATE, PRIVATE_FOLDER = 0o600, 0o700  # modes of what never leaves; all else follows the process's umask
_SCRATCH = ".tmp"
_BUFFER = 1 << 20  # bytes between two writes of a long file
_PROBE = 1 << 16  # bytes that fit on a disk with any room


def replace_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """`path` holds `data` from now on. `mode`: of the file, less the process's umask. Raises `OSError`."""
    scratch = path.with_name(f".{path.name}{_SCRATCH}")
    _write(scratch, os.O_TRUNC, data, mode)
    os.replace(scratch, path)
    sync_folder(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Make the file `path`, which must not be there. A crash may leave any beginning of it; an error leaves nothing.
    `mode`: of the file, less the process's umask. Raises `FileExistsError` and any other `OSError`."""
    try:
        _write(path, os.O_EXCL, data, mode)
    except FileExistsError:  # a file, or a link to anything
        raise
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    sync_folder(path.parent)


def append(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Add `data` at the end. A crash may leave any beginning of it there. `mode`: of a new file, less the process's
    umask. Raises `OSError`."""
    new = not path.exists()
    _write(path, os.O_APPEND, data, mode)
    if new:
        sync_folder(path.parent)


def begin_file(path: Path, *, mode: int = 0o666) -> BinaryIO:
    """The file `path`, emptied or new, to be written bit by bit: it is on disk once `end_file` has it. `mode`: of the
    file, less the process's umask. Raises `OSError`."""
    return os.fdopen(_opened(path, os.O_TRUNC, mode), "wb", _BUFFER)


def end_file(path: Path, stream: BinaryIO) -> None:
    """What was written of the file that `begin_file` gave is on disk from now on. Raises `OSError`."""
    with stream:
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(path.parent)


def replace_folder(source: Path, target: Path) -> None:
    """Move the folder `source` to `target`, its files flushed and of the mode of any new file, whatever library wrote
    them. A crash may leave neither: a rename replaces no full folder. Raises `OSError`."""
    mode = _mode_in(source)
    for path in source.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            os.chmod(path, mode)
            _sync(path)
    sync_folder(source)
    if target.exists():
        shutil.rmtree(target)
    os.rename(source, target)
    sync_folder(target.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make the folder `path`, and its parents where they are missing, and see that it takes a file.

    Where the block ends with an error they go again, unless something stands in them. Raises `OSError`, and
    `FileExistsError` for a path that there is.
    """
    made: list[Path] = []
    try:
        _make(path, made)
        yield
    except BaseException:
        _unmake(made)
        raise


def require_creatable(path: Path) -> None:
    """Raise as `new_folder` where that cannot make `path`; nothing is left of the trial."""
    made: list[Path] = []
    try:
        _make(path, made)
    finally:
        _unmake(made)


def _make(path: Path, made: list[Path]) -> None:
    """What `new_folder` does; `made` gets the folders that are new, innermost first."""
    missing = [place for place in path.absolute().parents if not place.exists()]
    for place in reversed(missing):
        with suppress(FileExistsError):  # somebody else has just made it
            place.mkdir()
            made.insert(0, place)
    path.mkdir()
    made.insert(0, path)
    probe = path / _SCRATCH
    try:
        _write(probe, os.O_EXCL, bytes(_PROBE))
    finally:
        remove_file(probe)


def _unmake(made: list[Path]) -> None:
    with suppress(OSError):
        for place in made:
            place.rmdir()


def remove_file(path: Path) -> None:
    """`path` is gone, if it was there. Raises `OSError`."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Take out what writes that never ended have left. Raises `OSError`."""
    for path in folder.glob(f".*{_SCRATCH}"):
        os.unlink(path)


def sync_folder(folder: Path) -> None:
    """The names in `folder` are on disk. Windows has no such call."""
    if os.name == "posix":
        _sync(folder)


def _opened(path: Path, how: int, mode: int) -> int:
    # in a folder of others, a link would have another file written, and a pipe would wait for a reader
    how |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, os.O_WRONLY | os.O_CREAT | how, mode)


def _write(path: Path, how: int, data: bytes, mode: int = 0o666) -> None:
    handle = _opened(path, how, mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _mode_in(folder: Path) -> int:
    """The mode of a new file in `folder`: the process's umask can only be asked for by setting it."""
    probe = folder / _SCRATCH
    _write(probe, os.O_EXCL, b"")
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)  # Windows flushes what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
