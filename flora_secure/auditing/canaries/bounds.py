"""Lower bounds on ε from one run with canaries, of which some guesses are right; and an estimate that is no bound.

The two bounds equal those of jax_privacy's `CanaryScoreAuditor` on the same guesses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.special import bdtrc, expit, ndtr, ndtri

from flora_secure.privacy.accounting import gaussian_epsilon

_STEPS = 60  # of bisection


def one_run(canaries: int, guesses: int, right: int, delta: float, significance: float) -> float:
    """The largest ε that is refuted at `delta` by so many `right` of so many `guesses` about `canaries`; 0 for none.

    Holds for every (ε, δ) mechanism. `significance`: probability that a mechanism which keeps ε seems not to.
    Source: Steinke, Nasr and Jagielski, 2305.08846, theorem 5.2.
    """

    def refuted(epsilon: float) -> bool:
        q = float(expit(epsilon))
        beta = _at_least(right, guesses, q)
        fewer = np.arange(1, right + 1)
        alpha = float(((_at_least_each(right - fewer, guesses, q) - beta) / fewer).max(initial=0.0))
        return beta + 2 * alpha * delta * canaries < significance

    return _largest(refuted)


def f_dp(canaries: int, guesses: int, right: int, delta: float, significance: float) -> float:
    """The bound of `one_run` for Gaussian mechanisms, of which ε at `delta` is one name: all of their curve is used.

    Source: Mahloujifar, Melis and Chaudhuri, 2410.22235, algorithm 3.
    """

    def refuted(mu: float) -> bool:
        r, h = significance * right / canaries, significance * (guesses - right) / canaries
        for i in range(right - 1, -1, -1):
            higher = max(h, float(ndtr(ndtri(r) - mu)))
            if higher == h:
                break
            r = min(r + i / (guesses - i) * (higher - h), 1.0)
            h = higher
        return r + h > guesses / canaries

    mu = _largest(refuted)
    return gaussian_epsilon(mu, delta)


def one_shot(mean: float, deviation: float, delta: float) -> float:
    """ε at `delta` between N(0, 1) and N(`mean`, `deviation`²), whichever of both is the neighbour.

    What scores of canaries that are in would say were they exactly Gaussian, and their mean and deviation known: an
    estimate. Source: Andrew et al., 2302.03098, section 3.
    """

    def passes(epsilon: float) -> bool:
        there = _gap(mean, deviation, epsilon)
        back = _gap(-mean / deviation, 1 / deviation, epsilon)
        return max(there, back) > delta

    return _largest(passes)


def _gap(mean: float, deviation: float, epsilon: float) -> float:
    """P(A) − e^ε·Q(A) at its largest, P = N(mean, deviation²), Q = N(0, 1): A is where ln(P/Q) > ε."""
    a, b = (1 - deviation**-2) / 2, mean / deviation**2
    c = -math.log(deviation) - mean**2 / (2 * deviation**2) - epsilon
    if abs(a) < 1e-12:
        edges = [] if b == 0 else [-c / b]
    else:
        root = b * b - 4 * a * c
        edges = [] if root <= 0 else sorted((-b + sign * math.sqrt(root)) / (2 * a) for sign in (-1, 1))
    bounds, gap = [-math.inf, *edges, math.inf], 0.0
    for low, high in pairwise(bounds):
        inside = 0.0 if (low, high) == (-math.inf, math.inf) else _between(low, high)
        if a * inside**2 + b * inside + c > 0:
            p = _mass((low - mean) / deviation, (high - mean) / deviation)
            gap += p - math.exp(min(epsilon, 700.0)) * _mass(low, high)
    return gap


def _between(low: float, high: float) -> float:
    if low == -math.inf:
        return high - 1.0
    return low + 1.0 if high == math.inf else (low + high) / 2


def _mass(low: float, high: float) -> float:
    """Of a standard Gaussian; the tail that is nearer, so that small ones stay exact."""
    return float(ndtr(-low) - ndtr(-high) if low > 0 else ndtr(high) - ndtr(low))


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest number >= 0 for which it holds, of something that holds up to there; 0 where it never does."""
    low, high = 0.0, 1.0
    if not holds(1e-12):
        return 0.0
    while holds(high) and high < 1e6:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _at_least(count: int, guesses: int, q: float) -> float:
    """Probability of so many right ones, or more, of guesses that are right with probability q each."""
    return 1.0 if count <= 0 else float(bdtrc(count - 1, guesses, q))


def _at_least_each(counts: np.ndarray, guesses: int, q: float) -> np.ndarray:
    return np.where(counts <= 0, 1.0, bdtrc(np.maximum(counts - 1, 0), guesses, q))
