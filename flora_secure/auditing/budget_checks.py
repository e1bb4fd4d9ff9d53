"""A-20 to A-28: the claimed ε is what the rounds cost, for whom it is claimed, and within the budget."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping

from flora_secure.auditing.derivation import CELLS, CLOSED, COUNTED, Case, Released, epsilon, weight
from flora_secure.auditing.findings import Finding, Problem, judged, unchecked
from flora_secure.auditing.log_checks import at
from flora_secure.auditing.noise_checks import near
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

_PREFIXES, _HEAVIEST = 8, 4  # where examples are sampled: rounds after which ε is derived, and histories tried
_MOST_PREFIXES = 250  # where none are: all rounds of nearly every run
_SINGLE = 50  # different rounds, the costliest first, whose own ε is compared with the total


def agree(claimed: float | None, derived: float, tolerance: float) -> bool:
    """A claim, None for infinity, against a derived figure; the tolerance is absolute, and relative above 1."""
    told = math.inf if claimed is None else claimed
    return told == derived or abs(told - derived) <= tolerance * max(1.0, min(told, derived))


def claims(case: Case) -> list[tuple[str, float | None]]:
    """Every place that claims the total against the server: where, and what."""
    found: list[tuple[str, float | None]] = []
    if case.report is not None:
        found.append(("report.json", case.report.privacy.epsilon))
    if case.masked:
        found.append((f"round {case.records[-1].round}", case.records[-1].epsilon))
    return found


def headline(case: Case) -> Finding:
    """A-20: the claimed ε is what all rounds cost the worst client."""
    derived = case.headline if case.noisy else math.inf
    problems = [
        (where, f"claims ε = {_said(told)}, {len(case.released)} rounds cost {_said(derived)}")
        for where, told in claims(case)
        if not agree(told, derived, case.tolerance)
    ]
    least, most = (len(positions) for positions in (min(case.histories, key=len), max(case.histories, key=len)))
    return judged(
        "A-20",
        (
            "The claimed ε is what all rounds cost the worst client",
            "The claimed ε is not what all rounds cost the worst client",
        ),
        problems,
        f"ε = {_said(derived)} at δ = {case.delta:g}, clients in {least} to {most} rounds, within {case.tolerance:g}",
        "publish the derived figure",
    )


def so_far(case: Case) -> Finding:
    """A-21: ε after each round is what the rounds so far cost the worst client."""
    problems: list[Problem] = []
    numbers = [number for number, record in enumerate(case.records) if case.released or record.epsilon]
    most = _PREFIXES if case.sampled else _MOST_PREFIXES
    if len(numbers) > most:
        numbers = sorted({numbers[round(i * (len(numbers) - 1) / (most - 1))] for i in range(most)})
    for number in numbers:
        record = case.records[number]
        derived = _after(case, record.round) if case.noisy else math.inf
        if not agree(record.epsilon, derived, case.tolerance):
            problems.append((at(record), f"claims ε = {_said(record.epsilon)} so far, derived {_said(derived)}"))
    return judged(
        "A-21",
        ("ε after each round is what the rounds so far cost", "ε after a round is not what the rounds so far cost"),
        problems,
        f"after {len(numbers)} rounds, within {case.tolerance:g}",
        "publish the derived figures",
    )


def _after(case: Case, last: int) -> float:
    """ε of the worst client after round `last`, by the sums."""
    prefixes = {tuple(p for p in positions if case.released[p].record.round <= last) for positions in case.histories}
    ordered = sorted(prefixes, key=lambda positions: -weight(case.rounds_of(positions)))
    if case.sampled:
        ordered = ordered[:_HEAVIEST]
    return max(epsilon(case.rounds_of(positions), case.delta, cell=CALIBRATION_CELL) for positions in ordered)


def single_round(case: Case) -> Finding:
    """A-22: no single round's ε is sold as the total."""
    problems: list[Problem] = []
    if case.noisy and len(case.worst) > 1:
        ones = {
            r.record.round: epsilon([r], case.delta, cell=CALIBRATION_CELL) for r in _distinct(case.worst)[:_SINGLE]
        }
        for where, told in claims(case):
            for number, one in ones.items():
                below = told is not None and told < case.server - case.tolerance
                if below and told is not None and near(told, one, 0.01):
                    all_of_them = f"{len(case.worst)} rounds cost {_said(case.server)}"
                    problems.append((where, f"ε = {told:.4g} is that of round {number} alone; {all_of_them}"))
                    break
    return judged(
        "A-22",
        ("No single round's ε is sold as the total", "A single round's ε is sold as the total"),
        problems,
        f"{len(case.worst)} rounds are composed",
        "compose all rounds",
    )


