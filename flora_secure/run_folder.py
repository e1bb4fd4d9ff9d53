"""The folder of one run: ``config.toml``, ``rounds.jsonl``, ``report.json``, ``adapter/``.

Files are replaced atomically, and a line of ``rounds.jsonl`` is on disk before the next round starts, so that a crash
loses at most the round in flight. Each line carries the SHA-256 of the line before it (of the config for the first).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flora_secure.config import ConfigError, RunConfig
from flora_secure.report import Report


def require_new(path: Path) -> None:
    """Raise :class:`ConfigError` if a run cannot be written to ``path``, before anything is computed for it."""
    if path.exists() or path.is_symlink():
        raise ConfigError(f"out {path} exists already; choose a new folder, nothing was overwritten")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"out {path} cannot be written below {nearest}; choose another folder with --out")


class RunFolder:
    """A new folder that one run writes to."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        """Make ``path`` (and its parents) and write the resolved config.

        Raises :class:`ConfigError` if ``path`` exists or cannot be written.
        """
        self.path = path
        require_new(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise _unwritable(path, error) from None
        text = config.to_toml()
        self._previous = hashlib.sha256(text.encode()).hexdigest()
        self._write("config.toml", text)

    def append_round(self, record: dict[str, Any]) -> None:
        """Add one round as a line of JSON; it is on disk when this returns."""
        line = json.dumps({**record, "previous": self._previous}, ensure_ascii=False, allow_nan=False)
        try:
            with (self.path / "rounds.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self._previous = hashlib.sha256(line.encode()).hexdigest()

    def write_report(self, report: Report) -> None:
        """``report.json``, replaced as a whole."""
        self._write("report.json", report.to_json() + "\n")

    def write_adapter(self, save: Callable[[Path], None]) -> None:
        """``adapter/``, written by ``save(folder)`` beside its place and then moved there."""
        try:
            with tempfile.TemporaryDirectory(dir=self.path, prefix=".adapter-") as scratch:
                fresh = Path(scratch) / "adapter"
                fresh.mkdir()
                save(fresh)
                target = self.path / "adapter"
                if target.exists():
                    shutil.rmtree(target)
                fresh.rename(target)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def _write(self, name: str, text: str) -> None:
        try:
            scratch = self.path / f".{name}.tmp"
            with scratch.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path / name)
        except OSError as error:
            raise _unwritable(self.path, error) from None


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"out {path} cannot be written: {error.strerror or error}; choose another folder with --out")
