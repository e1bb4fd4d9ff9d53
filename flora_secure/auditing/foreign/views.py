"""From a foreign log to ε: what follows for the server, for an outsider and for single uploads, under a reading of it.

A reading is the log as it stands, or as somebody reads it who makes a mistake: claims are compared with both.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from flora_secure.auditing.foreign.costs import MOST_FOR_PLD, Step, loose, tight
from flora_secure.auditing.foreign.log import (
    CLIENTS,
    EXAMPLE,
    FIXED,
    MEAN,
    NO_MECHANISM,
    OUTSIDER,
    POISSON,
    SECURE,
    SERVER,
    SHUFFLED,
    SPARSE,
    SUM,
    UPLOAD,
    ZERO_OUT,
    ForeignLog,
    Rounds,
)
from flora_secure.auditing.foreign.sparse import sparse_epsilon
from flora_secure.privacy.amplification import CALIBRATION_CELL

_KEPT = 10**6  # a rate of batches of fixed size, where their size is not known


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a log is read. `nominal`: z as the system says it, whatever noise, clip norm and contributors imply.
    `count_noise`: the count that adaptive clipping releases costs something. `amplified`: cohorts are a secret; `None`
    for what the view allows. `rounds`: those of a single unit; `None` for what the log says. `stretch`: z is taken for
    so many times what it is."""

    nominal: bool = False
    count_noise: bool = True
    amplified: bool | None = None
    rounds: int | None = None
    stretch: float = 1.0


AS_IT_STANDS = Reading()


def multiplier(log: ForeignLog, run: Rounds, reading: Reading = AS_IT_STANDS) -> float | None:
    """The noise multiplier z of a released sum: its noise ÷ clip norm, with the count of adaptive clipping; `None`
    where nothing says it."""
    z = None if reading.nominal else derived_multiplier(log, run)
    if z is None and (z := run.noise_multiplier) is not None and not reading.nominal:
        z /= _wider(log, run)
    return z if z is None or not reading.count_noise else _with_count(z, run)


def derived_multiplier(log: ForeignLog, run: Rounds) -> float | None:
    """The noise multiplier that noise, clip norm and contributors imply, of the update alone; `None` where one of them
    is not known."""
    clip = run.clip or log.clip
    if run.noise is None or clip is None:
        return None
    if log.unit == EXAMPLE or (log.noise_on == SUM and log.noise_by != CLIENTS):
        return run.noise / clip
    if log.noise_by == CLIENTS:
        return None if run.present is None else run.noise * math.sqrt(run.present) / clip
    divisor = run.divisor or run.present
    return run.noise * divisor / clip if log.noise_on == MEAN and divisor else None


def upload_multiplier(log: ForeignLog, run: Rounds) -> float | None:
    """The noise multiplier of one upload by itself; 0 where clients add nothing, `None` where nothing says it."""
    if log.unit == EXAMPLE:
        return 0.0 if log.noise_by == SERVER else multiplier(log, run)
    if log.noise_by != CLIENTS:
        return 0.0 if log.noise_by == SERVER else None
    clip = run.clip or log.clip
    if run.noise is not None and clip is not None:
        return run.noise / clip
    z = run.noise_multiplier
    return None if z is None or run.present is None else z / math.sqrt(run.present) / _wider(log, run)


def _wider(log: ForeignLog, run: Rounds) -> float:
    """How much more a round clips to than the norm that z is said for; 1 where that adapts, or is not known."""
    fixed = log.clip is not None and run.clip is not None and not log.adaptive_clip
    return max(1.0, (run.clip or 1.0) / (log.clip or 1.0)) if fixed else 1.0


def _with_count(z: float, run: Rounds) -> float:
    if run.count_noise is None or z == 0:
        return z
    return 0.0 if run.count_noise == 0 else (z**-2 + (2 * run.count_noise) ** -2) ** -0.5


def by_upload(log: ForeignLog, view: str) -> bool:
    """Whether this observer's view is of single uploads."""
    return view == UPLOAD or (view == SERVER and log.aggregation != SECURE)


def amplifies(log: ForeignLog, view: str, reading: Reading = AS_IT_STANDS) -> bool:
    """Whether sampling of cohorts makes anything smaller for this view: for outsiders alone, if it is a secret."""
    if log.unit == EXAMPLE or log.sampling not in (FIXED, POISSON) or log.population is None:
        return False
    return (view == OUTSIDER and log.secret_sampling is True) if reading.amplified is None else reading.amplified


