"""The folder of one run: ``config.toml``, ``rounds.jsonl``, ``report.json``, ``adapter/``; until it ends, ``state/``.

Files are replaced atomically, and a line of ``rounds.jsonl`` is on disk before the next round starts, so that a crash
loses at most the round in flight; :func:`reopen` goes on after it. Each line carries the SHA-256 of the line before it
(of the config for the first), and the report that of the last line, so that an edited, reordered or truncated log is
found. docs/run-folder.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flora_secure import checkpoints
from flora_secure.checkpoints import Checkpoint, CheckpointError
from flora_secure.config import ConfigError, RunConfig, from_toml
from flora_secure.durable import append, remove_leftovers, replace_file, replace_folder
from flora_secure.errors import InputError
from flora_secure.lock import lock
from flora_secure.plain import PlainError, from_plain
from flora_secure.records import RoundRecord
from flora_secure.report import SCHEMA as REPORT_SCHEMA
from flora_secure.report import Report


def require_new(path: Path) -> None:
    """Raise :class:`ConfigError` if a run cannot be written to ``path``, before anything is computed for it."""
    if path.exists() or path.is_symlink():
        raise ConfigError(f"out {path} exists already; choose a new folder, nothing was overwritten")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"out {path} cannot be written below {nearest}; choose another folder with --out")


class RunFolder:
    """The folder that one run writes to: a new one, or one that :func:`reopen` found."""

    path: Path
    _state: Path
    _previous: str
    _lock: int | None

    def __init__(self, path: Path, config: RunConfig, start: Checkpoint | None = None) -> None:
        """Make ``path`` (and its parents), write the state before the first round and the resolved config.

        Without ``start`` the run cannot be resumed. Raises :class:`ConfigError` if ``path`` exists or cannot be
        written.
        """
        require_new(path)
        text = config.to_toml().encode()
        self._open(path, hashlib.sha256(text).hexdigest())
        with self._writing():
            path.mkdir(parents=True)
            if start is not None:
                self._state.mkdir()
                self._lock = _locked(path)
                checkpoints.write(self._state, start, self._previous)
            # last: a folder with a config has all that a run begins with
            replace_file(path / "config.toml", text)

    def _open(self, path: Path, last_hash: str, lock: int | None = None) -> None:
        self.path, self._previous, self._lock = path, last_hash, lock
        self._state = path / "state"

    @property
    def last_hash(self) -> str:
        """SHA-256 of the last line of ``rounds.jsonl``, of the config before there is one; for the report."""
        return self._previous

    def announce(self, record: RoundRecord) -> None:
        """Write down what the next round may release at the worst (a record that is ``lost``), before it does."""
        with self._writing():
            checkpoints.announce(self._state, record, self._previous)

    def append_round(self, record: RoundRecord, after: Checkpoint | None = None) -> None:
        """Add one round as a line of JSON; it is on disk when this returns, and so is the state ``after`` it."""
        table = {**record.to_dict(), "previous": self._previous}
        line = json.dumps(table, ensure_ascii=False, allow_nan=False).encode()
        line_hash = hashlib.sha256(line).hexdigest()
        with self._writing():
            if after is not None:
                checkpoints.write(self._state, after, line_hash)
            append(self.path / "rounds.jsonl", line + b"\n")
            self._previous = line_hash
            if after is not None:
                checkpoints.keep_only(self._state, after.round)

    def write_report(self, report: Report) -> None:
        """``report.json``, replaced as a whole. The run is over, its ``state/`` goes."""
        with self._writing():
            replace_file(self.path / "report.json", (report.to_json() + "\n").encode())
            if self._lock is not None:  # Windows removes no file that is open
                os.close(self._lock)
                self._lock = None
            if self._state.exists():
                shutil.rmtree(self._state)

    def write_adapter(self, save: Callable[[Path], None]) -> None:
        """``adapter/``, written by ``save(folder)`` beside its place and then moved there."""
        with self._writing(), tempfile.TemporaryDirectory(dir=self.path, prefix=".adapter-") as scratch:
            fresh = Path(scratch) / "adapter"
            fresh.mkdir()
            save(fresh)
            replace_folder(fresh, self.path / "adapter")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path, error) from None


class RunFolderError(InputError):
    """A run folder that cannot be read, or whose parts do not belong together."""


class Run(NamedTuple):
    """What a run folder says. ``report`` is ``None`` when the run was interrupted: then a log that was cut after one of
    its lines looks complete."""

    config: RunConfig
    records: list[RoundRecord]
    report: Report | None


class Break(NamedTuple):
    """A place where the chain of hashes does not hold."""

    where: str
    what: str


def read_run(path: Path) -> Run:
    """Read a run folder and verify its chain of hashes.

    Raises :class:`RunFolderError` for a missing or unreadable file and a broken chain, naming the line that breaks it.
    Whether the figures are right is not looked at.
    """
    run, breaks = read_unverified(path)
    if breaks:
        raise RunFolderError(f"{breaks[0].where}: {breaks[0].what}")
    return run


def read_unverified(path: Path) -> tuple[Run, list[Break]]:
    """What a run folder says, and every break of its chain, for an auditor who reads on all the same.

    Raises :class:`RunFolderError` for a missing or unreadable file.
    """
    text = _read(path, "config.toml")
    try:
        config = from_toml(text)
    except ConfigError as error:
        raise RunFolderError(f"{path / 'config.toml'}: {error}") from None
    log = path / "rounds.jsonl"
    config_hash = previous = hashlib.sha256(text.encode()).hexdigest()
    records: list[RoundRecord] = []
    breaks = []
    lines, rest = _lines(path)
    for number, line in enumerate(lines, 1):
        where = f"{log}, line {number}"
        table = _parse(line, where)
        before = table.pop("previous", None)
        if before != previous:
            follows = "config.toml" if number == 1 else f"line {number - 1}"
            breaks.append(
                Break(
                    where,
                    f"does not follow {follows}, whose SHA-256 is {previous}, not {before!r:.70}: "
                    "a line was edited, moved or taken out",
                )
            )
        try:
            records.append(RoundRecord.from_dict(table))
        except PlainError as error:
            raise RunFolderError(f"{where}: {error}") from None
        previous = hashlib.sha256(line.encode()).hexdigest()
    if rest:
        breaks.append(Break(f"{log}, line {len(lines) + 1}", "ends without a newline, it was cut"))
    if not (path / "report.json").exists():
        return Run(config, records, None), breaks
    report = _report(path)
    if report.provenance.config_hash != config_hash:
        breaks.append(Break(str(path / "report.json"), "belongs to another config.toml, or that was edited"))
    if report.provenance.rounds_hash != previous:
        breaks.append(
            Break(
                f"{log}, line {len(records)}",
                "is not the last line that report.json knows: the last line was edited, or lines were cut off or added",
            )
        )
    return Run(config, records, report), breaks


def in_flight(path: Path) -> RoundRecord | None:
    """The round that was announced after the last whole line and has none itself; nothing is changed.

    Raises :class:`RunFolderError` for one that cannot be read, or cannot follow that line.
    """
    lines, _ = _lines(path)
    last = lines[-1] if lines else _read(path, "config.toml")
    try:
        return checkpoints.announced(path / "state", len(lines), hashlib.sha256(last.encode()).hexdigest())
    except CheckpointError as error:
        raise RunFolderError(str(error)) from None


class Interrupted(NamedTuple):
    """A run that has not ended. ``begun``: the announced record of the round that was in flight, if one was."""

    folder: RunFolder
    config: RunConfig
    records: list[RoundRecord]
    checkpoint: Checkpoint
    begun: RoundRecord | None


def reopen(path: Path) -> Interrupted:
    """Open the folder of a run without a report, to go on after its last whole line. A line that was cut short goes.

    Raises :class:`RunFolderError` or :class:`~flora_secure.checkpoints.CheckpointError` for what is missing, damaged or
    does not belong together, and for a run that another process is writing: nothing has changed then.
    """
    text, state = _read(path, "config.toml"), path / "state"
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
    """:func:`reopen` of a folder that this process holds by ``handle``; ``text`` is that of ``config.toml``."""
    state = path / "state"
    run, breaks = read_unverified(path)
    if run.report is not None:
        raise RunFolderError(f"the run in {path} is complete, nothing is left to do")
    lines, rest = _lines(path)
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
    folder = RunFolder.__new__(RunFolder)
    folder._open(path, last_hash, handle)
    if rest:
        replace_file(path / "rounds.jsonl", "".join(line + "\n" for line in lines).encode())
    checkpoints.keep_only(state, len(lines))
    for place in (path, state):
        remove_leftovers(place)
    for place in path.glob(".adapter-*"):
        shutil.rmtree(place)
    return Interrupted(folder, run.config, run.records, checkpoint, begun)


def _locked(path: Path) -> int:
    """Hold the run for this process until it ends, or closes this file. Raises :class:`RunFolderError`."""
    try:
        return lock(path / "state" / "lock")
    except BlockingIOError:
        raise RunFolderError(f"{path} is being written by another process: wait until that ends") from None


def _report(path: Path) -> Report:
    where = str(path / "report.json")
    table = _parse(_read(path, "report.json"), where)
    if (schema := table.pop("schema", None)) != REPORT_SCHEMA:
        raise RunFolderError(f"{where}: schema must be {REPORT_SCHEMA!r}, got {schema!r:.60}")
    try:
        return from_plain(Report, table)
    except PlainError as error:
        raise RunFolderError(f"{where}: {error}") from None


def _lines(path: Path) -> tuple[list[str], str]:
    """The lines, and what stands after the last newline."""
    if not (path / "rounds.jsonl").exists():
        return [], ""  # interrupted in the first round
    *lines, rest = _read(path, "rounds.jsonl").split("\n")
    return lines, rest


def _parse(text: str, where: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Readers differ in which of two values they take, so that one file would say two things."""
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ValueError(f"key {key!r:.60} occurs {count} times in one object")
        return dict(pairs)

    try:
        table = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except ValueError as error:
        raise RunFolderError(f"{where}: not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(table, dict):
        raise RunFolderError(f"{where}: not a JSON object")
    return table


def _read(path: Path, name: str) -> str:
    try:
        return (path / name).read_bytes().decode()
    except OSError as error:
        raise RunFolderError(f"{path / name} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RunFolderError(f"{path / name} cannot be read: it is not UTF-8 text") from None


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"out {path} cannot be written: {error.strerror or error}; choose another folder with --out")
