"""Checks F-20 to F-29: each ε that a foreign log claims, against what follows, and which mistake would explain it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

from flora_secure.auditing.findings import VIOLATION, WARNING, Finding, Problem, Title, judged, unchecked
from flora_secure.auditing.foreign.case import WORDS, ForeignCase
from flora_secure.auditing.foreign.costs import central_limit
from flora_secure.auditing.foreign.log import (
    EXAMPLE,
    OUTSIDER,
    POISSON,
    REPLACE_ONE,
    ROUND,
    SERVER,
    SPARSE,
    SUM,
    ZERO_OUT,
    Claim,
    ForeignLog,
)
from flora_secure.auditing.foreign.views import Reading, amplifies, least_rounds, multiplier, span, steps_of


class Mistake(NamedTuple):
    """A way to read a log wrongly that gives a smaller, or another, ε."""

    check: str
    title: Title
    remedy: str


_ROUND = Mistake(
    "F-21", ("No round is sold as the total", "The ε of one round is claimed as the total"), "compose all rounds"
)
_AMPLIFIED = Mistake(
    "F-22",
    (
        "Sampling amplifies nothing for those who see who is drawn",
        "Amplification by sampling is claimed where it does not hold",
    ),
    "count every round that a unit was in; amplify for outsiders alone, if cohorts are secret",
)
_ADJACENCY = Mistake(
    "F-23",
    ("ε is for the adjacency that is named", "ε is counted for another adjacency than the one named"),
    "replacing one moves a sum by two clip norms: halve z for it",
)
_NOMINAL = Mistake(
    "F-24",
    ("ε is counted with the noise that is there", "ε is counted with the noise multiplier that was planned"),
    "count with noise ÷ clip norm of those who stayed",
)
_COUNT = Mistake(
    "F-25", ("ε has the count of adaptive clipping", "ε leaves the count of adaptive clipping out"), "z⁻² + (2σ_b)⁻²"
)
_SHUFFLED = Mistake(
    "F-26",
    ("ε is counted for batches as they were drawn", "ε is counted for Poisson sampling, and batches were not drawn so"),
    "Poisson sampling, or one Gaussian step for each epoch",
)
_EPOCHS = Mistake("F-27", ("ε counts steps", "ε counts an epoch as one step"), "count every step of the optimiser")
_LIMIT = Mistake(
    "F-28",
    ("ε is by an accountant that bounds it", "ε is by the central limit, which may be too small"),
    "the PRV or RDP accountant",
)
_LOOSE = 1.6  # times the tightest ε: looser than any accountant in use
_MISTAKES = (_ROUND, _AMPLIFIED, _ADJACENCY, _NOMINAL, _COUNT, _SHUFFLED, _EPOCHS, _LIMIT)


def claim_findings(case: ForeignCase) -> list[Finding]:
    """The findings of all these checks, in their order."""
    return [_totals(case), *_explained(case), _whom(case)]


def _totals(case: ForeignCase) -> Finding:
    title = ("No claim is below what follows from the log", "A claim is below what follows from the log")
    claims = [(place, claim) for place, claim in enumerate(case.log.claims) if claim.epsilon is not None]
    if not claims:
        return unchecked("F-20", title, "no ε is claimed", "`claims`")
    wrong: list[Problem] = []
    doubts: list[Problem] = []
    for place, claim in claims:
        where, said, most = f"claims[{place}]", case.said(claim), case.derived(claim)
        value, hidden = claim.epsilon or 0.0, case.at_best(claim)
        if math.isnan(most):
            doubts.append((where, f"{said}: what follows is not known"))
        elif hidden is not None and not case.below(value, hidden):
            if case.below(value, most):
                doubts.append(
                    (where, f"{said}: only if cohorts are a secret and noise is as accounted, else {most:.5g}")
                )
        elif case.below(value, case.least(claim)):
            wrong.append((where, f"{said}, {_at_least(case, claim, most)}"))
        elif case.below(value, most):
            few = least_rounds(case.log)
            doubts.append((where, f"{said}: {most:.5g} for a client of every round, and one was in {few:,} at least"))
    if doubts and not wrong:
        title = (title[0], "A claim is not shown to hold")
        return judged("F-20", title, doubts, "", "`most_rounds`, `secret_sampling` or what is missing", WARNING)
    return judged("F-20", title, wrong, f"{len(claims)} compared", "claim what follows, or add noise")


def _at_least(case: ForeignCase, claim: Claim, most: float) -> str:
    least = case.least(claim)
    if most == math.inf:
        return "nothing bounds it"
    return f"derived {most:.6g}" if least == most else f"derived at least {least:.6g}, up to {most:.6g}"


def _explained(case: ForeignCase) -> Iterator[Finding]:
    """For each mistake, the claims that are wrong and that it reproduces; overstatements are warnings."""
    found: dict[Mistake, list[tuple[str, Problem]]] = {mistake: [] for mistake in _MISTAKES}
    for place, claim in enumerate(case.log.claims):
        if claim.epsilon is None or not case.countable:
            continue
        truth = case.derived(claim)
        for mistake, log, reading, adjacency in _wrong_readings(case, claim):
            spans = _spans(case, mistake, claim, log, reading, adjacency)
            if not any(_within(claim.epsilon, *one) for one in spans):
                continue
            under, over = case.below(claim.epsilon, truth), claim.epsilon > truth * 1.3 + 0.02
            if under and not case.below(claim.epsilon, case.least(claim)) and mistake is not _AMPLIFIED:
                under = False
            if under or (over and mistake is _ADJACENCY):
                line = f"{case.said(claim)}, derived {truth:.6g}" if math.isfinite(truth) else case.said(claim)
                sure = under and case.at_best(claim) is None
                found[mistake].append((VIOLATION if sure else WARNING, (f"claims[{place}]", line)))
    for mistake, met in found.items():
        severity = VIOLATION if any(one == VIOLATION for one, _ in met) else WARNING
        problems = [problem for _, problem in met]
        yield judged(mistake.check, mistake.title, problems, "no claim is explained by it", mistake.remedy, severity)


def _within(claimed: float, low: float, high: float) -> bool:
    """Whether some accountant makes this ε of a reading; NaN is no figure."""
    return low * 0.97 - 0.03 <= claimed <= min(high, _LOOSE * low) * 1.015 + 0.01


def _wrong_readings(case: ForeignCase, claim: Claim) -> Iterator[tuple[Mistake, ForeignLog, Reading, str]]:
    log, usual = case.log, case.reading(claim)
    view, word = claim.against or OUTSIDER, claim.adjacency or log.adjacency or ZERO_OUT
    other = ZERO_OUT if word == REPLACE_ONE else REPLACE_ONE
    if claim.scope != ROUND and log.times > 1:
        yield _ROUND, log, Reading(rounds=1), word
    if not amplifies(log, view) and amplifies(log, view, Reading(amplified=True)):
        yield _AMPLIFIED, log, dataclasses.replace(usual, amplified=True), word
    yield _ADJACENCY, log, usual, other
    if log.sampling is not None:  # a sampled Gaussian with the wrong z is not the other adjacency's
        stretched = dataclasses.replace(usual, stretch=2.0 if word == REPLACE_ONE else 0.5)
        hidden = case.at_best(claim) is not None
        yield _ADJACENCY, log, dataclasses.replace(stretched, amplified=True) if hidden else stretched, word
    yield _NOMINAL, log, dataclasses.replace(usual, nominal=True), word
    if any(run.count_noise is not None for run in log.rounds):
        yield _COUNT, log, dataclasses.replace(usual, count_noise=False), word
    if log.unit == EXAMPLE:
        poisson = dataclasses.replace(log, sampling=POISSON)
        if log.sampling not in (POISSON, None):
            yield _SHUFFLED, poisson, usual, word
        if log.epochs and log.epochs < log.times:
            yield _EPOCHS, poisson, Reading(rounds=math.ceil(log.epochs)), word
        yield _LIMIT, poisson, usual, word


def _spans(
    case: ForeignCase, mistake: Mistake, claim: Claim, log: ForeignLog, reading: Reading, adjacency: str
) -> Iterator[tuple[float, float]]:
    """From the tightest accountant's ε under a mistaken reading to the loosest one's; several, where accountants count
    different things."""
    delta = case.delta if claim.delta is None else claim.delta
    view = claim.against or OUTSIDER
    if view == SERVER and log.noise_by == SERVER:  # what is sold as the server's is an outsider's
        view = OUTSIDER
    if mistake is _LIMIT:
        steps = steps_of(log, view, reading)
        value = central_limit(steps, delta) if steps and len(steps) == 1 and 0 < delta < 1 else math.nan
        yield value, value
        return
    yield span(log, view, delta, adjacency, reading)
    if mistake is _AMPLIFIED and 0 < delta < 1:  # most accountants count cohorts as Poisson sampling, on the sum
        poisson = dataclasses.replace(log, sampling=POISSON, noise_by=SERVER, noise_on=SUM)
        yield span(_nominal(log, poisson), OUTSIDER, delta, adjacency, reading)


def _nominal(log: ForeignLog, other: ForeignLog) -> ForeignLog:
    """`other` with the noise multipliers that follow from `log`, so that who adds the noise changes nothing."""
    rounds = [
        dataclasses.replace(run, noise=None, noise_multiplier=multiplier(log, run), count_noise=None)
        for run in log.rounds
    ]
    return dataclasses.replace(other, rounds=rounds)


def _whom(case: ForeignCase) -> Finding:
    """F-29: who is claimed to be kept out, and by whose noise."""
    title = (
        "Claims are against those whom the noise keeps out",
        "A claim is against somebody whom the noise does not keep out",
    )
    log = case.log
    wrong: list[Problem] = []
    doubts: list[Problem] = []
    for place, claim in enumerate(log.claims):
        where, whom = f"claims[{place}]", claim.against
        if whom is None:
            doubts.append((where, f"{case.said(claim)}: taken as against {WORDS[OUTSIDER]}, who sees least"))
        elif whom != OUTSIDER and log.noise_by == SERVER:
            wrong.append((where, f"{case.said(claim)}, but the server adds the noise to what it has seen without"))
        elif whom == SERVER and log.aggregation is None and log.mechanism != SPARSE:
            doubts.append((where, f"{case.said(claim)}: whether the server sees single uploads is not known"))
    if log.noise_by is None and log.claims and log.unit != EXAMPLE:
        doubts.append(("noise_by", "who adds the noise is not known, and so not whom the claims are against"))
    if doubts and not wrong:
        return judged("F-29", (title[0], "Claims do not say against whom they hold"), doubts, "", "say it", WARNING)
    return judged(
        "F-29", title, wrong, f"{len(log.claims)} claims", "claim it against outsiders, or let clients add it"
    )
