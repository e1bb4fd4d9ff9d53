"""What an audit says: findings, and the figures that were derived beside those that were claimed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flora_secure.plain import document_schema
from flora_secure.records.report_table import html_table

SCHEMA = "flora-secure/audit/2"
VIOLATION, WARNING, OK = "violation", "warning", "ok"
OF_A_ROUND = " noise multiplier"  # how the name of a figure ends that each round has
_SHOWN = 3  # problems that a finding spells out


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check. `severity`: violation (a claim is wrong), warning (right, but a reader must know, or
    it could not be checked) or ok. `title`: what was found to be so. `where`: file, line or round; empty for the whole
    run."""

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

    @property
    def agrees(self) -> bool:
        """Whether claim and derivation are the same figure; of infinities both have to be."""
        if self.claimed is None or self.derived is None:
            return self.claimed == self.derived
        return abs(self.claimed - self.derived) <= self.tolerance * max(1.0, abs(self.derived))

    @property
    def line(self) -> str:
        """Both figures in words."""
        claimed, derived = ("∞ or none" if x is None else f"{x:.7g}" for x in (self.claimed, self.derived))
        return f"claimed {claimed}, derived {derived} (±{self.tolerance:.3g})"


@dataclass(frozen=True, kw_only=True)
class ClientBudget:
    """ε of one client in the server's view of the sums, by two accountants; `second` is `null` where the client's
    rounds are not among the costliest, which alone are counted twice, and `epsilon` where it is infinite."""

    client: int
    rounds: int
    epsilon: float | None
    second: float | None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A figure that an audit measured, with what it rests on.

    `low`, `high`: its interval, `null` where there is none. `ceiling`: the largest that the method could have shown of
    this run, `null` where nothing bounds it. `false_alarm`: how often a run that keeps its promises raises this alarm;
    `null` for an estimate, which raises none. `alarm`: whether a finding stands for it.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    ceiling: float | None
    false_alarm: float | None
    assumption: str
    alarm: bool

    @property
    def of_epsilon(self) -> bool:
        """Whether it is on the axis of ε, so that it can be set beside what is claimed: its name begins with it."""
        return self.name.startswith("ε")

    @property
    def line(self) -> str:
        """The figure in words, what it rests on last."""
        parts = ["none" if self.value is None else f"{self.value:.4g}"]
        if self.low is not None or self.high is not None:
            low, high = ("∞" if x is None else f"{x:.4g}" for x in (self.low, self.high))
            parts.append(f"between {low} and {high}")
        if self.ceiling is not None:
            parts.append(f"at most {self.ceiling:.4g} could show")
        wrong = "an estimate, never an alarm" if self.false_alarm is None else f"false alarms {self.false_alarm:.2g}"
        return f"{', '.join(parts)} ({wrong}; {self.assumption})"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One audit of several. `left_out`: why it was not made, `null` where it was; a finding may still say what that
    means. `checked`: what it has looked at, `assumed`: what it takes for granted, `uncovered`: what it cannot see; a
    full sentence each."""

    name: str
    left_out: str | None
    findings: list[Finding]
    measurements: list[Measurement]
    checked: list[str]
    assumed: list[str]
    uncovered: list[str]

    @classmethod
    def skipped(cls, name: str, why: str, uncovered: Sequence[str] = (), findings: Sequence[Finding] = ()) -> Block:
        """An audit that was not made. `findings`: what is to be known of that."""
        return cls(
            name=name,
            left_out=why,
            findings=list(findings),
            measurements=[],
            checked=[],
            assumed=[],
            uncovered=list(uncovered),
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """What one observer's view costs. `epsilon`: `null` where it is not finite or not known. `status`: bounded (ε
    holds), conditional (it holds if what `said` says is so), infinite (nothing bounds it) or unknown (the run does not
    say enough). `said`: why, in a sentence."""

    epsilon: float | None
    status: str
    said: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """The guarantee of a system on one page, as it was derived and not as it was claimed: what NIST SP 800-226 asks for
    first, and what an entry of a deployment registry (2509.13509) holds. `null` is not known.

    `server`: who sees what the server sees; `outsider`: who sees released models only; `upload`: who sees the single
    uploads of one unit. `trust`: central (the server adds the noise), distributed (shares of noise in a secure sum),
    local (each upload is protected by itself) or unknown. `trusted`: whom the figures rely on and for what;
    `uncovered`: what they say nothing about; full sentences. `parameters`: name → figure, such as the noise multiplier.
    `chosen`: how the hyper-parameters were chosen. `date`: as the run says. `exposed`: what leaves the units without
    noise, and no ε covers.
    """

    system: str
    date: str | None
    unit: str | None
    adjacency: str | None
    delta: float | None
    server: View
    outsider: View
    upload: View
    trust: str
    trusted: list[str]
    uncovered: list[str]
    mechanism: str | None
    parameters: dict[str, float]
    sampling: str | None
    accountant: str | None
    composition: str | None
    chosen: str | None
    implementation: str | None
    exposed: list[str] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All audits of a run. `accountants`: package → version. `left_out`: accountants that were not asked, and why.
    `passed`: no finding of any block is a violation. `label`: the guarantee on one page, where it was derived."""

    run: str
    passed: bool
    accountants: dict[str, str]
    left_out: dict[str, str]
    blocks: list[Block]
    figures: list[Figure]
    clients: list[ClientBudget]
    label: Label | None = None

    @property
    def findings(self) -> list[Finding]:
        """Those of all blocks, in their order."""
        return [finding for block in self.blocks for finding in block.findings]

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain data for JSON, `schema` first; `json_schema` describes it."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """The document that `flora-secure audit --json` prints: UTF-8 text, NaN refused."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def rows(self, *, quiet: bool = False) -> list[tuple[str, str]]:
        """The table that people see: (what, text), ε, then violations, then warnings; the verdict above and below.

        Checks that found the same share a row. `quiet`: without ε and what is as it should be.
        """
        order, verdict = (VIOLATION, WARNING, OK), ("result", self.verdict)
        rows, same = [verdict], dict[tuple[str, str], list[str]]()
        if self.label is not None and not quiet:
            rows.append(("ε", self._derived(self.label)))
        for finding in sorted(self.findings, key=lambda f: order.index(f.severity)):
            text = f"{finding.title}. {finding.evidence}"
            if finding.severity != OK:
                text += f" → {finding.remedy}" if finding.remedy else ""
            same.setdefault((finding.severity, text), []).append(finding.check)
        for (severity, text), checks in same.items():
            several = f" to {checks[-1]} ({len(checks)})" if len(checks) > 1 else ""
            if not (quiet and severity == OK):
                rows.append((f"{checks[0]}{several} {severity}", text))
        if not quiet:
            rows += _figures(self.figures)
            rows += [(f"  {one.name}", one.line) for block in self.blocks for one in block.measurements]
            rows += [(f"  {block.name}", f"not made: {block.left_out}") for block in self.blocks if block.left_out]
            rows += [(f"  {name}", f"left out: {why}") for name, why in self.left_out.items()]
        return [*rows, verdict] if len(rows) > 1 else rows

    def _derived(self, label: Label) -> str:
        """The three ε in a line, and by which audits they are refuted."""
        refuted = [block.name for block in self.blocks if any(one.alarm for one in block.measurements)]
        figures = (
            f"{view.status if view.epsilon is None else f'{view.epsilon:.4g}'} {whose}"
            for view, whose in (
                (label.server, "against the server"),
                (label.outsider, "against outsiders"),
                (label.upload, "of one upload alone"),
            )
        )
        delta = "unknown" if label.delta is None else f"{label.delta:.4g}"
        by = f"refuted by {', '.join(refuted)}; by the log " if refuted else ""
        said = {label.server.said, label.outsider.said, label.upload.said}
        one = f". {said.pop()}" if len(said) == 1 else ""  # of logs whose sampling is not known, the condition
        return f"{by}{', '.join(figures)}; δ = {delta}; protected: {label.unit or 'unknown'}{one}"

    def _repr_html_(self) -> str:
        return html_table(f"Audit of {self.run}", self.rows())

    @property
    def verdict(self) -> str:
        """A line that says how many findings of each kind there are."""
        counts = {kind: sum(f.severity == kind for f in self.findings) for kind in (VIOLATION, WARNING, OK)}
        what = "PASSED" if self.passed else "FAILED"
        return f"{what}: {counts[VIOLATION]} violations, {counts[WARNING]} warnings, {counts[OK]} checks ok"


