"""What attacks are measured by: proportions, curves of true over false positives, what ε allows of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.attacked import CONFIDENCE
from flora_secure.auditing.rederivation.derivation import Case

Floats = NDArray[np.float64]
_NORMAL = NormalDist()
RESAMPLES = 4000


def proportion(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson 1934), at least as wide as its confidence says."""
    tail = (1 - confidence) / 2

    def at_most(k: int, p: float) -> float:
        logs = [_log_choose(trials, i) + i * math.log(p) + (trials - i) * math.log1p(-p) for i in range(k + 1)]
        return math.fsum(map(math.exp, logs))

    low = 0.0 if hits == 0 else _solve(lambda p: at_most(hits - 1, p) > 1 - tail)
    high = 1.0 if hits == trials else _solve(lambda p: at_most(hits, p) > tail)
    return low, high


def at_least(heads: int, tosses: int) -> float:
    """How likely a fair coin shows so many heads or more: the sign test of pairs."""
    return min(
        1.0, math.fsum(math.exp(_log_choose(tosses, k) - tosses * math.log(2)) for k in range(heads, tosses + 1))
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _solve(below: Callable[[float], bool]) -> float:
    """Where a monotone condition ends to hold, between 0 and 1."""
    low, high = 1e-12, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Allowed:
    """The most true positives that a run's rounds allow at each rate of false ones.

    Attributes:
        mu: of the Gaussian mechanism that the worst client's rounds compose to; None where examples were sampled, which
            has no closed form.
        epsilon, delta: what they cost together.
    """

    mu: float | None
    epsilon: float
    delta: float

    @classmethod
    def of(cls, case: Case) -> Allowed:
        """What the log of a run allows against a server that sees every sum. Without noise it allows everything."""
        rounds = case.worst
        if not rounds or any(r.z == 0 for r in rounds):
            return cls(None, math.inf, case.delta)
        mu = None if case.sampled else math.sqrt(math.fsum(r.z**-2 for r in rounds))
        return cls(mu, case.server, case.delta)

    def true(self, false: float) -> float:
        """At most so many true positives at this rate of `false` ones (Dong, Roth and Su, 1905.02383, section 2)."""
        if self.epsilon == math.inf:
            return 1.0
        if self.mu is not None:
            if not 0 < false < 1:
                return float(false >= 1)
            return min(1.0, _NORMAL.cdf(_NORMAL.inv_cdf(false) + self.mu))
        low = min(1.0, math.exp(self.epsilon) * false + self.delta)
        return min(low, 1 - math.exp(-self.epsilon) * (1 - self.delta - false))

    @property
    def area(self) -> float:
        """The most area under that curve."""
        if self.mu is not None:
            return _NORMAL.cdf(self.mu / math.sqrt(2))
        grid = np.linspace(0, 1, 10_001)
        curve = np.array([self.true(x) for x in grid.tolist()])
        return float(((curve[1:] + curve[:-1]) / 2 * np.diff(grid)).sum())


@dataclass(frozen=True, eq=False)
class Curve:
    """True positives over false ones of scores of targets in many federations.

    Attributes:
        false, true: rates, ascending, from the highest score on.
    """

    false: Floats
    true: Floats

    @classmethod
    def of(cls, inside: NDArray[np.bool_], weights: Floats) -> Curve:
        """The curve of targets in the order of their scores, the highest first; `weights` count them."""
        positive, negative = np.cumsum(weights * inside), np.cumsum(weights * ~inside)
        return cls(negative / max(negative[-1], 1e-300), positive / max(positive[-1], 1e-300))

    @property
    def area(self) -> float:
        """The area under it: how often who is in scores higher than who is not."""
        return float((np.diff(self.false, prepend=0.0) * self.true).sum())

    def at(self, false: float) -> float:
        """True positives at this rate of false ones, or at the last one below."""
        place = int(np.searchsorted(self.false, false, side="right"))
        return float(self.true[place - 1]) if place else 0.0


def measured(
    scores: Floats, inside: NDArray[np.bool_], rates: tuple[float, ...], rng: np.random.Generator
) -> tuple[Curve, dict[float | None, tuple[float, float, float]]]:
    """The curve of `scores` (federations, targets), and its area (key None) and values at `rates`, with intervals.

    Federations and targets are both drawn anew (Owen 2007, the pigeonhole bootstrap), since the scores of one
    federation, and those of one target, depend on each other.
    """
    order = np.argsort(-scores, axis=None)
    federation, target = np.unravel_index(order, scores.shape)
    sorted_in = inside.ravel()[order]
    curve = Curve.of(sorted_in, np.ones(len(order)))
    drawn = []
    for _ in range(max(200, min(RESAMPLES, 40_000_000 // len(order)))):
        of_federation = rng.multinomial(scores.shape[0], np.full(scores.shape[0], 1 / scores.shape[0]))
        of_target = rng.multinomial(scores.shape[1], np.full(scores.shape[1], 1 / scores.shape[1]))
        again = Curve.of(sorted_in, (of_federation[federation] * of_target[target]).astype(np.float64))
        drawn.append([again.area, *(again.at(rate) for rate in rates)])
    ends = np.quantile(np.array(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    values = [curve.area, *(curve.at(rate) for rate in rates)]
    keys: list[float | None] = [None, *rates]
    return curve, {
        key: (value, min(value, float(low)), max(value, float(high)))
        for key, value, low, high in zip(keys, values, *ends, strict=True)
    }
