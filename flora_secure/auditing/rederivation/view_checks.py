"""A-23, A-26 and A-27: what is claimed for whom beside the server's ε, and whether independent accountants agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from flora_secure.auditing.findings import Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.budget_checks import agree, claims, said
from flora_secure.auditing.rederivation.derivation import CELLS, COUNTED, Case
from flora_secure.auditing.rederivation.log_checks import at
from flora_secure.auditing.rederivation.noise_checks import near
from flora_secure.errors import ConfigError
from flora_secure.planning.selection import Selection
from flora_secure.privacy.accounting import epsilon_outsider
from flora_secure.privacy.amplification import CALIBRATION_CELL, poisson_epsilon
from flora_secure.privacy.cross_check import (
    CLOSED_FORM,
    PLD,
    PRV,
    RDP,
    CrossCheckError,
    cross_check,
    cross_check_outsiders,
)
from flora_secure.records.report import Report


def amplification(case: Case) -> Finding:
    """A-23: no amplification by sampling clients is claimed against the server, which knows who takes part."""
    problems: list[Problem] = []
    rate, uniform = case.config.sampling_rate, _uniform(case)
    for r in (released.record for released in case.released):
        if r.unit == "client" and r.sampling_rate != 1:
            problems.append(
                (at(r), f"claims sampling at rate {r.sampling_rate:g} for whole clients, whom the server knows")
            )
        elif r.unit == "example" and r.sampling_rate != rate:
            problems.append((at(r), f"claims examples sampled at rate {r.sampling_rate:g}, config.toml says {rate:g}"))
        if r.population is not None and (not uniform or case.everybody or r.exhausted):
            problems.append((at(r), "claims a uniform cohort for outsiders, but cohorts were not drawn uniformly"))
    if case.report is not None and case.report.privacy.view != "server":
        problems.append(("report.json", f"the headline is of the {case.report.privacy.view} view, not the server's"))
    if case.noisy and case.released and case.server <= COUNTED:
        amplified = _amplified(case)
        for where, told in claims(case):
            if told is None or told >= case.server - case.tolerance:
                continue
            for how, value in amplified.items():
                if abs(told - value) <= max(CELLS, 0.01 * value):
                    text = f"ε = {told:.4g} is amplified by {how}; against the server, who knows the cohorts, it is"
                    problems.append((where, f"{text} {said(case.server)}"))
    return judged(
        "A-23",
        (
            "No amplification by sampling clients is claimed against the server",
            "Amplification by sampling clients is claimed against the server",
        ),
        problems,
        "the server knows who takes part, and each client pays for its rounds in full",
        "publish the worst client's ε; the amplified one is the outsiders'",
    )


def _uniform(case: Case) -> bool:
    """Whether a run of this configuration draws each cohort uniformly, whatever the earlier ones were."""
    try:
        return Selection.of(case.config).uniform
    except ConfigError:  # no cohort can be drawn: nothing may be claimed
        return False


def _amplified(case: Case) -> dict[str, float]:
    """What an accountant would say that took cohorts for secret."""
    found = {}
    if any(len(r.record.participants) < r.record.clients for r in case.released):
        counts = Counter(
            (r.z, r.record.sampling_rate * len(r.record.participants) / r.record.clients) for r in case.released
        )
        found["Poisson sampling of clients"] = poisson_epsilon(counts, case.delta, CALIBRATION_CELL)
    if any(r.record.population is not None for r in case.released):
        found["the draw of cohorts that outsiders do not know"] = outsider(case)
    return found


def outsider(case: Case) -> float:
    """ε for those who see only the released models; the sums', without masking too."""
    if case.server > COUNTED or all(r.record.population is None for r in case.released):
        return case.server
    try:
        return min(case.server, epsilon_outsider([r.event() for r in case.released], case.delta))
    except ValueError:  # impossible numbers, which A-10 names
        return case.server