Problem = tuple[str, str]  # where, what
Title = tuple[str, str]  # what is so where a check meets no problem, and what is so where it does


def judged(
    check: str, title: Title, problems: Sequence[Problem], fine: str, remedy: str, severity: str = VIOLATION
) -> Finding:
    """A finding from the problems that a check met; ok, with `fine` as its evidence, if there are none."""
    right, wrong = title
    if not problems:
        return Finding(check=check, severity=OK, title=right, evidence=fine, where="", remedy="")
    shown = "; ".join(f"{where}: {what}" if where else what for where, what in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return Finding(
        check=check, severity=severity, title=wrong, evidence=shown + more, where=problems[0][0], remedy=remedy
    )


def unchecked(check: str, title: Title, why: str, remedy: str = "ask for what is missing") -> Finding:
    """A finding for a check that could not be made: a warning that says why."""
    return Finding(
        check=check,
        severity=WARNING,
        title=f"Not checked: {title[0]}",
        evidence=why,
        where="",
        remedy=remedy,
    )


def _figures(figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """A row for each figure; those of single rounds that agree share one, and of those that do not some are shown."""
    rounds = [figure for figure in figures if figure.name.endswith(OF_A_ROUND)]
    rows = [(f"  {figure.name}", figure.line) for figure in figures if figure not in rounds]
    apart = [figure for figure in rounds if not figure.agrees]
    rows += [(f"  {figure.name}", figure.line) for figure in apart[:_SHOWN]]
    if len(apart) > _SHOWN:
        rows.append((f"  and {len(apart) - _SHOWN:,} more rounds", "whose noise multiplier is not the one derived"))
    if fine := [figure.derived for figure in rounds if figure.agrees and figure.derived is not None]:
        low, high = f"{min(fine):.7g}", f"{max(fine):.7g}"
        span = low if low == high else f"{low} to {high}"
        rows.append((f"  noise multiplier of {len(fine):,} rounds", f"as derived: {span}"))
    return rows


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what `Audit.to_dict` returns, as docs/audit.schema.json has it."""
    return document_schema(Audit, SCHEMA)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
