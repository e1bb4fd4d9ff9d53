"""Checks F-01 to F-14: what a foreign log says of its mechanism, against itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

from flora_secure.auditing.findings import WARNING, Finding, Problem, judged, unchecked
from flora_secure.auditing.foreign.case import ForeignCase
from flora_secure.auditing.foreign.log import CLIENTS, EXAMPLE, FIXED, NO_MECHANISM, POISSON, SHUFFLED, SPARSE, Rounds
from flora_secure.auditing.foreign.sparse import release_epsilon, released_values, sparse_epsilon
from flora_secure.auditing.foreign.views import derived_multiplier

_CLOSE = 1e-3  # relative, of noise multipliers that are written with few digits


def mechanism_findings(case: ForeignCase) -> list[Finding]:
    """The findings of all these checks, in their order."""
    return [
        _readable(case),
        *_noise(case),
        _clip(case),
        _order(case),
        _filters(case),
        _adaptive(case),
        _batches(case),
        _epochs(case),
        _delta(case),
        _randomness(case),
        _unprotected(case),
        _code(case),
    ]


def _readable(case: ForeignCase) -> Finding:
    problems = list(case.problems)
    if not case.log.rounds:
        problems.append(("rounds", "there is none: nothing can be derived"))
    for place, run in enumerate(case.log.rounds):
        problems += [(f"rounds[{place}]", what) for what in _impossible(case, run)]
    title = ("The log can be read, and its numbers are possible", "The log holds what no run can have, or no round")
    fine = f"{case.log.times:,} rounds in {len(case.log.rounds):,} entries"
    return judged("F-01", title, problems, fine, "read as not known; ask for the log as it was written")


def _impossible(case: ForeignCase, run: Rounds) -> Iterator[str]:
    """Counts of people that cannot be together."""
    present, asked, everybody = run.contributors, run.cohort, case.log.population
    # of cohorts by a coin each, some logs have the expected size
    if case.log.sampling != POISSON and present is not None and asked is not None and present > asked:
        yield f"{present:,} contributors, and a cohort of {asked:,}"
    if case.log.unit != EXAMPLE and asked is not None and everybody is not None and asked > everybody:
        yield f"a cohort of {asked:,}, and a population of {everybody:,}"
    if run.participants is not None and present is not None and len(run.participants) < present:
        yield f"{present:,} contributors, and {len(run.participants):,} participants are named"


def _noise(case: ForeignCase) -> Iterator[Finding]:
    """F-02: z against noise, clip norm and contributors; F-03: the same where some dropped out."""
    log = case.log
    wrong: list[Problem] = []
    lost: list[Problem] = []
    seen = 0
    for place, run in enumerate(log.rounds):
        z, said = derived_multiplier(log, run), run.noise_multiplier
        if z is None or said is None:
            continue
        seen += 1
        if z >= said * (1 - _CLOSE):
            continue
        where, ratio, present, asked = f"rounds[{place}]", z / said, run.present or 1, run.cohort or run.present or 1
        what = f"said z = {said:.5g}, noise and clip norm give {z:.5g}"
        power = 0.5 if log.noise_by == CLIENTS else 1.0
        if present < asked and math.isclose(ratio, (present / asked) ** power, rel_tol=0.01):
            lost.append((where, f"{what}: sized for {asked:,} contributors, {present:,} were there"))
        elif log.noise_by == CLIENTS and any(
            math.isclose(ratio, math.sqrt(present) / n, rel_tol=0.01) for n in {present, asked} if n > 1
        ):
            wrong.append((where, f"{what}: shares are divided by {asked:,}, not by its square root"))
        else:
            wrong.append((where, f"{what}, {ratio:.3g} of it"))
    title = ("The noise is what the noise multiplier says", "There is less noise than the noise multiplier says")
    if seen or not log.rounds or log.mechanism in (SPARSE, NO_MECHANISM):
        yield judged(
            "F-02", title, wrong, f"{seen:,} entries compared", "shares of z·c ÷ √n for n that are sure to stay"
        )
    else:
        yield unchecked(
            "F-02", title, "noise, clip norm, contributors or z are not in the log", "`noise` in each round"
        )
    title = ("Noise counts those who stayed", "Noise counts contributors who dropped out")
    fewer = [run for run in log.rounds if run.cohort and run.present and run.present < run.cohort]
    if not lost and any(run.noise is None for run in fewer) and log.noise_by is not None:
        yield unchecked(
            "F-03", title, "some dropped out, and whether z counts them is not known", "`noise` in each round"
        )
    elif lost or fewer or all(run.contributors is not None for run in log.rounds) or log.unit == EXAMPLE:
        yield judged("F-03", title, lost, f"{len(fewer):,} entries with drop-outs", "size noise for those who stay")
    else:
        yield unchecked("F-03", title, "how many contributed is not known", "`contributors` in each round")


def _clip(case: ForeignCase) -> Finding:
    title = (
        "Contributions are clipped to the norm that is claimed",
        "Contributions are clipped to more than is claimed",
    )
    log = case.log
    both = [(place, run.clip) for place, run in enumerate(log.rounds) if run.clip is not None]
    if log.clip is None or not both:
        return unchecked(
            "F-04", title, "the norm claimed, or the one clipped to, is not known", "`clip`, here and there"
        )
    wrong = [
        (f"rounds[{place}]", f"clipped to {clip:.5g}, noise is for {log.clip:.5g}: {clip / log.clip:.3g} times as much")
        for place, clip in both
        if clip > log.clip * (1 + _CLOSE) and not log.adaptive_clip
    ]
    return judged("F-04", title, wrong, f"{log.clip:.5g}", "size the noise for the norm that is clipped to")


def _order(case: ForeignCase) -> Finding:
    title = ("Noise is added to what was clipped", "Noise is added before clipping")
    if case.log.noise_before_clip is None:
        return unchecked("F-05", title, "the order is not in the log", "`noise_before_clip`")
    wrong = (
        [("", "what one unit moves has no bound when the noise is added: no ε")] if case.log.noise_before_clip else []
    )
    return judged("F-05", title, wrong, "clipped first", "clip first")


def _filters(case: ForeignCase) -> Finding:
    """F-06: a mechanism that is none, or whose noise does not protect what it releases."""
    title = (
        "The mechanism is one of differential privacy",
        "The mechanism gives no differential privacy worth the name",
    )
    log, sparse = case.log, case.log.sparse
    if log.mechanism is None:
        return unchecked("F-06", title, "no mechanism is named", "`mechanism`")
    wrong: list[Problem] = []
    fine = log.mechanism
    if log.mechanism == NO_MECHANISM:
        wrong = [("mechanism", "nothing random is added: what is left of an upload is there as it was")]
    elif log.mechanism == SPARSE and sparse is not None and sparse.epsilon is not None:
        one, count = sparse_epsilon(sparse, 1, 0.0, "replace-one"), released_values(sparse)
        if math.isnan(one) and sparse.noise_var is not None and sparse.fraction is not None:
            each = sparse.noise_var * sparse.fraction
            wrong = [
                ("sparse", f"ε = {sparse.epsilon:g} is for the selection alone; releasing costs {each:.4g} for each "
                 f"parameter of the model, {sparse.epsilon + each * 1e6:,.1f} in one round for a million")
            ]  # fmt: skip
        elif one > 100 or one > 1.01 * sparse.epsilon:
            wrong = [
                ("sparse", f"ε = {one:,.6g} in one round: {sparse.epsilon:g} for the selection, "
                 f"{release_epsilon(sparse):,.6g} for {count or 0:,} values")
            ]  # fmt: skip
        fine = f"ε = {one:.5g} in one round"
    return judged("F-06", title, wrong, fine, "clip to an L2 norm and add Gaussian noise for it")


def _adaptive(case: ForeignCase) -> Finding:
    title = ("Adaptive clipping's count has noise that counts", "Adaptive clipping releases its count without noise")
    log = case.log
    if log.adaptive_clip is None:
        return unchecked("F-07", title, "whether the clip norm adapts to the data is not known", "`adaptive_clip`")
    if not log.adaptive_clip:
        return judged("F-07", title, [], "the clip norm does not adapt", "")
    if any(run.count_noise is None for run in log.rounds):
        return unchecked("F-07", title, "the count's noise is not in the log: ε is without it", "`count_noise`")
    wrong = [(f"rounds[{place}]", "no noise") for place, run in enumerate(log.rounds) if run.count_noise == 0]
    return judged("F-07", title, wrong, "noise on the count is in every ε", "noise on the count, and in the accountant")


def _batches(case: ForeignCase) -> Finding:
    """F-08: the rate of examples against batch and data, and whether Poisson sampling is more than a formula."""
    title = ("Examples are sampled as they are accounted", "Examples are not sampled as they are accounted")
    log = case.log
    if log.unit != EXAMPLE:
        return judged("F-08", title, [], "the unit is no example", "")
    wrong: list[Problem] = []
    for place, run in enumerate(log.rounds):
        rate, where = run.sampling_rate, f"rounds[{place}]"
        if rate is None or log.batch is None or log.examples is None:
            continue
        real = min(1.0, log.batch / log.examples)
        if rate < real * 0.99:
            clients = run.present is not None and log.population and math.isclose(rate, run.present / log.population)
            why = ", it is that of clients" if clients else ""
            wrong.append((where, f"rate {rate:.5g}, a batch of {log.batch:,} of {log.examples:,} is {real:.5g}{why}"))
    if wrong:
        return judged("F-08", title, wrong, "", "the rate of the batch in the client's own data")
    if log.sampling is None and any((run.sampling_rate or 1) < 1 for run in log.rounds):
        why = "whether batches were drawn by Poisson sampling is not known: if they were shuffled, nothing is amplified"
        return unchecked("F-08", title, why, "`sampling`")
    fine = {POISSON: "Poisson", SHUFFLED: "shuffled: counted without amplification", FIXED: "batches of a fixed size"}
    return judged("F-08", title, [], fine.get(log.sampling or "", "all in every step"), "")


def _epochs(case: ForeignCase) -> Finding:
    title = ("Every step is counted", "Epochs are counted, not steps")
    log = case.log
    rates = [run.sampling_rate for run in log.rounds if run.sampling_rate]
    if log.unit != EXAMPLE:
        return judged("F-09", title, [], "the unit is no example: rounds are counted", "")
    if log.epochs is None or not rates:
        return unchecked("F-09", title, "how many epochs were trained is not known", "`epochs`")
    rate = max(rates) if log.batch is None or log.examples is None else log.batch / log.examples
    expected, counted = log.epochs / rate, log.times
    wrong = [
        (
            "rounds",
            f"{counted:,} steps counted; {log.epochs:g} epochs of batches of rate {rate:.4g} are {expected:,.0f}",
        )
    ]
    short = counted < expected * 0.98 - 1
    return judged("F-09", title, wrong if short else [], f"{counted:,} steps", "count every step of the optimiser")


def _delta(case: ForeignCase) -> Finding:
    title = ("δ is below 1/N", "δ is not below 1/N")
    given = [
        (f"claims[{place}]", claim.delta) for place, claim in enumerate(case.log.claims) if claim.delta is not None
    ]
    if not given:
        return unchecked("F-10", title, f"no δ is claimed; {case.delta:g} is used here", "`delta` of each claim")
    zero = [(where, "δ = 0, which Gaussian noise never has") for where, delta in given if delta == 0]
    if zero and case.log.mechanism not in (SPARSE, NO_MECHANISM, None):
        return judged("F-10", title, zero, "", "a δ below 1/N")
    if case.units is None:
        return unchecked("F-10", title, "how many units there are is not known", "`population`, or `examples`")
    wrong = [
        (where, f"δ = {d:g}, 1/{case.units:,} = {1 / case.units:.3g}") for where, d in given if d >= 1 / case.units
    ]
    remedy = "a δ well below 1/N: giving one unit away whole has δ = 1/N"
    return judged("F-10", title, wrong, f"N = {case.units:,}", remedy)


def _randomness(case: ForeignCase) -> Finding:
    title = ("Noise is from a secure generator", "Noise is from a generator that can be predicted, in floating point")
    if case.log.mechanism == NO_MECHANISM:
        return judged("F-11", title, [], "there is no noise", "")
    if case.log.secure_random is None:
        return unchecked("F-11", title, "the generator is not in the log", "`secure_random`")
    wrong = (
        [] if case.log.secure_random else [("", "who learns its state, or reads the low bits, takes the noise away")]
    )
    return judged("F-11", title, wrong, "as the log says", "the operating system's generator, on a grid", WARNING)


def _unprotected(case: ForeignCase) -> Finding:
    title = ("Nothing is released beside the noisy values", "Values are released without noise")
    wrong = [("", one) for one in case.log.unprotected or ()]
    if case.log.unprotected is None:
        return unchecked("F-12", title, "what else leaves a client is not in the log", "`unprotected`")
    return judged("F-12", title, wrong, "as the log says", "noise for them too, or keep them", WARNING)


def _code(case: ForeignCase) -> Finding:
    title = ("Nothing else is known that changes a figure", "More is known of this system or file")
    return judged("F-13", title, [("", note) for note in case.notes], "no note", "see docs/foreign-log.md", WARNING)