def steps_of(log: ForeignLog, view: str, reading: Reading = AS_IT_STANDS) -> Counter[Step] | None:
    """The releases that the costliest unit took part in, as this observer sees them; `None` where z is not known."""
    found: Counter[Step] = Counter()
    each: dict[int | str, Counter[Step]] = defaultdict(Counter)
    named = all(run.participants is not None for run in log.rounds)
    sampled = amplifies(log, view, reading)
    for run in log.rounds:
        local = by_upload(log, view) and log.unit != EXAMPLE
        z = upload_multiplier(log, run) if local and not reading.nominal else multiplier(log, run, reading)
        if z is None:
            return None
        z *= reading.stretch
        step = _sampled(log, run, z) if sampled or log.unit == EXAMPLE else Step(z)
        times = run.times
        if log.unit == EXAMPLE and log.sampling == SHUFFLED:  # once an epoch, in a batch that is no secret
            times, step = math.ceil(times * (run.sampling_rate or 1.0) - 1e-9), Step(z)
        found[step] += times
        for member in run.participants or () if named and not sampled else ():
            each[member][step] += times
    if each:
        found = max(each.values(), key=lambda steps: (0 in [s.z for s in steps], _cost(steps)))
    most = reading.rounds if reading.rounds is not None else None if each or sampled else log.most_rounds
    return found if most is None else _costliest(found, most)


def _cost(steps: Counter[Step]) -> float:
    return math.fsum(count / step.z**2 for step, count in steps.items() if step.z)


def _costliest(steps: Counter[Step], most: int) -> Counter[Step]:
    kept: Counter[Step] = Counter()
    for step in sorted(steps):  # by z: the least noise first
        kept[step] = min(steps[step], most - kept.total())
        if kept.total() >= most:
            break
    return +kept


def _sampled(log: ForeignLog, run: Rounds, z: float) -> Step:
    if log.unit == EXAMPLE:
        rate = run.sampling_rate or 1.0
        if log.sampling == FIXED and rate < 1:
            kept = (log.batch, log.examples) if log.batch and log.examples else (max(1, round(rate * _KEPT)), _KEPT)
            return Step(z, 1.0, min(kept), kept[1])
        return Step(z, rate)
    if run.present is None or log.population is None or run.present >= log.population:
        return Step(z)
    steady = log.noise_by == SERVER and (log.noise_on == SUM or run.divisor is not None)
    if log.sampling == POISSON and steady:
        return Step(z, min(1.0, (run.cohort or run.present) / log.population))  # more than there are: F-01 says so
    return Step(z, 1.0, run.present, log.population)


def least_rounds(log: ForeignLog) -> int:
    """Rounds that some client was in whatever cohorts were drawn, since contributions have to come from somebody."""
    if log.population is None or log.unit == EXAMPLE or any(run.present is None for run in log.rounds):
        return min(1, log.times) if log.unit != EXAMPLE else log.times
    total = sum(run.times * min(run.present or 0, log.population) for run in log.rounds)
    return -(-total // log.population)


def epsilon(log: ForeignLog, view: str, delta: float, adjacency: str | None, reading: Reading = AS_IT_STANDS) -> float:
    """ε of this view; infinity where nothing bounds it, NaN where the log does not say enough.

    Args:
        log: with rounds. view: SERVER, OUTSIDER or UPLOAD. delta: between 0 and 1; 0 for sparse-vector filters.
        adjacency: `None` counts as zero-out.
    """
    steps = _steps_or_value(log, view, delta, adjacency or ZERO_OUT, reading)
    return steps if isinstance(steps, float) else tight(steps, delta, adjacency or ZERO_OUT)


def span(
    log: ForeignLog, view: str, delta: float, adjacency: str | None, reading: Reading = AS_IT_STANDS
) -> tuple[float, float]:
    """From the tightest ε to that of Rényi divergences, which other systems publish. As `epsilon`; beyond
    `MOST_FOR_PLD` rounds the first is a share of the second that no figure was seen below."""
    steps = _steps_or_value(log, view, delta, adjacency or ZERO_OUT, reading)
    if isinstance(steps, float):
        return steps, steps
    upper = loose(steps, delta, adjacency or ZERO_OUT)
    if steps.total() > MOST_FOR_PLD:
        return upper * 0.85, upper
    return tight(steps, delta, adjacency or ZERO_OUT, CALIBRATION_CELL), upper


def _steps_or_value(
    log: ForeignLog, view: str, delta: float, adjacency: str, reading: Reading
) -> Counter[Step] | float:
    """The steps to count, or what is known without counting."""
    if log.mechanism == NO_MECHANISM or log.noise_before_clip:  # unclipped, nothing bounds what one unit moves
        return math.inf
    if log.noise_by == SERVER and view != OUTSIDER:  # it has the sum, and what was uploaded, before there is noise
        return math.inf
    if log.mechanism == SPARSE:
        times = log.times if reading.rounds is None else reading.rounds
        return math.nan if log.sparse is None else sparse_epsilon(log.sparse, times, delta, adjacency)
    steps = steps_of(log, view, reading)
    return steps if steps and 0 < delta < 1 else math.nan