def other_views(case: Case) -> Finding:
    """A-26: ε of single uploads, ε for outsiders and μ follow from the rounds."""
    title = (
        "ε of single uploads, for outsiders, and μ follow from the rounds",
        "ε of single uploads, for outsiders, or μ does not follow from the rounds",
    )
    if case.report is None:
        return unchecked("A-26", title, case.no_report)
    told, problems = case.report.privacy, list[Problem]()
    local, outside = (case.local, outsider(case)) if case.noisy else (math.inf, math.inf)
    for name, claimed, derived in (
        ("epsilon_local", told.epsilon_local, local),
        ("epsilon_outsider", told.epsilon_outsider, outside),
    ):
        if not agree(claimed, derived, case.tolerance):
            problems.append(("report.json", f"{name} {said(claimed)}, derived {said(derived)}"))
    mu = derived_mu(case)
    if mu is not None and (told.mu is None or not near(told.mu, mu)):
        problems.append(("report.json", f"mu {said(told.mu)}, derived {said(mu)}"))
    # histories may tie in ε: the ledger may have taken any of them
    counts = {len(at_) for at_, (spent, _) in case.spent.items() if spent is None or near(spent, case.server, 1e-9)}
    if case.noisy and told.participations not in {len(case.worst), *counts}:
        problems.append(("report.json", f"participations {told.participations}, derived {len(case.worst)}"))
    released = [r.z for r in case.released]
    ends = [min(released), max(released)] if released else []
    if len(told.noise_released) != len(ends) or not all(
        near(said, end) for said, end in zip(told.noise_released, ends, strict=True)
    ):
        problems.append(("report.json", f"noise_released {told.noise_released!s:.60}, derived {ends}"))
    return judged(
        "A-26",
        title,
        problems,
        f"one upload alone {said(local)}, outsiders {said(outside)}",
        "publish the derived figures",
    )


def derived_mu(case: Case) -> float | None:
    """μ of the worst client's Gaussian rounds; None where there is none, or where examples were sampled."""
    worst = case.worst if case.masked else case.worst_local
    if not case.noisy or case.sampled or case.headline == math.inf or not worst:
        return None
    return math.sqrt(math.fsum((r.z if case.masked else r.z_local) ** -2 for r in worst))


def accountants(case: Case, opacus: bool) -> tuple[Finding, dict[str, float]]:
    """A-27, and what the accountants found for the worst client's rounds."""
    title, problems, found = (
        ("Independent accountants agree", "Accountants disagree"),
        list[Problem](),
        dict[str, float](),
    )
    if case.noisy and case.server <= COUNTED and case.worst:
        try:
            found = cross_check([r.event() for r in case.worst], case.delta, opacus=opacus)
        except (CrossCheckError, ValueError) as error:
            problems.append(("", str(error)))
    for first, second in case.spent.values():
        if first is not None and second is not None and not agree(first, second, CELLS):
            problems.append(("", f"a client's ε is {said(first)} by one accountant and {said(second)} by another"))
        outsiders = _outsiders(case, problems)
        if case.report is not None and not _same(case.report.privacy.cross_check_outsiders, outsiders):
            told = case.report.privacy.cross_check_outsiders
            problems.append(("report.json", f"accountants of the outsiders' ε {told!s:.90}, derived {outsiders}"))
    if case.report is not None:
        problems += _named(case, case.report, found)
    fine = ", ".join(f"{name} {value:.4f}" for name, value in found.items()) or "nothing to count"
    told_too = [] if case.report is None else [name for name in case.report.privacy.cross_check if name not in found]
    if told_too and not problems:
        why = f"{', '.join(told_too)} was not asked again; {fine}"
        return unchecked("A-27", title, why, "audit with opacus, without --no-opacus"), found
    return judged("A-27", title, problems, fine, "publish neither figure before it is known which one is wrong"), found


def _outsiders(case: Case, problems: list[Problem]) -> dict[str, float]:
    """What both accountants find for outsiders, where their ε is amplified."""
    if not (case.noisy and outsider(case) < case.server):
        return {}
    try:
        return cross_check_outsiders([r.event() for r in case.released], case.delta)
    except (CrossCheckError, ValueError) as error:
        problems.append(("", str(error)))
        return {}


def _same(told: Mapping[str, float], derived: Mapping[str, float]) -> bool:
    return told.keys() == derived.keys() and all(agree(told[name], derived[name], CELLS) for name in told)


def _named(case: Case, report: Report, found: Mapping[str, float]) -> list[Problem]:
    """Accountants that the report names: none that a run does not ask, and those asked again say the same."""
    told, problems = report.privacy, list[Problem]()
    counted = case.noisy and case.server <= COUNTED and bool(case.worst)
    for name, epsilon_told in told.cross_check.items():
        if name in found:
            if not agree(epsilon_told, found[name], CELLS):
                problems.append(("report.json", f"{name} {epsilon_told:.5g}, derived {found[name]:.5g}"))
        elif not counted or name not in (PLD, RDP, PRV):
            problems.append(("report.json", f"cross-check {name!r:.60} is none that this run could make"))
    first = PLD if any(r.record.sampling_rate != 1 for r in case.worst) else CLOSED_FORM
    accountant = {"name": first, "dp-accounting": report.provenance.versions.get("dp-accounting")}
    if told.accountant != accountant:
        problems.append(("report.json", f"accountant {told.accountant!s:.80}, expected {accountant}"))
    return problems
