"""One process at a time: a file whose holder keeps it locked until it lets go or ends, in whatever way."""

from __future__ import annotations

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
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock(path: Path) -> int:
    """Hold the file at ``path``, made if it is missing, for this process: ``os.close`` what is returned to let go.

    Raises ``BlockingIOError`` if another process holds it, any other ``OSError`` where it cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(handle)
    except OSError:
        os.close(handle)
        raise BlockingIOError(f"{path} is held by another process") from None
    return handle
