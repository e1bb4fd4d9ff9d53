"""How sampled rounds are counted: privacy loss distributions (PLD), composed by dp-accounting.

Two kinds of sampling, never taken for each other. *Poisson*: each example enters by a coin of its own that only its
client sees; the noise does not depend on the coin, so the textbook event holds against the server too. *Cohorts of
known size*: given their number, the survivors of a round are a uniform subset of the clients, which outsiders do not
know. A client that is not in the subset leaves its place to another one, so neighbouring sums may lie 2c apart:
docs/privacy/accounting.md, "Outsiders".
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping

import dp_accounting
from dp_accounting import pld

from flora_secure.privacy.events import RoundEvent

REPORT_CELL, CALIBRATION_CELL = 1e-4, 1e-3  # widths of a privacy-loss cell; both round the loss up
ZERO_OUT = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
_CELLS = 2e6  # of a distribution, at most and roughly: larger losses get wider cells, and a second stays a second
_DISTINCT = 20  # more noise multipliers than these are first rounded down to steps of a thousandth
_STEP = 1e-3
_TOLERANCE = 1e-6  # of z, in calibration

Counts = Mapping[tuple[float, float], int]  # (noise multiplier, sampling rate) → rounds


def counts_of(events: Iterable[RoundEvent], *, local: bool = False) -> Counter[tuple[float, float]]:
    """The rounds by noise multiplier and sampling rate; `local` for one client's uploads by themselves."""
    return Counter((e.noise_multiplier_local if local else e.noise_multiplier, e.sampling_rate) for e in events)


def poisson_epsilon(counts: Counts, delta: float, cell: float = REPORT_CELL) -> float:
    """ε at `delta` of Gaussian rounds, each unit in each round with its own secret coin, zero-out adjacency.

    Args:
        counts: (z, q) → number of rounds, q in (0, 1]. Order does not matter. Beyond 20 different pairs, z is rounded
            down by at most a thousandth of itself, which overstates ε.
        delta: between 0 and 1.
        cell: width of a privacy-loss cell; more for losses above 2e6 cells. An upper bound for every width.

    Returns:
        ε >= 0; infinity if a round adds no noise.

    Source: Doroshenko et al. 2207.04380; dp-accounting's PLDAccountant.
    """
    return _poisson_epsilon(frozenset(_rounded(counts).items()), delta, cell)


@functools.lru_cache(maxsize=1024)
def _poisson_epsilon(counts: frozenset[tuple[tuple[float, float], int]], delta: float, cell: float) -> float:
    if any(z == 0 for (z, _), _ in counts):
        return math.inf
    # what the same rounds cost without sampling: no loss that matters is larger
    mu = math.sqrt(math.fsum(count / z / z for (z, _), count in counts))
    most = float(dp_accounting.get_epsilon_gaussian(1 / mu, delta)) if counts else 0.0
    accountant = pld.PLDAccountant(ZERO_OUT, max(cell, most / _CELLS))
    for (z, q), count in sorted(counts):
        accountant.compose(gaussian_event(z, q), count)
    return float(accountant.get_epsilon(delta))


def gaussian_event(noise_multiplier: float, sampling_rate: float) -> dp_accounting.DpEvent:
    """One of our rounds as an event of dp-accounting: a Gaussian, Poisson-sampled where the rate is below 1."""
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    return event if sampling_rate == 1 else dp_accounting.PoissonSampledDpEvent(sampling_rate, event)


def poisson_noise_multiplier(epsilon: float, delta: float, rounds: int, sampling_rate: float) -> float:
    """The least z, to a millionth, for which `rounds` rounds sampled at rate q stay within (epsilon, delta).

    Counted with CALIBRATION_CELL, so that the finer cells of the report find a little less. About a second.

    Args:
        epsilon: > 0, finite. delta: between 0 and 1. rounds: >= 1. sampling_rate: q in (0, 1).
    """

    def enough(z: float) -> bool:
        return poisson_epsilon({(z, sampling_rate): rounds}, delta, CALIBRATION_CELL) <= epsilon

    # Without sampling the closed form is enough, so the root is below it.
    high = float(dp_accounting.get_sigma_gaussian(epsilon, delta)) * math.sqrt(rounds) * (1 + 1e-3)
    if not enough(high):  # cells of a thousandth are too wide for so small an epsilon
        raise ValueError(f"epsilon {epsilon:g} at delta {delta:g} is too small to be counted in cells: allow more")
    low = high / 2
    while enough(low):
        low, high = low / 2, low
    while high - low > _TOLERANCE * high:
        middle = math.sqrt(low * high)
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def cohort_epsilon(events: Iterable[RoundEvent], delta: float, cell: float = REPORT_CELL) -> float:
    """ε at `delta` for outsiders, who see how many survived each round but not who, any client counted in every round.

    A round with `population` N and k survivors counts as k of N drawn without replacement; a round without a
    population counts in full. Aliasing slack is not included.

    Source: dp-accounting's TruncatedSubsampledGaussianDpEvent at sampling probability 1 (2508.15089, section 3): all N
    are drawn and k of them kept.
    """
    fixed: Counter[tuple[int, int, float]] = Counter()
    full: Counter[tuple[float, float]] = Counter()
    for e in events:
        if e.population is None or e.population == e.survivors or e.sampling_rate < 1:
            full[e.noise_multiplier, e.sampling_rate] += 1
        else:
            fixed[e.population, e.survivors, e.noise_multiplier] += 1
    return _cohort_epsilon(frozenset(fixed.items()), frozenset(_rounded(full).items()), delta, cell)


@functools.lru_cache(maxsize=64)
def _cohort_epsilon(
    fixed: frozenset[tuple[tuple[int, int, float], int]],
    full: frozenset[tuple[tuple[float, float], int]],
    delta: float,
    cell: float,
) -> float:
    accountant = pld.PLDAccountant(ZERO_OUT, cell)
    for (population, survivors, z), count in sorted(fixed):
        accountant.compose(dp_accounting.TruncatedSubsampledGaussianDpEvent(population, 1.0, survivors, z), count)
    for (z, q), count in sorted(full):
        accountant.compose(gaussian_event(z, q), count)
    return float(accountant.get_epsilon(delta))


def _rounded(counts: Counts) -> Counts:
    if len(counts) <= _DISTINCT:
        return counts
    found: Counter[tuple[float, float]] = Counter()
    for (z, q), count in counts.items():
        found[math.exp(_STEP * math.floor(math.log(z) / _STEP)) * (1 - 1e-12) if z > 0 else 0.0, q] += count
    return found
