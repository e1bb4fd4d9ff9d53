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
    """What a run folder says, and every break of its chain, for an auditor who reads on all the same.

    Raises `RunFolderError` for a missing or unreadable file.
    """
    text = read_config(path)
    try:
        config = from_toml(text)
    except ConfigError as error:
        raise RunFolderError(f"{path / 'config.toml'}: {error}") from None
    log = path / "rounds.jsonl"
    config_hash = previous = hashlib.sha256(text.encode()).hexdigest()
    records: list[RoundRecord] = []
    breaks = []
    lines, rest = read_lines(path)
    for number, line in enumerate(lines, 1):
        where = f"{log}, line {number}"
        table = parse_object(line, where)
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
    if not os.path.lexists(path / "report.json"):
        return Run(config, records, None), breaks
    report = read_report(path)
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
