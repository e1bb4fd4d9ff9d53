"""Bounds on ε from guesses about canaries: known answers of jax_privacy, and what closed forms say."""

import math
from statistics import NormalDist

import pytest

from flora_secure.auditing.canaries.bounds import f_dp, one_run, one_shot
from flora_secure.privacy.accounting import gaussian_epsilon

SIGNIFICANCE = 0.05
# (canaries of each kind, mean of those in, guesses, δ) → right guesses, and the two bounds of jax_privacy 2.0.0
KNOWN = {
    (200, 1.0, 100, 1e-5): (79, 0.9032671099185843, 1.520671584036957),
    (500, 1.75, 250, 1e-5): (233, 2.1915755599297735, 3.6295995219669055),
    (50, 4.0, 25, 1e-3): (25, 1.7298937641015395, 2.7125528310695204),
    (30, 0.2, 15, 1e-5): (8, 0.0, 0.0),
}


def scores(count: int, mean: float) -> list[float]:
    """A Gaussian's quantiles: scores that are the same on every machine."""
    return [NormalDist(mean, 1).inv_cdf((place + 0.5) / count) for place in range(count)]


def threshold(case: tuple[int, float, int, float]) -> float:
    count, mean, guesses, _ = case
    return sorted(scores(count, mean) + scores(count, 0.0))[-guesses]


@pytest.mark.parametrize("case", KNOWN)
def test_bounds_are_those_of_jax_privacy(case: tuple[int, float, int, float]) -> None:
    count, mean, guesses, delta = case
    right = sum(score >= threshold(case) for score in scores(count, mean))
    found = (
        one_run(2 * count, guesses, right, delta, SIGNIFICANCE),
        f_dp(2 * count, guesses, right, delta, SIGNIFICANCE),
    )
    assert right == KNOWN[case][0]
    assert found == pytest.approx(KNOWN[case][1:], abs=1e-6)


@pytest.mark.parametrize("case", KNOWN)
def test_bounds_are_those_of_the_installed_jax_privacy(case: tuple[int, float, int, float]) -> None:
    peer = pytest.importorskip("jax_privacy.auditing", reason="pip install 'flora-secure[audit-peers]'")
    count, mean, guesses, delta = case
    auditor = peer.CanaryScoreAuditor(scores(count, mean), scores(count, 0.0))
    at = peer.Explicit(threshold(case))
    right = sum(score >= threshold(case) for score in scores(count, mean))
    theirs = [
        bound(SIGNIFICANCE, delta, threshold_strategy=at)
        for bound in (auditor.epsilon_one_run, auditor.epsilon_one_run_fdp)
    ]
    ours = [bound(2 * count, guesses, right, delta, SIGNIFICANCE) for bound in (one_run, f_dp)]
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_one_run_without_delta_is_a_binomial_tail() -> None:
    """All guesses right: q^r = 0.05 for the probability q = e^ε/(1 + e^ε) of a right guess."""
    q = 0.05 ** (1 / 100)
    assert one_run(400, 100, 100, 0.0, 0.05) == pytest.approx(math.log(q / (1 - q)), abs=1e-9)


def test_bounds_grow_with_right_guesses_and_shrink_with_confidence() -> None:
    for bound in (one_run, f_dp):
        rising = [bound(400, 100, right, 1e-5, 0.05) for right in (50, 70, 85, 95, 100)]
        assert rising == sorted(rising)
        assert rising[0] == 0.0
        assert rising[-1] > 2
        assert bound(400, 100, 95, 1e-5, 0.01) < rising[3]


def test_one_shot_is_exact_for_a_shift_and_sees_a_variance() -> None:
    assert one_shot(0.9, 1.0, 1e-5) == pytest.approx(gaussian_epsilon(0.9, 1e-5), abs=1e-8)
    assert one_shot(0.0, 1.0, 1e-5) == 0.0
    assert one_shot(0.9, 1.1, 1e-5) > one_shot(0.9, 1.0, 1e-5)
    assert one_shot(0.0, 0.8, 1e-5) > 0.3


@pytest.mark.parametrize(("mean", "deviation"), [(0.9, 1.1), (0.5, 0.7), (0.0, 1.3)])
def test_one_shot_is_where_the_gap_of_both_densities_is_delta(mean: float, deviation: float) -> None:
    """Against sums over a grid of what one density has above e^ε times the other."""
    delta, step = 1e-4, 1e-4
    epsilon = one_shot(mean, deviation, delta)
    there, back = NormalDist(mean, deviation), NormalDist(0, 1)
    points = [-12 + step * place for place in range(240_000)]
    factor = math.exp(epsilon)
    gaps = [
        step * sum(max(0.0, one.pdf(x) - factor * other.pdf(x)) for x in points)
        for one, other in ((there, back), (back, there))
    ]
    assert max(gaps) == pytest.approx(delta, rel=1e-3)
