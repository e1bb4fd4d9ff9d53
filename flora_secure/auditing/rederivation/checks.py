"""The first audit: every claim of a run derived again from its log alone. No data, no weights, no secrets, no torch."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

from flora_secure.auditing import legible
from flora_secure.auditing.findings import (
    OF_A_ROUND,
    OK,
    Block,
    ClientBudget,
    Figure,
    Finding,
    judged,
    unchecked,
)
from flora_secure.auditing.rederivation import (
    accuracy_checks,
    budget_checks,
    byte_checks,
    course_checks,
    log_checks,
    noise_checks,
    plan_checks,
    report_checks,
    statement_checks,
    view_checks,
)
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import first_line
from flora_secure.plain import finite_or_none
from flora_secure.privacy.cross_check import PRV, accountant_versions

NAME = "re-derivation"
Check = Callable[[Case], Finding]
_OF_THE_LOG: dict[str, Check] = {
    "A-01": log_checks.chain,
    "A-02": log_checks.every_round,
    "A-03": log_checks.configured,
    "A-04": log_checks.sets,
    "A-05": log_checks.uploads,
}
_DERIVED: dict[str, Check | None] = {
    "A-06": log_checks.charged,
    "A-08": course_checks.aborted,
    "A-09": course_checks.in_flight,
    "A-10": noise_checks.multipliers,
    "A-11": noise_checks.shares,
    "A-12": noise_checks.honest,
    "A-13": noise_checks.clip_norm,
    "A-14": noise_checks.slack,
    "A-15": noise_checks.ring,
    "A-16": noise_checks.secret,
    "A-17": plan_checks.planned,
    "A-18": course_checks.drawn,
    "A-19": byte_checks.messages,
    "A-20": budget_checks.headline,
    "A-21": budget_checks.so_far,
    "A-22": budget_checks.single_round,
    "A-23": view_checks.amplification,
    "A-24": budget_checks.within_budget,
    "A-25": budget_checks.delta_small,
    "A-26": view_checks.other_views,
    "A-27": None,  # view_checks.accountants, which is told whether to ask opacus
    "A-28": budget_checks.unmasked,
    "A-29": plan_checks.examples,
    "A-30": statement_checks.words,
    "A-31": accuracy_checks.accuracy,
    "A-32": report_checks.communication,
    "A-33": report_checks.aggregation,
    "A-34": report_checks.rates,
    "A-35": report_checks.adapter,
    "A-36": plan_checks.stepped,
    "A-37": accuracy_checks.possible_together,
}


@dataclass(frozen=True, kw_only=True)
class Rederived:
    """What came of it. `accountants`, `left_out`, `figures`, `clients`: as in `Audit`."""

    block: Block
    accountants: dict[str, str]
    left_out: dict[str, str]
    figures: list[Figure]
    clients: list[ClientBudget]


def rederive(case: Case, *, opacus: bool = True) -> Rederived:
    """Derive again what the run claims.

    `opacus`: ask opacus' PRV accountant too, where it is installed; it imports torch (seconds).
    """
    left_out = {}
    if not opacus:
        left_out[PRV] = "not asked for"
    elif importlib.util.find_spec("opacus") is None:
        left_out[PRV] = "opacus is not installed"
    found: dict[str, float] = {}

    def counted(case: Case) -> Finding:
        finding, epsilons = view_checks.accountants(case, opacus=not left_out)
        found.update(epsilons)
        return finding

    findings = [legible.files_read(case), *(_made(name, check, case) for name, check in _OF_THE_LOG.items())]
    possible = log_checks.possible(case)
    derivable = possible.severity == OK
    for name, check in _DERIVED.items():
        if derivable:
            findings.append(_made(name, check or counted, case))
        else:
            findings.append(unchecked(name, ("what follows from the numbers", ""), "they are impossible, see A-07"))
    findings.insert(len(_OF_THE_LOG) + 2, possible)
    derivable &= bool(case.records)
    block = Block(
        name=NAME,
        left_out=None,
        findings=findings,
        measurements=[],
        checked=[
            "Every claim of the report and the log that follows from the log's numbers (docs/audits/rederivation.md)."
        ],
        assumed=["The log tells what happened: who took part, the noise that each added, the norm clipped to."],
        uncovered=["The noise itself, and whether updates were clipped."],
    )
    return Rederived(
        block=block,
        accountants=accountant_versions(found or ["closed form"]),
        left_out=left_out,
        figures=_figures(case) if derivable else [],
        clients=_clients(case) if derivable else [],
    )


def _made(name: str, check: Check, case: Case) -> Finding:
    """What a check finds, where it can be made. Figures that end in no number are nobody's, whatever they are."""
    if why := legible.why_not(case, name):
        return unchecked(name, ("what needs all files", ""), why)
    try:
        return check(case)
    except (ArithmeticError, ValueError) as error:
        what = f"nothing can be derived from figures of this size: {first_line(error)}"
        return judged(
            name,
            ("What is derived is a number", "Nothing can be derived"),
            [("", what)],
            "",
            "publish the log that the run wrote",
        )


def _figures(case: Case) -> list[Figure]:
    """What is claimed beside what was derived; report.json's claims first, then the log's, round by round."""
    near, within, figures = noise_checks.NEAR, case.tolerance, []

    def add(name: str, claimed: float | None, derived: float | None, tolerance: float) -> None:
        figures.append(
            Figure(
                name=name,
                claimed=claimed,
                derived=None if derived is None else finite_or_none(derived),
                tolerance=tolerance,
            )
        )

    if case.report is not None:
        told = case.report.privacy
        add("epsilon", told.epsilon, case.headline, within)
        add("epsilon_local", told.epsilon_local, case.local, within)
        add("epsilon_outsider", told.epsilon_outsider, view_checks.outsider(case), within)
        add("mu", told.mu, view_checks.derived_mu(case), near)
        add("delta", told.delta, case.delta, 0.0)
        add("honest_minimum", told.honest_minimum, case.records[0].honest_minimum, 0.0)
        add("rounds", told.rounds, len(case.records), 0.0)
        planned = [r.z_local * math.sqrt(max(r.record.honest_minimum, 0)) for r in case.released]
        add("noise_multiplier", told.noise_multiplier, min(planned, default=None), near)
        add("aliasing_slack", told.aliasing_slack, math.fsum(r.slack for r in case.worst), near)
    last = case.records[-1]
    add(f"round {last.round} epsilon of the worst client", last.epsilon, case.server, within)
    for r in case.released:
        add(f"round {r.record.round}{OF_A_ROUND}", r.record.noise_multiplier, r.z, near)
    return figures


def _clients(case: Case) -> list[ClientBudget]:
    budgets = [
        ClientBudget(
            client=client,
            rounds=len(positions),
            epsilon=None if first is None else finite_or_none(first),
            second=None if second is None else finite_or_none(second),
        )
        for positions, (first, second) in case.spent.items()
        for client in case.histories[positions]
    ]
    return sorted(budgets, key=lambda budget: budget.client)
