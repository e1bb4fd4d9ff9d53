"""One process at a time: a file whose holder keeps it locked until it lets go or ends, in whatever way."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # the first byte, whether or not the file has one
else:
    import fcntl

    def _lock(handle: int) -> None:
        # of this opening of the file: a lock of the process (lockf) is granted to its other threads as well, and goes
        # when any of them closes the file
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = {errno.EACCES, errno.EAGAIN}  # flock says EAGAIN, NFS and the C runtime of Windows say EACCES


class UnlockableError(OSError):
    """The file cannot be locked by anybody: its file system has no locks (ENOLCK, ENOTSUP), or fails."""


def lock(path: Path) -> int:
    """Hold the file at `path`, made if it is missing, for the caller: `os.close` what is returned to let go.

    Raises `BlockingIOError` if another process or another thread of this one holds it, `UnlockableError` where it
    cannot be locked at all, and any other `OSError` where it cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(handle)
    except OSError as error:
        os.close(handle)
        if error.errno in _HELD:
            raise BlockingIOError(f"{path} is held by another process") from None
        raise UnlockableError(error.errno, error.strerror or str(error), str(path)) from None
    return handle