def _distinct(rounds: list[Released]) -> list[Released]:
    return sorted({(r.z, r.record.sampling_rate): r for r in reversed(rounds)}.values(), key=lambda r: r.z)


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
                    problems.append((where, f"{text} {_said(case.server)}"))
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


def within_budget(case: Case) -> Finding:
    """A-24: no round ran beyond the budget of the configuration."""
    target, problems = case.config.privacy.epsilon, list[Problem]()
    if case.noisy:
        allowed = target + (CELLS if case.sampled else CLOSED * max(1.0, target))
        total = case.server
        if total > allowed:
            # ε grows from round to round
            first = bisect.bisect_right(case.released, allowed, key=lambda r: _after(case, r.record.round))
            last = case.released[min(first, len(case.released) - 1)]
            problems.append(
                (at(last.record), f"raised ε above the budget of {target:g} and was not refused; in all {_said(total)}")
            )
    return judged(
        "A-24", ("No round ran beyond the budget", "A round ran beyond the budget"), problems, f"within {target:g}",
        "refuse a round before it runs, or plan with more noise",
    )  # fmt: skip


def delta_small(case: Case) -> Finding:
    """A-25: δ is below one over the number of clients, or of examples, that are protected."""
    units, what = case.config.clients, "clients"
    if case.records[0].unit == "example":
        known = [r.record for r in case.released if r.record.summed]
        drawn = sum(r.contributions for r in known)
        chances = math.fsum(r.sampling_rate * len(r.survivors) for r in known)
        units, what = (
            max(units, round(units * drawn / chances) if chances else 0),
            "examples, as estimated from the log",
        )
    deltas = {"rounds.jsonl": max(record.delta for record in case.records)}
    if case.report is not None:
        deltas["report.json"] = case.report.privacy.delta
    problems = [
        (
            where,
            f"δ = {delta:g} is not below 1/N = {1 / units:.3g} for N = {units} {what}: one may be given away entirely",
        )
        for where, delta in deltas.items()
        if case.noisy and delta >= 1 / units
    ]
    return judged(
        "A-25",
        ("δ is below one over the number protected", "δ is not below one over the number protected"),
        problems,
        f"δ = {case.delta:g}, N = {units} {what}",
        "take a smaller δ",
    )


def other_views(case: Case) -> Finding:
    """A-26: ε of single uploads, ε for outsiders and μ follow from the rounds."""
    title = (
        "ε of single uploads, for outsiders, and μ follow from the rounds",
        "ε of single uploads, for outsiders, or μ does not follow from the rounds",
    )
    if case.report is None:
        return unchecked("A-26", title, "report.json is missing")
    told, problems = case.report.privacy, list[Problem]()
    local, outside = (case.local, outsider(case)) if case.noisy else (math.inf, math.inf)
    for name, claimed, derived in (
        ("epsilon_local", told.epsilon_local, local),
        ("epsilon_outsider", told.epsilon_outsider, outside),
    ):
        if not agree(claimed, derived, case.tolerance):
            problems.append(("report.json", f"{name} {_said(claimed)}, derived {_said(derived)}"))
    mu = derived_mu(case)
    if mu is not None and (told.mu is None or not near(told.mu, mu)):
        problems.append(("report.json", f"mu {_said(told.mu)}, derived {_said(mu)}"))
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
        f"one upload alone {_said(local)}, outsiders {_said(outside)}",
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
            problems.append(("", f"a client's ε is {_said(first)} by one accountant and {_said(second)} by another"))
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


def unmasked(case: Case) -> Finding:
    """A-28: without masking the headline is the ε of single uploads, which the server received."""
    problems: list[Problem] = []
    title = (
        "Without masking the headline is that of single uploads",
        "Without masking the headline is not that of single uploads",
    )
    if case.masked or not case.noisy:
        return judged("A-28", title, [], f"masking is {case.config.aggregation.secagg}", "")
    if case.report is not None:
        told = case.report.privacy.epsilon
        if told is not None and told < case.local - case.tolerance * max(1.0, case.local):
            problems.append(
                ("report.json", f"claims ε = {told:.4g}, but the server received every upload: {_said(case.local)}")
            )
        if "SWITCHED OFF" not in case.report.privacy.statement:
            problems.append(("report.json", "the statement does not say that masking was switched off"))
    return judged("A-28", title, problems, f"ε = {_said(case.local)}", "publish epsilon_local as the headline")


def _said(value: float | None) -> str:
    return "∞" if value is None or value == math.inf else f"{value:.6g}"
