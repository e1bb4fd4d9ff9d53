"""Arrays on disk between runs, so that what a run has computed from model and data once is not computed again.

A file is a NumPy .npy file followed by the SHA-256 of its bytes (`numpy.load` reads it all the same). Nothing is ever
unpickled. Losing the cache costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flora_secure.boundary.foreign import read_bytes
from flora_secure.errors import ForeignError

_DIGEST = 32


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/flora-secure`, or `~/.cache/flora-secure` (XDG Base Directory Specification)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "flora-secure"


def cache_key(*parts: object) -> str:
    """A file name for what follows from `parts`: SHA-256, hexadecimal, of their texts."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


class ArrayCache:
    """A folder of arrays by key. `warn` is told, in a line, of a damaged file and of a folder that takes none."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder, self._warn = folder, warn
        self._told = False

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def get(self, key: str, length: int, kind: str) -> np.ndarray | None:
        """The array of `key`; `None`, with a warning if it is damaged, where there is none of `length` rows whose
        dtype is of `kind` ("f4" or "U", as NumPy names them)."""
        try:
            size = self._path(key).stat().st_size
            self._tell_who_may_list()
            raw = read_bytes(self._path(key), size)
        except FileNotFoundError:
            return None
        except (OSError, ForeignError) as error:
            self._warn(f"warning: the cache cannot be read: {error}")
            return None
        reason = "its SHA-256 is not that of its bytes"
        if hashlib.sha256(raw[:-_DIGEST]).digest() == raw[-_DIGEST:]:
            try:
                array: np.ndarray = np.load(io.BytesIO(raw[:-_DIGEST]), allow_pickle=False)
            except (ValueError, OSError, EOFError, MemoryError) as error:
                reason = str(error)
            else:
                if array.shape[:1] == (length,) and array.dtype.str[1:].startswith(kind):
                    return array
                reason = f"it holds {array.dtype} {array.shape}, not {length} rows"
        self._warn(f"warning: cached {self._path(key)} is damaged ({reason}); computed again")
        return None

    def _tell_who_may_list(self) -> None:
        if os.name == "posix" and self.folder.stat().st_mode & 0o077 and not self._told:
            self._told = True
            self._warn(
                f"warning: others may list {self.folder}, and names of cached features tell which images were used: "
                f"chmod 700 {self.folder}"
            )

    def put(self, key: str, array: np.ndarray) -> None:
        """Keep `array` under `key`, whole or not at all; a warning where that cannot be done."""
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        raw = stream.getvalue()
        temporary = None
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            self._tell_who_may_list()
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(raw + hashlib.sha256(raw).digest())
            os.replace(temporary, self._path(key))
        except OSError as error:
            self._warn(f"warning: nothing was cached: {error}")
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
