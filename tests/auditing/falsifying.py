"""Runs to audit, and how one who keeps the books falsifies them: hashes and all."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from federations import DIGITS, changed
from federations import kept as written

from flora_secure.auditing.findings import VIOLATION
from flora_secure.auditing.folder import audit
from flora_secure.planning.config import RunConfig
from flora_secure.privacy.accounting import gaussian_epsilon

__all__ = ["written"]
SMALL = {**DIGITS, "aggregation.dropout": 0.1, "privacy.dropout_tolerance": 0.2}
Table = dict[str, Any]
Cheat = Callable[[list[Table], Table], None]  # lines, report; changed in place


def small(**changes: Any) -> RunConfig:
    return changed(SMALL, changes)


def chained(folder: Path, lines: list[Table], report: Table | None, config: str | None = None) -> None:
    """Write lines and report with hashes that fit, as one who falsifies them would."""
    if config is not None:
        (folder / "config.toml").write_text(config)
    first = previous = hashlib.sha256((folder / "config.toml").read_bytes()).hexdigest()
    text = ""
    for table in lines:
        line = json.dumps({**table, "previous": previous}, ensure_ascii=False)
        text, previous = text + line + "\n", hashlib.sha256(line.encode()).hexdigest()
    (folder / "rounds.jsonl").write_text(text)
    if report is not None:
        report["provenance"] |= {"config_hash": first, "rounds_hash": previous}
        (folder / "report.json").write_text(json.dumps(report))


def read(folder: Path) -> tuple[list[Table], Table]:
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / "report.json").read_text())


def falsified(source: Path, target: Path, cheat: Cheat) -> Path:
    shutil.copytree(source, target)
    lines, report = read(target)
    cheat(lines, report)
    chained(target, lines, report)
    return target


def found(folder: Path, severity: str = VIOLATION) -> dict[str, str]:
    return {f.check: f.evidence for f in audit(folder, opacus=False).findings if f.severity == severity}


def total(lines: list[Table], key: str = "noise_multiplier") -> float:
    return gaussian_epsilon(math.sqrt(sum(line[key] ** -2 for line in lines)), lines[0]["delta"])


def z_of(line: Table) -> float:
    honest = len(line["survivors"]) - line["colluders"]
    return line["sigma_local"] * math.sqrt(honest) / (line["scale"] * line["clip_norm"])


def half_sigma(lines, report) -> None:
    for line in lines:
        line["sigma_local"] /= 2
