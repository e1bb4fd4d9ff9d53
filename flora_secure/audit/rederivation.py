"""The first audit: every claim of a run derived again from its log alone. No data, no weights, no secrets, no torch."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path

from flora_secure.privacy.cross_check import PRV, accountant_versions
from flora_secure.report import finite_or_none
from flora_secure.run_folder import RunFolderError, read_unverified

from . import budget_checks, log_checks, noise_checks, report_checks
from .derivation import Case
from .findings import VIOLATION, Audit, ClientBudget, Figure


def audit(path: Path, *, opacus: bool = True) -> Audit:
    """Derive again what the run in ``path`` claims.

    Args:
        path: a run folder; config.toml, rounds.jsonl and, unless the run was interrupted, report.json.
        opacus: ask opacus' PRV accountant too, where it is installed; it imports torch (seconds).

    Raises :class:`flora_secure.run_folder.RunFolderError` for what cannot be read, or holds no round.
    """
    run, breaks = read_unverified(path)
    if not run.records:
        raise RunFolderError(f"{path / 'rounds.jsonl'} holds no complete round: there is nothing to audit")
    case = Case(path, run.config, dataclasses.asdict(run.config), run.records, run.report, breaks)
    left_out = {}
    if not opacus:
        left_out[PRV] = "not asked for"
    elif importlib.util.find_spec("opacus") is None:
        left_out[PRV] = "opacus is not installed"
    counted, found = budget_checks.accountants(case, opacus=not left_out)
    findings = [
        log_checks.chain(case),
        log_checks.every_round(case),
        log_checks.configured(case),
        log_checks.sets(case),
        log_checks.uploads(case),
        log_checks.charged(case),
        noise_checks.multipliers(case),
        noise_checks.shares(case),
        noise_checks.honest(case),
        noise_checks.clip_norm(case),
        noise_checks.slack(case),
        noise_checks.ring(case),
        noise_checks.secret(case),
        budget_checks.headline(case),
        budget_checks.so_far(case),
        budget_checks.single_round(case),
        budget_checks.amplification(case),
        budget_checks.within_budget(case),
        budget_checks.delta_small(case),
        budget_checks.other_views(case),
        counted,
        budget_checks.unmasked(case),
        report_checks.words(case),
        report_checks.accuracy(case),
        report_checks.communication(case),
        report_checks.aggregation(case),
        report_checks.rates(case),
    ]
    return Audit(
        run=str(path),
        passed=all(finding.severity != VIOLATION for finding in findings),
        accountants=accountant_versions(found or ["closed form"]),
        left_out=left_out,
        findings=findings,
        figures=_figures(case),
        clients=_clients(case),
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
        add("epsilon_outsider", told.epsilon_outsider, budget_checks.outsider(case), within)
        add("mu", told.mu, budget_checks.derived_mu(case), near)
        add("delta", told.delta, case.delta, 0.0)
        add("honest_minimum", told.honest_minimum, case.records[0].honest_minimum, 0.0)
        add("rounds", told.rounds, len(case.records), 0.0)
        planned = [r.z_local * math.sqrt(max(r.record.honest_minimum, 0)) for r in case.released]
        add("noise_multiplier", told.noise_multiplier, min(planned, default=None), near)
        add("aliasing_slack", told.aliasing_slack, math.fsum(r.slack for r in case.worst), near)
    last = case.records[-1]
    add(f"round {last.round} epsilon of the worst client", last.epsilon, case.server, within)
    for r in case.released:
        add(f"round {r.record.round} noise multiplier", r.record.noise_multiplier, r.z, near)
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
