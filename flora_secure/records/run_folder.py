"""The folder of one run: `config.toml`, `rounds.jsonl`, `report.json`, `adapter/`, `sums/`, `local/`; until it ends,
`state/`.

Files are replaced atomically, and a line of `rounds.jsonl` is on disk before the next round starts, so that a crash
loses at most the round in flight; `reopen` goes on after it. Each line carries the SHA-256 of the line before it
(of the config for the first), and the report that of the last line, so that an edited, reordered or truncated log is
found. docs/run-folder.md.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from flora_secure.errors import ConfigError, RunFolderError
from flora_secure.planning.config import RunConfig
from flora_secure.records import checkpoints, sums
from flora_secure.records.adapter_card import adapter_hash
from flora_secure.records.checkpoints import Checkpoint
from flora_secure.records.durable import (
    PRIVATE,
    PRIVATE_FOLDER,
    append,
    new_folder,
    remove_file,
    remove_leftovers,
    replace_file,
    replace_folder,
)
from flora_secure.records.lock import UnlockableError, lock
from flora_secure.records.reading import read_config, read_lines, read_unverified
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Choices, Report


@contextmanager
def claimed(path: Path | None) -> Iterator[Path]:
    """The new folder of a run that is to begin, made before anything is computed for it: the `path`, or where there
    is none a new name of the time of day in `runs/`. A folder that nothing was written to goes where the block ends
    with an error. Raises `ConfigError` where it exists or cannot be made."""
    with ExitStack() as stack:
        for place in _names() if path is None else (path,):
            try:
                stack.enter_context(new_folder(place))
                break
            except FileExistsError:
                if path is not None:
                    raise _existing(place) from None
            except (OSError, ValueError) as error:
                raise _unwritable(place, error) from None
        yield place


def _names() -> Iterator[Path]:
    """Two runs may begin in one second."""
    now = Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    yield now
    for number in itertools.count(2):
        yield now.with_name(f"{now.name}-{number}")


class RunFolder:
    """The folder that one run writes to: a new one, or one that `reopen` found."""

    path: Path
    _state: Path
    _previous: str
    _lock: int | None

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        start: Checkpoint | None = None,
        choices: Choices | None = None,
        adapter: bytes | None = None,
    ) -> None:
        """Make `path` (and its parents), write the state before the first round, with the `choices` that the report is
        to tell of, and the resolved config. `adapter`: what round 1 begins with, as a file of `sums/`, if these are
        kept.

        Without `start` the run cannot be resumed. Raises `ConfigError` if `path` exists and is not empty, or cannot be
        written.
        """
        if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
            raise _existing(path)
        text = config.to_toml().encode()
        self._open(path, hashlib.sha256(text).hexdigest())
        with self._writing():
            path.mkdir(parents=True, exist_ok=True)
            if start is not None:
                self._state.mkdir(PRIVATE_FOLDER)
                self._lock = _locked(path)
                checkpoints.write(self._state, start, self._previous)
                if choices is not None:
                    checkpoints.write_choices(self._state, choices)
            if adapter is not None:
                (path / sums.FOLDER).mkdir()
                replace_file(path / sums.FOLDER / sums.INITIAL, adapter)
            # last: a folder with a config has all that a run begins with
            replace_file(path / "config.toml", text)

    def _open(self, path: Path, last_hash: str, lock: int | None = None) -> None:
        self.path, self._previous, self._lock = path, last_hash, lock
        self._state = path / "state"

    @property
    def last_hash(self) -> str:
        """SHA-256 of the last line of `rounds.jsonl`, of the config before there is one; for the report."""
        return self._previous

    def announce(self, record: RoundRecord) -> None:
        """Write down what the next round may release at the worst (a record that is `lost`), before it does."""
        with self._writing():
            checkpoints.announce(self._state, record, self._previous)

    def append_round(self, record: RoundRecord, after: Checkpoint | None = None, kept_sum: bytes | None = None) -> None:
        """Add one round as a line of JSON; it is on disk when this returns, and so are the state `after` it and the
        file of its sum."""
        table = {**record.to_dict(), "previous": self._previous}
        line = json.dumps(table, ensure_ascii=False, allow_nan=False).encode()
        line_hash = hashlib.sha256(line).hexdigest()
        with self._writing():
            if kept_sum is not None:
                replace_file(self.path / sums.FOLDER / sums.name_of(record.round), kept_sum)
            if after is not None:
                checkpoints.write(self._state, after, line_hash)
            append(self.path / "rounds.jsonl", line + b"\n")
            self._previous = line_hash
            if after is not None:
                checkpoints.keep_only(self._state, after.round)

    def write_report(self, report: Report) -> None:
        """`report.json`, replaced as a whole. The run is over, its `state/` goes."""
        with self._writing():
            replace_file(self.path / "report.json", (report.to_json() + "\n").encode())
            if self._lock is not None:  # Windows removes no file that is open
                os.close(self._lock)
                self._lock = None
            if self._state.exists():
                shutil.rmtree(self._state)

    def write_local(self, name: str, text: str) -> None:
        """A file below `local/`: what is for the eyes of whoever runs it alone, and never leaves with the rest."""
        place = self.path / "local"
        with self._writing():
            place.mkdir(PRIVATE_FOLDER, exist_ok=True)
            replace_file(place / name, text.encode(), mode=PRIVATE)

    def write_adapter(self, save: Callable[[Path], None]) -> str:
        """`adapter/`, written by `save(folder)` beside its place and then moved there; SHA-256 of its weights."""
        with self._writing(), tempfile.TemporaryDirectory(dir=self.path, prefix=".adapter-") as scratch:
            fresh = Path(scratch) / "adapter"
            fresh.mkdir()
            save(fresh)
            replace_folder(fresh, self.path / "adapter")
        return adapter_hash(self.path / "adapter")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path, error) from None


def remove_unborn(path: Path) -> None:
    """Take away a folder in which a run was about to begin when it was killed: there is no config yet, so that nobody
    was invited. A folder with anything else in it stays. Raises `RunFolderError` where another process holds it,
    `ConfigError` where it cannot be removed."""
    state = path / "state"
    if path.is_symlink() or state.is_symlink() or not path.is_dir():
        return
    if {entry.name for entry in path.iterdir()} - {"state", sums.FOLDER, ".config.toml.tmp", ".tmp"}:
        return
    try:
        if state.is_dir():
            os.close(_locked(path))
        shutil.rmtree(path)
    except OSError as error:
        raise _unwritable(path, error) from None


class Interrupted(NamedTuple):
    """A run that has not ended. `begun`: the announced record of the round that was in flight, if one was; `choices`:
    what was decided when it began, if that was written down."""

    folder: RunFolder
    config: RunConfig
    records: list[RoundRecord]
    checkpoint: Checkpoint
    begun: RoundRecord | None
    choices: Choices | None


def reopen(path: Path) -> Interrupted:
    """Open the folder of a run without a report, to go on after its last whole line. A line that was cut short goes.

    Raises `RunFolderError` or `CheckpointError` for what is missing, damaged or
    does not belong together, and for a run that another process is writing: nothing has changed then.
    """
    text, state = read_config(path), path / "state"
    if not state.is_dir():
        raise RunFolderError(f"{state} is missing: without it the run cannot go on")
    try:
        handle = _locked(path)  # before anything is read that another process may be writing
        try:
            return _taken_up(path, text, handle)
        except BaseException:
            os.close(handle)
            raise
    except OSError as error:
        raise _unwritable(path, error) from None


def _taken_up(path: Path, text: str, handle: int) -> Interrupted:
    """`reopen` of a folder that this process holds by `handle`; `text` is that of `config.toml`."""
    state = path / "state"
    run, breaks = read_unverified(path)
    if run.report is not None:
        raise RunFolderError(f"the run in {path} is complete, nothing is left to do")
    lines, rest = read_lines(path)
    if rest:
        breaks = breaks[:-1]  # what was being written when the run was killed
    if breaks:
        raise RunFolderError(f"{breaks[0].where}: {breaks[0].what}")
    if run.config.to_toml() != text:
        raise RunFolderError(
            f"{path / 'config.toml'} is not what this release writes for the same run: go on with the release of "
            "flora-secure that began it"
        )
    last_hash = hashlib.sha256((lines[-1] if lines else text).encode()).hexdigest()
    checkpoint = checkpoints.read(state, len(lines), last_hash)
    begun = checkpoints.announced(state, len(lines), last_hash)
    choices = checkpoints.read_choices(state)
    folder = RunFolder.__new__(RunFolder)
    folder._open(path, last_hash, handle)
    if rest:
        replace_file(path / "rounds.jsonl", "".join(line + "\n" for line in lines).encode())
    state.chmod(PRIVATE_FOLDER)  # older releases left it open
    checkpoints.keep_only(state, len(lines))
    for place in (path, state):
        remove_leftovers(place)
    for place in path.glob(".adapter-*"):
        shutil.rmtree(place)
    if (path / sums.FOLDER).is_dir():  # the sum of a round whose line was not written any more
        remove_leftovers(path / sums.FOLDER)
        remove_file(path / sums.FOLDER / sums.name_of(len(lines) + 1))
    return Interrupted(folder, run.config, run.records, checkpoint, begun, choices)


def _locked(path: Path) -> int:
    """Hold the run for this process until it ends, or closes this file. Raises `RunFolderError`."""
    try:
        return lock(path / "state" / "lock")
    except BlockingIOError:
        raise RunFolderError(f"{path} is being written by another process: wait until that ends") from None
    except UnlockableError as error:
        raise RunFolderError(
            f"{path} cannot be locked: {error.strerror}; a run needs a file system with locks, such as a local disk's"
        ) from None


def _existing(path: Path) -> ConfigError:
    return ConfigError(f"`out` {path} exists already; choose a new folder, nothing was overwritten")


def _unwritable(path: Path, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(f"`out` {path} cannot be written: {reason}; choose another folder")
