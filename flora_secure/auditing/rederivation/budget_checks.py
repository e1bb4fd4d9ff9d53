"""A-20 to A-22, A-24, A-25 and A-28: the claimed ε is what the rounds cost, and within the budget."""

from __future__ import annotations

import bisect
import math

from flora_secure.auditing.findings import WARNING, Finding, Problem, judged
from flora_secure.auditing.rederivation.derivation import CELLS, CLOSED, Case, Released, epsilon, exact_weight, weight
from flora_secure.auditing.rederivation.log_checks import at
from flora_secure.auditing.rederivation.noise_checks import near
from flora_secure.privacy.amplification import CALIBRATION_CELL

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
        (where, f"claims ε = {said(told)}, {len(case.released)} rounds cost {said(derived)}")
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
        f"ε = {said(derived)} at δ = {case.delta:g}, clients in {least} to {most} rounds, within {case.tolerance:g}",
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
            problems.append((at(record), f"claims ε = {said(record.epsilon)} so far, derived {said(derived)}"))
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
    # where nothing was sampled, ε grows with Σ 1/z² and with κ alone, so that the heaviest have the largest
    heavy = weight if case.sampled else exact_weight
    ordered = sorted(prefixes, key=lambda positions: -heavy(case.rounds_of(positions)))[:_HEAVIEST]
    if not case.sampled:
        ordered.append(max(prefixes, key=lambda positions: math.fsum(r.slack for r in case.rounds_of(positions))))
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
                    all_of_them = f"{len(case.worst)} rounds cost {said(case.server)}"
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
                (at(last.record), f"raised ε above the budget of {target:g} and was not refused; in all {said(total)}")
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
            max(units, case.config.data.total_images or 0, round(units * drawn / chances) if chances else 0),
            "examples, as planned for" if case.config.data.total_images else "examples, as estimated from the log",
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


def unmasked(case: Case) -> Finding:
    """A-28: without masking the headline is the ε of single uploads, which the server received."""
    problems: list[Problem] = []
    title = (
        "Without masking the headline is that of single uploads",
        "Without masking the headline is not that of single uploads",
    )
    if case.config.aggregation.masks == "counted":
        return _counted(case)
    if case.masked or not case.noisy:
        return judged("A-28", title, [], f"masking is {case.config.aggregation.secagg}", "")
    if case.report is not None:
        told = case.report.privacy.epsilon
        if told is not None and told < case.local - case.tolerance * max(1.0, case.local):
            problems.append(
                ("report.json", f"claims ε = {told:.4g}, but the server received every upload: {said(case.local)}")
            )
        if "SWITCHED OFF" not in case.report.privacy.statement:
            problems.append(("report.json", "the statement does not say that masking was switched off"))
    return judged("A-28", title, problems, f"ε = {said(case.local)}", "publish epsilon_local as the headline")


def _counted(case: Case) -> Finding:
    """A-28 of a run whose masking was counted and not run: true, but to be known; a violation where it is not said."""
    if case.report is not None and "COUNTED, NOT RUN" not in case.report.privacy.statement:
        problems = [("report.json", "the statement does not say that masking was counted and not run")]
        return judged(
            "A-28", ("", "The run is presented as one that masked"), problems, "", "say that nothing was masked"
        )
    known = [
        ("config.toml", "messages were counted by size, uploads added up in the clear: ε is that of a run that masks")
    ]
    return judged(
        "A-28", ("", "No masking was executed, as is said"), known, "", "real data need a run that executes it", WARNING
    )  # fmt: skip


def said(value: float | None) -> str:
    """An ε for people; infinity where there is none."""
    return "∞" if value is None or value == math.inf else f"{value:.6g}"
