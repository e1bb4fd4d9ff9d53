"""A-10 to A-16: there was the noise that the figures rest on, and room for it in the ring."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flora_secure.auditing.findings import Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.log_checks import at
from flora_secure.privacy.calibration import MAX_SLACK, OVERFLOW_PROBABILITY
from flora_secure.privacy.overflow import RingLoad, overflow_bound
from flora_secure.privacy.rotation import padded
from flora_secure.records.record import RoundRecord

NEAR = 1e-6  # relative, of figures that are copied or follow by one formula


def near(claimed: float, derived: float, tolerance: float = NEAR) -> bool:
    """Equal up to a relative tolerance; both infinite counts as equal."""
    return math.isclose(claimed, derived, rel_tol=tolerance, abs_tol=1e-300)


def multipliers(case: Case) -> Finding:
    """A-10: noise multipliers follow from the noise that was added."""
    problems: list[Problem] = []
    for r in case.released:
        claimed = r.record.noise_multiplier
        if claimed is None or not near(claimed, r.z):
            numbers = f"{r.record.sigma_local:.6g}·√{r.honest}/({r.record.scale:.6g}·{r.record.clip_norm:.6g})"
            problems.append((at(r.record), f"z = {claimed}, but {numbers} = {r.z:.6g}"))
            continue
        try:
            event = r.event()
        except ValueError as error:
            problems.append((at(r.record), str(error)))
            continue
        if not near(event.noise_multiplier, r.z) or not near(event.aliasing_slack, r.slack):
            problems.append(
                (at(r.record), f"the ledger's formula gives z = {event.noise_multiplier:.6g}, not {r.z:.6g}")
            )
    return judged(
        "A-10",
        (
            "Noise multipliers follow from the noise that was added",
            "A noise multiplier does not follow from the noise that was added",
        ),
        problems,
        f"z = σ_loc·√honest/(s·c) in {len(case.released)} rounds, within {NEAR:g}",
        "publish σ_loc, s and c as used; z follows",
    )


def shares(case: Case) -> Finding:
    """A-11: shares of noise are sized for the honest minimum."""
    title = ("Shares of noise are sized for the honest minimum", "Shares of noise are not sized for the honest minimum")
    if case.report is None:
        return unchecked("A-11", title, "the planned noise multiplier stands in report.json, which cannot be read")
    planned, problems = case.report.privacy.noise_multiplier, list[Problem]()
    for r in case.released:
        sum_at_least = r.z_local * math.sqrt(max(r.record.honest_minimum, 0))
        if not near(planned, sum_at_least):
            n = len(r.record.participants)
            guess = next(
                (
                    f"; it is what dividing by {what} gives"
                    for what, share in _wrong_shares(planned, n)
                    if near(r.z_local, share)
                ),
                f", {sum_at_least / planned:.4g} of it" if planned else "",
            )
            problems.append(
                (at(r.record), f"{r.record.honest_minimum} honest shares make z = {sum_at_least:.6g}, planned is "
                               f"{planned:.6g}{guess}")
            )  # fmt: skip
    return judged(
        "A-11", title, problems, f"σ_loc·√h_min/(s·c) = {planned:.6g} in every round, within {NEAR:g}",
        "σ_loc = z·s·c/√h_min, with h_min the fewest honest survivors",
    )  # fmt: skip


def _wrong_shares(planned: float, clients: int) -> list[tuple[str, float]]:
    n = max(clients, 1)
    return [(f"√n = √{n}", planned / math.sqrt(n)), (f"n = {n}", planned / n)]


def honest(case: Case) -> Finding:
    """A-12: no sum has fewer honest survivors than the noise needs."""
    problems: list[Problem] = []
    config = case.config
    corrupt = math.floor(config.aggregation.corrupt * config.clients + 1e-9)
    for record in case.records:
        n = len(record.participants)
        expected = n - math.floor(config.dropout_tolerance * n + 1e-9) - record.colluders
        if case.everybody and record.colluders != corrupt:
            problems.append(
                (at(record), f"{record.colluders} colluders, corrupt = {config.aggregation.corrupt:g} says {corrupt}")
            )
        if record.released and record.honest_minimum != expected:
            problems.append(
                (at(record), f"honest minimum {record.honest_minimum}, the tolerated dropouts say {expected}")
            )
    for r in case.released:
        if r.honest < max(r.record.honest_minimum, 1):
            problems.append(
                (at(r.record), f"{r.honest} honest survivors, fewer than {r.record.honest_minimum}, and not aborted")
            )
        elif r.record.lost and r.honest > r.record.honest_minimum:
            problems.append(
                (
                    at(r.record),
                    f"lost, yet {r.honest} honest survivors count, more than the fewest, {r.record.honest_minimum}",
                )
            )
    least = case.records[0].honest_minimum
    if case.report is not None and case.everybody and case.report.privacy.honest_minimum != least:
        problems.append(("report.json", f"honest minimum {case.report.privacy.honest_minimum}, the log says {least}"))
    return judged(
        "A-12",
        (
            "No sum with fewer honest survivors than the noise needs",
            "A sum has fewer honest survivors than the noise needs, or other ones than planned",
        ),
        problems,
        f"at least {min((r.honest for r in case.released), default=0)} honest survivors in every sum",
        "abort such a round, or plan for more dropouts",
    )


def clip_norm(case: Case) -> Finding:
    """A-13: the sensitivity is the clip norm that clients clip to."""
    problems: list[Problem] = []
    given, adaptive = case.config.clip_norm, case.config.privacy.adaptive_clip is not None
    first = case.records[0]
    for record in case.records:
        if not adaptive and not near(record.clip_norm, given):
            problems.append((at(record), f"clip norm {record.clip_norm:g}, config.toml says {given:g}"))
        if not near(record.scale * record.clip_norm, first.scale * first.clip_norm):
            problems.append((at(record), "the grid did not stretch with the clip norm"))
        if not adaptive and not near(record.clip_norm, first.clip_norm):
            problems.append((at(record), f"clip norm {record.clip_norm:g}, {first.clip_norm:g} before"))
    if adaptive and not near(first.clip_norm, given):
        problems.append((at(first), f"starts at clip norm {first.clip_norm:g}, config.toml says {given:g}"))
    if case.report is not None and not near(case.report.privacy.clip_norm, first.clip_norm):
        problems.append(
            ("report.json", f"clip norm {case.report.privacy.clip_norm:g}, the log says {first.clip_norm:g}")
        )
    return judged(
        "A-13",
        (
            "The sensitivity is the clip norm that clients clip to",
            "The sensitivity is not the clip norm that clients clip to",
        ),
        problems,
        f"c = {first.clip_norm:g}",
        "z is noise over the norm that updates are really clipped to",
    )


def slack(case: Case) -> Finding:
    """A-14: the slack for rounding before summing is negligible."""
    derived = math.fsum(r.slack for r in case.worst)
    problems: list[Problem] = []
    if not derived <= MAX_SLACK * (1 + NEAR):
        problems.append(
            ("", f"aliasing slack {derived:.3g} is above {MAX_SLACK:g}: the noise is too small for the grid")
        )
    # histories may tie in ε to the last digit while κ, of 1e-43, differs: the ledger may have taken any of them
    ties = [
        math.fsum(r.slack for r in case.rounds_of(positions))
        for positions, (spent, _) in case.spent.items()
        if spent is not None and near(spent, case.server, 1e-9)
    ]
    if case.report is not None and not any(near(case.report.privacy.aliasing_slack, each) for each in (derived, *ties)):
        problems.append(
            ("report.json", f"aliasing slack {case.report.privacy.aliasing_slack:.3g}, derived {derived:.3g}")
        )
    return judged(
        "A-14",
        (
            "The slack for rounding before summing is negligible",
            "The slack for rounding before summing is not negligible, or not the one claimed",
        ),
        problems,
        f"κ = {derived:.3g}",
        "take a finer grid: σ_loc of 2 grid units and more",
    )


def ring(case: Case) -> Finding:
    """A-15: the ring holds the sums, with the headroom that the plan promised."""
    title = ("The ring holds the sums", "The ring does not hold the sums")
    if case.report is None:
        return unchecked("A-15", title, "the update's length stands in report.json, which cannot be read")
    chance = overflow_probability(case)
    if chance is None:
        problems = [("", f"uploads of {case.records[0].dimension} coordinates are neither the update nor its rotation")]
    elif chance > OVERFLOW_PROBABILITY * (1 + NEAR):
        problems = [("", f"a sum wraps with probability up to {chance:.3g}, planned {OVERFLOW_PROBABILITY:g}")]
    else:
        problems = []
    wraps = sum(r.record.overflowed or 0 for r in case.released)
    fine = f"any wrap in the run has a probability of at most {chance or 0:.2g}, planned {OVERFLOW_PROBABILITY:g}; "
    fine += f"{wraps} coordinates wrapped"
    return judged("A-15", title, problems, fine, "take more bits, or a coarser grid")


def overflow_probability(case: Case, ways: Sequence[bool] = (False, True)) -> float | None:
    """Bound on any wrap in the run's sums where updates may have been rotated (True) or not: the milder one of `ways`
    where the log does not say which.

    None for an impossible length. Unit `example`: the log does not hold the norm of a whole upload, so only the noise
    counts, and the bound is too low.
    """
    if case.report is None:
        return None
    update, bounds = case.report.communication.upload_values, []
    for rotated in ways:
        length = padded(update) if rotated else update
        total, possible = 0.0, True
        for r in (released.record for released in case.released):
            surplus = r.dimension - length
            possible &= surplus in {4**k for k in range(7)} if r.count_scale else surplus == 0
            if possible:
                total += _wraps(r, rotated, length, surplus)
        if possible:
            bounds.append(total)
    return min(bounds, default=None)


def _wraps(r: RoundRecord, rotated: bool, length: int, surplus: int) -> float:
    n = max(len(r.participants), 1)
    signal = n * r.clip_norm if r.unit == "client" else 0.0
    if r.sigma_local == 0:
        sure = signal * r.scale + n / 2 <= 2.0 ** (r.bits - 1)
        return 0.0 if sure or rotated else 1.0
    share = r.sigma_local / r.scale
    load = RingLoad(
        clients=n,
        reach=0.0 if rotated else signal,
        spread=signal / math.sqrt(length) if rotated else 0.0,
        sigma_local=share,
        deviation=share * math.sqrt(n),
    )
    total = length * overflow_bound(r.bits, load, r.scale)
    if surplus:
        reach = n * r.count_scale / r.scale / 2 / math.sqrt(surplus)
        bit = RingLoad(clients=n, reach=reach, spread=0.0, sigma_local=share, deviation=load.deviation)
        total += surplus * overflow_bound(r.bits, bit, r.scale)
    return total


def secret(case: Case) -> Finding:
    """A-16: the noise is secret, or it is said that it is not."""
    title, simulated = (
        ("The noise is secret", "The noise is not secret, or there is none"),
        case.config.privacy.simulation_noise,
    )
    problems: list[Problem] = []
    if not case.noisy:
        return judged("A-16", title, [], "no noise is claimed", "")
    if any(r.record.sigma_local == 0 for r in case.released):
        problems.append(("rounds.jsonl", f"a budget of ε = {case.config.privacy.epsilon:g}, but sums without noise"))
    if case.report is not None:
        told = case.report.provenance.secret_noise
        if told == simulated:
            problems.append(("report.json", f"secret_noise is {told}, config.toml says simulation_noise = {simulated}"))
        if simulated and case.released and "SIMULATED NOISE" not in case.report.privacy.statement:
            problems.append(("report.json", "the statement presents noise that follows from the seed as private"))
    if not problems and simulated:
        known = [("config.toml", "the noise follows from the seed: whoever knows it can subtract the noise")]
        return judged(
            "A-16",
            (title[0], "The noise is not secret, as is said"),
            known,
            "",
            "real data need a run without --simulation-noise",
            "warning",
        )
    return judged(
        "A-16", title, problems, "keys from the operating system", "say that the noise is not secret, or run again"
    )
