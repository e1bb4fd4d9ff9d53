import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from flora_secure.planning.participation import (
    FixedCohort,
    PoissonCohort,
    TooFewEligibleError,
    binomial_range,
    draw_cohort,
    eligible,
)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_seed_decides_the_cohort() -> None:
    everyone = eligible(1000, 1, {})
    for scheme in (PoissonCohort(0.1), FixedCohort(100)):
        first = draw_cohort(rng(7, 1), scheme, everyone)
        assert first == draw_cohort(rng(7, 1), scheme, everyone)
        assert first != draw_cohort(rng(7, 2), scheme, everyone)
        assert list(first) == sorted(set(first))
        assert set(first) <= set(everyone)


def test_fixed_cohorts_are_uniform_subsets_and_poisson_cohorts_independent_coins() -> None:
    """10,000 draws from 6 clients. Every bound is 5 standard errors: a correct sampler fails for 1 seed in 10^4."""
    g, draws = rng(3), 10_000
    pairs = np.zeros((6, 6))
    for _ in range(draws):
        cohort = draw_cohort(g, FixedCohort(2), range(6))
        assert len(cohort) == 2
        pairs[cohort] += 1
    found = pairs[np.triu_indices(6, 1)] / draws
    assert np.abs(found - 1 / 15).max() < 5 * math.sqrt(1 / 15 * 14 / 15 / draws)
    taken = np.zeros((draws, 6))
    for row in taken:
        row[list(draw_cohort(g, PoissonCohort(0.3), range(6)))] = 1
    assert np.abs(taken.mean(axis=0) - 0.3).max() < 5 * math.sqrt(0.21 / draws)
    assert np.abs(np.corrcoef(taken.T)[np.triu_indices(6, 1)]).max() < 5 / math.sqrt(draws)


@settings(max_examples=50)
@given(st.integers(1, 8), st.integers(1, 20), st.integers(0, 2**31))
def test_minimum_separation_is_kept(separation: int, rounds: int, seed: int) -> None:
    last: dict[int, int] = {}
    for t in range(1, rounds + 1):
        pool = eligible(30, t, last, minimum_separation=separation, exhausted={4})
        cohort = draw_cohort(rng(seed, t), PoissonCohort(0.5), pool)
        for client in cohort:
            assert client != 4
            assert t - last.get(client, -100) >= separation
            last[client] = t
    assert separation > 1 or set(eligible(30, rounds + 1, last)) == set(range(30))


def test_too_few_clients_for_a_fixed_cohort() -> None:
    pool = eligible(10, 2, dict.fromkeys(range(6), 1), minimum_separation=2)
    assert pool == (6, 7, 8, 9)
    assert draw_cohort(rng(1), FixedCohort(4), pool) == pool
    with pytest.raises(TooFewEligibleError, match="4 clients may take part, a cohort needs 5"):
        draw_cohort(rng(1), FixedCohort(5), pool)
    assert draw_cohort(rng(1), PoissonCohort(1.0), pool) == pool
    assert draw_cohort(rng(1), PoissonCohort(0.5), ()) == ()


@pytest.mark.parametrize(
    ("trials", "rate", "miss"), [(100, 0.1, 1e-3), (1000, 0.05, 1e-6), (7, 0.9, 0.01), (9, 1, 0.1)]
)
def test_binomial_ranges(trials: int, rate: float, miss: float) -> None:
    low, high = binomial_range(trials, rate, miss)
    assert binom.cdf(low - 1, trials, rate) <= miss < binom.cdf(low, trials, rate)
    assert binom.sf(high, trials, rate) <= miss < binom.sf(high - 1, trials, rate)


def test_bad_input_is_named() -> None:
    for rate in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="participation rate"):
            PoissonCohort(rate)
    with pytest.raises(ValueError, match="at least 1 client"):
        FixedCohort(0)
    for arguments in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="start at 1"):
            eligible(*arguments, {})
    with pytest.raises(ValueError, match="start at 1"):
        eligible(3, 1, {}, minimum_separation=0)
    for bad in ((0, 0.5, 0.1), (5, 0.0, 0.1), (5, 0.5, 0.7)):
        with pytest.raises(ValueError, match="expected"):
            binomial_range(*bad)
