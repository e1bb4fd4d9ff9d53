"""The audit of a foreign log as the others print it: one block, three figures, a label."""

from __future__ import annotations

import math
from pathlib import Path

from flora_secure.auditing.findings import VIOLATION, Audit, Block, Figure
from flora_secure.auditing.foreign.accountants import agreement
from flora_secure.auditing.foreign.case import VIEWS, WORDS, ForeignCase
from flora_secure.auditing.foreign.claim_checks import claim_findings
from flora_secure.auditing.foreign.label import label_of, uncovered
from flora_secure.auditing.foreign.log import ROUND, SERVER
from flora_secure.auditing.foreign.mechanism_checks import mechanism_findings
from flora_secure.auditing.foreign.opening import opened
from flora_secure.plain import finite_or_none


def audit_foreign(path: Path, *, opacus: bool = True) -> Audit:
    """Audit the log of a system that is not ours, or a file that an importer knows.

    Args:
        path: a JSON file, as docs/foreign-log.md has it.
        opacus: ask opacus' accountant too, where it is installed and examples are sampled.

    Raises `flora_secure.errors.PlainError` for a file that cannot be read, or that nobody here knows.
    """
    return audit_of(opened(path), opacus=opacus)


def audit_of(case: ForeignCase, *, opacus: bool = True) -> Audit:
    """The audit of a log that was read; `opacus` as `audit_foreign` has it."""
    counted = agreement(case, opacus=opacus)
    findings = [*mechanism_findings(case), counted.finding, *claim_findings(case)]
    block = Block(
        name="foreign log",
        left_out=None,
        findings=findings,
        measurements=[],
        checked=[
            "What the log says of noise, clip norms, sampling and δ, and each ε that it claims, against each other."
        ],
        assumed=["The log says what happened.", *_assumed(case)],
        uncovered=uncovered(case),
    )
    return Audit(
        run=case.source,
        passed=all(finding.severity != VIOLATION for finding in findings),
        accountants=counted.versions,
        left_out=counted.left_out,
        blocks=[block],
        figures=[_figure(case, view) for view in VIEWS],
        clients=[],
        label=label_of(case),
    )


def _assumed(case: ForeignCase) -> list[str]:
    log = case.log
    found = []
    if log.adjacency is None:
        found.append("Adjacency is zero-out, since none is named.")
    if not any(claim.delta for claim in log.claims):
        found.append(f"δ = {case.delta:g}, since none is claimed.")
    if log.noise_by != SERVER and log.most_rounds is None and any(run.participants is None for run in log.rounds):
        found.append("One unit was in every round, unless it is drawn in secret.")
    return found


def _figure(case: ForeignCase, view: str) -> Figure:
    claimed = [c.epsilon for c in case.log.claims if c.against == view and c.scope != ROUND and c.epsilon is not None]
    value = case.views[view]
    return Figure(
        name=f"ε for {WORDS[view]}",
        claimed=min(claimed) if claimed else None,
        derived=None if math.isnan(value) else finite_or_none(value),
        tolerance=0.02,
    )
