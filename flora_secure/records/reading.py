"""Reading a run's folder back, strictly: what an auditor and a run that goes on see of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from flora_secure.boundary.foreign import json_of, read_bytes
from flora_secure.errors import CheckpointError, ConfigError, ForeignError, PlainError, RunFolderError
from flora_secure.plain import from_plain
from flora_secure.planning.config import RunConfig, from_toml
from flora_secure.records import checkpoints
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import SCHEMA as REPORT_SCHEMA
from flora_secure.records.report import Report

_MOST_CONFIG, _MOST_REPORT, _MOST_LOG = 1 << 20, 1 << 26, 1 << 28  # bytes; ours stay far below


class Run(NamedTuple):
    """What a run folder says. `report` is `None` when the run was interrupted: then a log that was cut after one of
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

    Raises `RunFolderError` for a missing or unreadable file and a broken chain, naming the line that breaks it.
    Whether the figures are right is not looked at.
    """
    run, breaks = read_unverified(path)
    if breaks:
        raise RunFolderError(f"{breaks[0].where}: {breaks[0].what}")
    return run


def read_unverified(path: Path) -> tuple[Run, list[Break]]:
    """What a run folder says, and every break of its chain, for one who reads on all the same.

    Raises `RunFolderError` for a missing or unreadable file.
    """
    found = read_as_far(path)
    if found.unread:
        raise RunFolderError(found.unread[0])
    assert found.config is not None
    return Run(found.config, found.records, found.report), found.breaks


class Legible(NamedTuple):
    """What of a run folder could be read, for an auditor. `unread`: a line for each file, or line of the log, that
    could not, which names it; the lines after that one are not looked at, and `whole` says whether all were. `records`
    are those before it. `config` and `report` are `None` where they could not be read, `report` too where it is not
    there."""

    config: RunConfig | None
    records: list[RoundRecord]
    report: Report | None
    breaks: list[Break]
    unread: list[str]
    whole: bool


def read_as_far(path: Path) -> Legible:
    """What of the run folder `path` can be read, and every break of its chain. Raises nothing for what cannot."""
    unread, breaks, records = list[str](), list[Break](), list[RoundRecord]()
    config = report = config_hash = None
    try:
        text = read_config(path)
        config_hash = hashlib.sha256(text.encode()).hexdigest()
        config = from_toml(text)
    except ConfigError as error:
        unread.append(f"{path / 'config.toml'}: {error}")
    except RunFolderError as error:
        unread.append(str(error))
    log, previous, whole = path / "rounds.jsonl", config_hash, True
    try:
        lines, rest = read_lines(path)
        for number, line in enumerate(lines, 1):
            where = f"{log}, line {number}"
            table = parse_object(line, where)
            before = table.pop("previous", None)
            if before != previous and previous is not None:
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
    except RunFolderError as error:
        unread.append(str(error))
        whole = False
    try:
        report = read_report(path) if os.path.lexists(path / "report.json") else None
    except RunFolderError as error:
        unread.append(str(error))
    if report is not None:
        breaks += _ends(path, report, config_hash, previous if whole else None, len(records))
    return Legible(config, records, report, breaks, unread, whole)


def _ends(path: Path, report: Report, config_hash: str | None, last: str | None, lines: int) -> list[Break]:
    """Where the report's hashes are not those of the other files; a hash that is not known is not compared."""
    breaks = []
    if config_hash is not None and report.provenance.config_hash != config_hash:
        breaks.append(Break(str(path / "report.json"), "belongs to another config.toml, or that was edited"))
    if last is not None and report.provenance.rounds_hash != last:
        breaks.append(
            Break(
                f"{path / 'rounds.jsonl'}, line {lines}",
                "is not the last line that report.json knows: the last line was edited, or lines were cut off or added",
            )
        )
    return breaks


def in_flight(path: Path) -> RoundRecord | None:
    """The round that was announced after the last whole line and has none itself; nothing is changed.

    Raises `RunFolderError` for one that cannot be read, or cannot follow that line.
    """
    lines, _ = read_lines(path)
    last = lines[-1] if lines else read_config(path)
    try:
        return checkpoints.announced(path / "state", len(lines), hashlib.sha256(last.encode()).hexdigest())
    except CheckpointError as error:
        raise RunFolderError(str(error)) from None


def read_report(path: Path) -> Report:
    """`report.json` of the run folder `path`; whether it fits the other files is not looked at.

    Raises `RunFolderError` for one that is missing, unreadable or of another schema.
    """
    where = str(path / "report.json")
    table = parse_object(_read(path / "report.json", _MOST_REPORT), where)
    if (schema := table.pop("schema", None)) != REPORT_SCHEMA:
        raise RunFolderError(f"{where}: schema must be {REPORT_SCHEMA!r}, got {schema!r:.60}")
    try:
        return from_plain(Report, table)
    except PlainError as error:
        raise RunFolderError(f"{where}: {error}") from None


def read_config(path: Path) -> str:
    """The text of `config.toml` of the run folder `path`, to the byte. Raises `RunFolderError`."""
    return _read(path / "config.toml", _MOST_CONFIG)


def read_lines(path: Path) -> tuple[list[str], str]:
    """The lines of `rounds.jsonl` in `path`, and what stands after the last newline. Raises `RunFolderError`."""
    if not os.path.lexists(path / "rounds.jsonl"):
        return [], ""  # interrupted in the first round
    *lines, rest = _read(path / "rounds.jsonl", _MOST_LOG).split("\n")
    return lines, rest


def parse_object(text: str, where: str) -> dict[str, Any]:
    """The object that a JSON text is. Raises `RunFolderError`, which begins with `where`."""
    try:
        table = json_of(text)
    except ForeignError as error:
        raise RunFolderError(f"{where}: {error}") from None
    if not isinstance(table, dict):
        raise RunFolderError(f"{where}: not a JSON object")
    return table


def _read(path: Path, most: int) -> str:
    """The text of a file to the byte, since its hash is compared: no mark and no line end is taken out."""
    try:
        return read_bytes(path, most).decode()
    except ForeignError as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise RunFolderError(f"{path} cannot be read: it is not UTF-8 text") from None
