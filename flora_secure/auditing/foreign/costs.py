"""What rounds cost in ε, tightly and by Rényi divergences, for each adjacency and way of sampling."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import dp_accounting
from dp_accounting import pld, rdp

from flora_secure.auditing.foreign.log import REPLACE_ONE
from flora_secure.privacy.accounting import gaussian_epsilon, gaussian_mu
from flora_secure.privacy.amplification import REPORT_CELL, ZERO_OUT, gaussian_event

_CELLS, _DISTINCT = 1e5, 20  # cells of a loss distribution, roughly; of different steps
MOST_FOR_PLD = 20_000  # sampled steps, which take seconds
_ORDERS = (*range(2, 65), 128, 256, 512)
_RELATION = dp_accounting.NeighboringRelation.REPLACE_ONE


class Step(NamedTuple):
    """A release with noise multiplier `z` against one clipped contribution.

    `rate`: of secret Poisson sampling by which the noise does not change. `kept`, `among`: the contributors are so many
    of so many, uniformly drawn, and how many they are is known; 1 of 1 where nothing is drawn.
    """

    z: float
    rate: float = 1.0
    kept: int = 1
    among: int = 1

    @property
    def plain(self) -> bool:
        """Whether nothing is sampled."""
        return self.rate == 1 and self.kept == self.among


Steps = Mapping[Step, int]


def tight(steps: Steps, delta: float, adjacency: str, cell: float = REPORT_CELL) -> float:
    """ε at `delta` of these steps: the closed form, or privacy loss distributions where something is sampled; beyond
    `MOST_FOR_PLD` sampled ones Rényi divergences, some 10 % above.

    Args:
        steps: step → how often. Beyond 20 different ones that are sampled, all count as the costliest: an upper bound.
        delta: between 0 and 1. adjacency: a word of the log; replacing one moves a sum by two clip norms.
        cell: width of a privacy-loss cell; more for large losses. An upper bound for every width.
    """
    if any(step.z == 0 for step in steps):
        return math.inf
    if all(step.plain for step in steps):
        return gaussian_epsilon(_mu(steps) * _far(steps, adjacency), delta)
    if sum(steps.values()) > MOST_FOR_PLD:
        return min(loose(steps, delta, adjacency), gaussian_epsilon(_mu(steps) * _far(steps, adjacency), delta))
    return _by_pld(frozenset(_few(steps).items()), delta, adjacency, cell)


def loose(steps: Steps, delta: float, adjacency: str) -> float:
    """The same by Rényi divergences, whatever the number of steps; of cohorts of known size, as sampling without
    replacement. The most that an accountant which other systems use makes of these steps."""
    if any(step.z == 0 for step in steps):
        return math.inf
    replaced = adjacency == REPLACE_ONE
    fixed = any(step.kept < step.among for step in steps)
    sampled = any(not step.plain for step in steps)
    relation = _RELATION if fixed else ZERO_OUT
    accountant = rdp.RdpAccountant(_ORDERS if sampled else None, relation)
    for step, count in _few(steps).items():
        # dp-accounting counts z against the distance of neighbours, which replacing, or a changed place, doubles
        z = step.z / 2 if replaced or step.kept < step.among else step.z
        event = gaussian_event(z, step.rate)
        if step.kept < step.among:
            event = dp_accounting.SampledWithoutReplacementDpEvent(step.among, step.kept, event)
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))


def _far(steps: Steps, adjacency: str) -> float:
    """How many clip norms neighbouring sums lie apart at most: two, where a contribution or a place is another's."""
    return 2.0 if adjacency == REPLACE_ONE or any(step.kept < step.among for step in steps) else 1.0


def _mu(steps: Steps) -> float:
    return math.sqrt(math.fsum(count / step.z**2 for step, count in steps.items()))


def _few(steps: Steps) -> Steps:
    if len(steps) <= _DISTINCT:
        return steps
    share = max(step.kept / step.among for step in steps)
    kept = next((step.kept, step.among) for step in steps if step.kept / step.among == share)
    worst = Step(min(step.z for step in steps), max(step.rate for step in steps), *kept)
    return Counter({worst: sum(steps.values())})


@functools.lru_cache(maxsize=256)
def _by_pld(steps: frozenset[tuple[Step, int]], delta: float, adjacency: str, cell: float) -> float:
    far = _far(dict(steps), adjacency)
    most = gaussian_epsilon(_mu(dict(steps)) * far, delta)  # what they cost without sampling
    one = max(gaussian_epsilon(far / step.z, delta) for step, _ in steps)
    upper = min(most, max(one, loose(dict(steps), delta, adjacency)))
    accountant = pld.PLDAccountant(_RELATION if adjacency == REPLACE_ONE else ZERO_OUT, max(cell, upper / _CELLS))
    for step, count in sorted(steps):
        event = gaussian_event(step.z, step.rate)
        if step.kept < step.among:
            event = dp_accounting.TruncatedSubsampledGaussianDpEvent(step.among, 1.0, step.kept, step.z)
        accountant.compose(event, count)
    return min(most, float(accountant.get_epsilon(delta)))


def central_limit(steps: Steps, delta: float) -> float:
    """ε by the central limit theorem for Poisson sampling, an approximation that may be too small (Bu et al.
    1911.11607): what Opacus' "gdp" accountant answers. For one kind of step."""
    ((step, count),) = steps.items()
    if step.z == 0 or step.z**-2 > 700:
        return math.inf
    return gaussian_epsilon(step.rate * math.sqrt(count * math.expm1(step.z**-2)), delta)


def sum_of(multipliers: Mapping[float, int]) -> float:
    """The noise multiplier of one release that costs what all of these cost; 0 where one has no noise."""
    if any(z == 0 for z in multipliers):
        return 0.0
    mu = gaussian_mu(z / math.sqrt(count) for z, count in multipliers.items())
    return 1 / mu if mu else math.inf
