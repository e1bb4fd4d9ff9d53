"""What an audit says: findings, and the figures that were derived beside those that were claimed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flora_secure.plain import document_schema
from flora_secure.records.report_table import html_table

SCHEMA = "flora-secure/audit/1"
VIOLATION, WARNING, OK = "violation", "warning", "ok"
_SHOWN = 3  # problems that a finding spells out


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check. `severity`: violation (a claim is wrong), warning (right, but a reader must know, or
    it could not be checked) or ok. `where`: file, line or round; empty for the whole run."""

    check: str
    severity: str
    title: str
    evidence: str
    where: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as claimed and as derived; `null` is infinity, or not claimed. They agree within `tolerance`."""

    name: str
    claimed: float | None
    derived: float | None
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class ClientBudget:
    """ε of one client in the server's view of the sums, by two accountants; `second` is `null` where the client's
    rounds are not among the costliest, which alone are counted twice, and `epsilon` where it is infinite."""

    client: int
    rounds: int
    epsilon: float | None
    second: float | None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A re-derivation. `accountants`: package → version. `left_out`: accountants that were not asked, and why."""

    run: str
    passed: bool
    accountants: dict[str, str]
    left_out: dict[str, str]
    findings: list[Finding]
    figures: list[Figure]
    clients: list[ClientBudget]

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain data for JSON, `schema` first; `json_schema` describes it."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """The document that `flora-secure audit --json` prints: UTF-8 text, NaN refused."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def rows(self) -> list[tuple[str, str]]:
        """The table that people see: (what, text), violations first, then warnings."""
        order = (VIOLATION, WARNING, OK)
        rows = [("result", self.verdict)]
        for finding in sorted(self.findings, key=lambda f: order.index(f.severity)):
            text = finding.title if finding.severity != VIOLATION else finding.title.upper()
            text += f". {finding.evidence}"
            if finding.severity != OK:
                text += "".join(f" [{part}]" for part in (finding.where, finding.remedy) if part)
            rows.append((f"{finding.check} {finding.severity}", text))
        for figure in self.figures:
            claimed, derived = ("∞ or none" if x is None else f"{x:.7g}" for x in (figure.claimed, figure.derived))
            rows.append((f"  {figure.name}", f"claimed {claimed}, derived {derived} (±{figure.tolerance:.3g})"))
        for name, why in self.left_out.items():
            rows.append((f"  {name}", f"left out: {why}"))
        return rows

    def _repr_html_(self) -> str:
        return html_table(f"Audit of {self.run}", self.rows())

    @property
    def verdict(self) -> str:
        """A line that says how many findings of each kind there are."""
        counts = {kind: sum(f.severity == kind for f in self.findings) for kind in (VIOLATION, WARNING, OK)}
        what = "PASSED" if self.passed else "FAILED"
        return f"{what}: {counts[VIOLATION]} violations, {counts[WARNING]} warnings, {counts[OK]} checks ok"


Problem = tuple[str, str]  # where, what


def judged(
    check: str, title: str, problems: Sequence[Problem], fine: str, remedy: str, severity: str = VIOLATION
) -> Finding:
    """A finding from the problems that a check met; ok, with `fine` as its evidence, if there are none."""
    if not problems:
        return Finding(check=check, severity=OK, title=title, evidence=fine, where="", remedy="")
    shown = "; ".join(f"{where}: {what}" if where else what for where, what in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return Finding(
        check=check, severity=severity, title=title, evidence=shown + more, where=problems[0][0], remedy=remedy
    )


def unchecked(check: str, title: str, why: str) -> Finding:
    """A finding for a check that could not be made: a warning that says why."""
    return Finding(
        check=check,
        severity=WARNING,
        title=title,
        evidence=f"not checked: {why}",
        where="",
        remedy="ask for what is missing",
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what `Audit.to_dict` returns, as docs/audit.schema.json has it."""
    return document_schema(Audit, SCHEMA)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
