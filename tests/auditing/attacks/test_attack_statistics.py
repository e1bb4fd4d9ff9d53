"""Intervals, curves and what ε allows, against figures of others and formulas written out."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import beta, binom

from flora_secure.auditing.attacks.membership import likelihoods
from flora_secure.auditing.attacks.statistics import Allowed, Curve, at_least, measured, proportion

NORMAL = NormalDist()


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (5, 10), (10, 10), (1, 156), (1523, 2512)])
def test_exact_intervals_are_those_of_the_beta_distribution(hits: int, trials: int) -> None:
    for confidence in (0.95, 0.999):
        tail = (1 - confidence) / 2
        low = beta.ppf(tail, hits, trials - hits + 1) if hits else 0.0
        high = beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
        assert proportion(hits, trials, confidence) == pytest.approx((low, high), abs=1e-9)


def test_the_sign_test_is_that_of_the_binomial_distribution() -> None:
    assert at_least(0, 0) == 1.0
    assert [at_least(heads, 12) for heads in (0, 9, 12)] == pytest.approx(binom.sf([-1, 8, 11], 12, 0.5).tolist())


def test_what_a_gaussian_mechanism_allows() -> None:
    allowed = Allowed(0.92493, 4.0, 1e-5)  # ε = 4 at δ = 1e-5
    assert allowed.area == pytest.approx(0.743452, abs=1e-5)
    assert allowed.true(0.01) == pytest.approx(0.080544, abs=1e-5)
    # nowhere more than its ε and δ by themselves
    plain = Allowed(None, 4.0, 1e-5)
    assert all(allowed.true(x) <= plain.true(x) + 1e-5 for x in np.logspace(-6, -0.01, 50).tolist())
    assert plain.true(1e-3) == pytest.approx(math.exp(4) * 1e-3 + 1e-5)
    assert plain.area > allowed.area
    assert Allowed(None, math.inf, 1e-5).true(0.0) == 1.0


def test_a_curve_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, inside = rng.normal(size=300), rng.random(300) < 0.3
    curve = Curve.of(inside[np.argsort(-scores)], np.ones(300))
    pairs = scores[inside][:, None] > scores[~inside][None]
    assert curve.area == pytest.approx(pairs.mean())
    beyond = np.sort(scores[~inside])[::-1][int(0.1 * (~inside).sum())]
    assert curve.at(0.1) == pytest.approx((scores[inside] > beyond).mean())


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_likelihood_ratio_reaches_what_there_is(shift: float) -> None:
    """Scores that are Gaussian, a target's own mean apart: the area is Φ(shift/√2), less what 63 others cannot tell.
    The interval misses once in a thousand by its nominal rate; the seed is fixed."""
    rng = np.random.default_rng(1)
    inside = rng.random((64, 100)) < 0.5
    scores = rng.normal(size=(64, 100)) + 5 * rng.normal(size=100) + shift * inside
    ratios, coins = likelihoods(scores, inside)
    _, figures = measured(ratios, coins, (0.01,), rng)
    value, low, high = figures[None]
    assert low <= value <= high
    assert (low > 0.5) == (shift > 0)
    assert NORMAL.cdf(shift / math.sqrt(2)) - 0.04 < value < NORMAL.cdf(shift / math.sqrt(2)) + 0.03
