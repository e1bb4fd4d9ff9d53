"""A-00: what of a folder could be read, and what stands in for a configuration that could not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from flora_secure.auditing.findings import Finding, judged
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import ConfigError
from flora_secure.planning.config import RunConfig, override
from flora_secure.records.reading import Legible
from flora_secure.records.record import RoundRecord

# checks that ask the configuration for nothing that the log's own constants do not say
FROM_THE_LOG = frozenset(
    {f"A-{number:02}" for number in (1, 2, 4, 5, 7, 9, 10, 11, 14, 15, 20, 21, 22, 24, 25, 26, 27, 34)}
)
# checks that ask the log for nothing
WITHOUT_A_LOG = frozenset({"A-01", "A-35"})


def case_of(path: Path, found: Legible) -> Case:
    """What the checks see of a folder of which so much could be read."""
    report, why = found.report, "report.json is missing"
    if not found.whole and found.records:
        report, why = None, "report.json is of a whole log, and this one could not be read to its end"
    elif report is None and any("report.json" in line for line in found.unread):
        why = "report.json could not be read"
    config = found.config or assumed(found.records)
    unread, no_config, cut = tuple(found.unread), found.config is None, not found.whole
    return Case(path, config, found.records, report, found.breaks, why, unread, no_config, cut)


def assumed(records: Sequence[RoundRecord]) -> RunConfig:
    """A configuration of which nothing is known but what every line of the log repeats."""
    if not records:
        return RunConfig()
    first = records[0]
    everybody = all(len(r.participants) == r.clients for r in records)
    changes = {
        "data.clients": first.clients,
        "training.rounds": len(records),
        "privacy.epsilon": math.inf if first.target_epsilon is None else first.target_epsilon,
        "privacy.delta": None if first.target_epsilon is None else first.delta,
        "privacy.unit": first.unit,
        "privacy.clip_norm": first.clip_norm,
        "privacy.example_rate": first.sampling_rate if first.unit == "example" else None,
        "participation.rate": None if everybody else 0.5,
        "participation.sampling": None if everybody else "poisson",
        "aggregation.secagg": "off" if all(r.neighbours is None for r in records) else None,
    }
    try:
        return override(RunConfig(), changes)
    except (ConfigError, OverflowError):
        return RunConfig()  # the log's own numbers are impossible, which A-07 names


def files_read(case: Case) -> Finding:
    """A-00: every file, and every line of the log, could be read."""
    problems = [("", line) for line in case.unread]
    return judged(
        "A-00",
        ("Every file could be read", "A file could not be read"),
        problems,
        "config.toml, rounds.jsonl" + ("" if case.report is None else ", report.json"),
        "ask for the folder as the run wrote it, and audit with a release that knows its schemas",
    )


def why_not(case: Case, check: str) -> str:
    """Why a check cannot be made of what was read; empty where it can."""
    if not case.records and check not in WITHOUT_A_LOG:
        return "no line of rounds.jsonl could be read"
    if case.config_unread and check not in FROM_THE_LOG:
        return "config.toml could not be read"
    return ""
