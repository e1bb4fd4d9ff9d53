"""One process at a time: a file whose holder keeps it locked until it lets go or ends, in whatever way."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # the first byte, whether or not the file has one

    _lock_alone = _lock
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lock_alone(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this opening of the file, and not of the process


_HELD = {errno.EACCES, errno.EAGAIN}  # POSIX allows lockf either, the C runtime of Windows says EACCES


class UnlockableError(OSError):
    """The file cannot be locked by anybody: its file system has no locks (ENOLCK, ENOTSUP), or fails."""


def lock(path: Path) -> int:
    """Hold the file at `path`, made if it is missing, for this process: `os.close` what is returned to let go.

    Raises `BlockingIOError` if another process holds it, `UnlockableError` where it cannot be locked at all, and any
    other `OSError` where it cannot be opened.
    """
    return _locked(path, _lock)


def lock_alone(path: Path) -> int:
    """Hold the file at `path` as `lock` does, against the other threads of this process too.

    `lock` is granted to a process that holds the file already, and goes when any of its threads closes it. Raises as
    `lock`.
    """
    return _locked(path, _lock_alone)


def _locked(path: Path, how: Callable[[int], None]) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        how(handle)
    except OSError as error:
        os.close(handle)
        if error.errno in _HELD:
            raise BlockingIOError(f"{path} is held by another process") from None
        raise UnlockableError(error.errno, error.strerror or str(error), str(path)) from None
    return handle
