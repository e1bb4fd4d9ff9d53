"""A site's store, which one process at a time may hold."""

from __future__ import annotations

import time
from pathlib import Path

from flora_secure.client.store import FileStore
from flora_secure.errors import RunFolderError

_WAIT = 10.0  # seconds for another process of the same site, which answers another message


def store_in(folder: Path) -> FileStore:
    """The client's store in a folder; waits a little for another process that is at a message of its own.

    Raises RunFolderError where that one does not end, and as `FileStore`.
    """
    end = time.monotonic() + _WAIT
    while True:
        try:
            return FileStore(folder)
        except RunFolderError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
