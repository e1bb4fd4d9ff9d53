"""A change of a folder that is made whole or not at all: what is new is written aside, and takes its place at the end.

Nothing that is there is ever overwritten, but for the one file that says what the rest is for, which comes last. A kill
in the short time in between leaves new things without that file, which the next change finds and names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flora_secure.errors import ConfigError
from flora_secure.records.durable import PRIVATE_FOLDER, remove_leftovers, replace_file, sync_folder
from flora_secure.records.lock import lock

_STAGE, _LOCK = ".new", ".lock"


class Change:
    """New files and folders for a folder that one process at a time changes; `changing` makes it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._stage = folder / _STAGE
        self._moves: list[tuple[Path, Path]] = []
        self._done: list[Path] = []

    def file(self, target: Path, data: bytes, mode: int) -> None:
        """Have `target` made, with that content and mode. Raises ConfigError where it is there, OSError as writes."""
        replace_file(self._reserved(target), data, mode=mode)

    def folder(self, target: Path, files: dict[str, tuple[bytes, int]]) -> None:
        """Have the folder `target` made, of mode 0700, with files by name: content and mode. Raises as `file`."""
        place = self._reserved(target)
        place.mkdir(PRIVATE_FOLDER)
        for name, (data, mode) in files.items():
            replace_file(place / name, data, mode=mode)

    def commit(self, last: Path, data: bytes | None, mode: int) -> None:
        """Put everything in its place and, unless `data` is None, replace the file `last` after it.

        Raises OSError; then nothing has changed.
        """
        parents = dict.fromkeys(target.parent for _, target in self._moves)
        new = [parent for parent in parents if not parent.exists()]
        try:
            for place, target in self._moves:
                target.parent.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
                os.rename(place, target)
                self._done.append(target)
            for parent in (*parents, self.root):
                sync_folder(parent)
            if data is not None:
                replace_file(last, data, mode=mode)
        except BaseException:
            for target in self._done:
                _remove(target)
            for parent in new:
                with suppress(OSError):
                    parent.rmdir()
            raise

    def _reserved(self, target: Path) -> Path:
        if os.path.lexists(target):
            raise ConfigError(f"{target} is there, and nothing is overwritten; move it away, or remove it")
        place = self._stage / str(len(self._moves))
        self._moves.append((place, target))
        return place


@contextmanager
def changing(folder: Path) -> Iterator[Change]:
    """Change `folder`, made of mode 0700 where it is missing, while no other process does.

    What was written aside is gone afterwards and, after an error, the folder if it is new. Raises ConfigError, one
    line, where another process changes it, where it is no folder, and for any OSError within.
    """
    handle = None
    stage = folder / _STAGE
    there = os.path.lexists(folder)
    try:
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        handle = lock(folder / _LOCK)
        _remove(stage)  # of a process that was killed
        remove_leftovers(folder)
        stage.mkdir(PRIVATE_FOLDER)
        yield Change(folder)
        there = True
    except BlockingIOError:
        raise ConfigError(f"{folder} is being changed by another process; wait for it to end") from None
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}; nothing was changed, make room or choose another "
            "folder"
        ) from None
    finally:
        if handle is not None:
            _remove(stage)
            with suppress(OSError):
                remove_leftovers(folder)
            if not there:
                _remove(folder / _LOCK)
                with suppress(OSError):
                    folder.rmdir()
            os.close(handle)


def _remove(path: Path) -> None:
    """`path`, a file or a folder, is gone as far as that can be had: this is cleaning up."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)
