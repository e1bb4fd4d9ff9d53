"""Writes that are on disk, whole, when they return: a crash before that leaves the old file, or none.

Write a new file beside the old one, flush it, rename it over the old one, flush the folder (POSIX `rename`; Pillai et
al., OSDI 2014, on why each step is needed).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_SCRATCH = ".tmp"
# a folder of a stranger's may hold a link, or a pipe, under the name that we are about to write
_NO_TRAP = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def replace_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """`path` holds `data` from now on. `mode`: of the file, less the process's umask. Raises `OSError`."""
    scratch = path.with_name(f".{path.name}{_SCRATCH}")
    _write(scratch, os.O_TRUNC | _NO_TRAP, data, mode)
    os.replace(scratch, path)
    sync_folder(path.parent)


def append(path: Path, data: bytes) -> None:
    """Add `data` at the end. A crash may leave any beginning of it there. Raises `OSError`."""
    new = not path.exists()
    _write(path, os.O_APPEND, data)
    if new:
        sync_folder(path.parent)


def replace_folder(source: Path, target: Path) -> None:
    """Move the folder `source` to `target`, its files flushed. A crash may leave neither: a rename replaces no full
    folder. Raises `OSError`."""
    for path in source.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            _sync(path)
    sync_folder(source)
    if target.exists():
        shutil.rmtree(target)
    os.rename(source, target)
    sync_folder(target.parent)


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


def _write(path: Path, how: int, data: bytes, mode: int = 0o666) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | how | getattr(os, "O_BINARY", 0), mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)  # Windows flushes what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
