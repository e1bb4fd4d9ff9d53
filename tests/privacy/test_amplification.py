"""Sampled rounds: published values of two libraries, the traps of the shared page, and what a cohort really hides."""

import math
import time

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from scipy.special import ndtr
from scipy.stats import norm

from flora_secure.privacy import amplification
from flora_secure.privacy import cross_check as checks
from flora_secure.privacy.accounting import (
    epsilon_for,
    epsilon_local,
    epsilon_of,
    epsilon_outsider,
    gaussian_epsilon,
    noise_multiplier_for,
)
from flora_secure.privacy.amplification import CALIBRATION_CELL, _poisson_epsilon, cohort_epsilon, poisson_epsilon
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.cross_check import (
    CLOSED_FORM,
    PLD,
    PRV,
    QUADRATURE,
    RDP,
    CrossCheckError,
    cross_check,
    cross_check_outsiders,
)
from flora_secure.privacy.events import RoundEvent


def event(z: float, number: int = 1, q: float = 1.0, survivors: int = 1, population: int | None = None) -> RoundEvent:
    sigma = 100 * z / math.sqrt(survivors)
    return RoundEvent(number, survivors, 0, sigma, 100.0, 1.0, 1, sampling_rate=q, population=population)


# (z, q, rounds) → ε at δ = 1e-6: opacus, opacus/tests/prv_accountant.py, msr_values (from microsoft/prv_accountant)
PUBLISHED = {
    (0.8, 0.001, 100): 0.270403364058018680360362395731,
    (1.5, 0.05, 100): 1.95385313568420015961635272106,
    (3.0, 0.2, 100): 3.38122051022184422208738396876,
    (2.0, 0.2, 100): 5.67205560882372950004537415225,
    (2.0, 0.001, 1000): 0.0712187825381152272985474382949,
    (3.0, 0.05, 1000): 2.52757432605973830774814814504,
    (3.0, 0.05, 20000): 13.9611146992367061159256991232,
}


@pytest.mark.parametrize(("case", "epsilon"), PUBLISHED.items())
def test_published_values_of_opacus(case: tuple[float, float, int], epsilon: float) -> None:
    z, q, rounds = case
    found = poisson_epsilon({(z, q): rounds}, 1e-6)
    # from above, as PLD rounds the loss up, and closely; opacus' figures carry an error of 0.01 upwards themselves
    assert epsilon - 0.011 <= found <= epsilon + 2e-3


def test_a_published_value_of_dp_accounting() -> None:
    """dp-accounting 0.6.0, pld_privacy_accountant_test.py, test_poisson_subsampled_gaussian (z = 0.5)."""
    assert poisson_epsilon({(0.5, 0.2): 3}, 0.15594) == pytest.approx(1, abs=1e-3)


def test_a_published_value_for_truncated_batches() -> None:
    """dp-accounting 0.6.0, pld_privacy_accountant_test.py, test_truncated_subsampled_gaussian_basic. Its accountant is
    the one that counts our cohorts; the figure is for add-or-remove and a rate of ½."""
    accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(dp_accounting.TruncatedSubsampledGaussianDpEvent(4, 0.5, 2, 1.0), 3)
    accountant.compose(dp_accounting.TruncatedSubsampledGaussianDpEvent(3, 0.5, 2, 1.0), 2)
    assert accountant.get_epsilon(1e-6) == pytest.approx(17.904330, abs=5e-3)


def test_calibration_of_sampled_rounds_inverts_the_count() -> None:
    started = time.process_time()
    z = noise_multiplier_for(4, 1e-5, 100, 0.1)
    assert time.process_time() - started < 15  # seconds of CPU, of which it takes less than one
    assert z == pytest.approx(1.386, abs=1e-3)
    assert poisson_epsilon({(z, 0.1): 100}, 1e-5, CALIBRATION_CELL) <= 4
    assert 3.99 < epsilon_for(z, 1e-5, 100, 0.1) <= 4
    assert poisson_epsilon({(z * (1 - 1e-4), 0.1): 100}, 1e-5, CALIBRATION_CELL) > 4
    assert noise_multiplier_for(4, 1e-5, 20, 1 - 1e-12) == pytest.approx(noise_multiplier_for(4, 1e-5, 20), rel=1e-3)


def test_the_amplified_figure_is_not_the_servers() -> None:
    """q = 0.1, T = 100 that reads 4.0 amplified is 11.8 for a client seen in 10 rounds: the server knows which."""
    z = noise_multiplier_for(4, 1e-5, 100, 0.1)
    assert epsilon_for(z, 1e-5, 100, 0.1) == pytest.approx(4.0, abs=0.01)
    assert epsilon_for(z, 1e-5, 10) == pytest.approx(11.8, abs=0.05)


def test_one_round_is_not_the_total() -> None:
    z = noise_multiplier_for(4, 1e-5, 1)
    assert epsilon_for(z, 1e-5, 1) == pytest.approx(4, abs=1e-6)
    assert epsilon_for(z, 1e-5, 20) > 25  # what calling each round's 4 the total would hide
    assert noise_multiplier_for(4, 1e-5, 20) == pytest.approx(z * math.sqrt(20), rel=1e-12)


@pytest.mark.parametrize("opacus", [False, True])
def test_accountants_agree_on_sampled_examples(opacus: bool) -> None:
    run = [event(z, t, 0.02) for t, z in enumerate([1.1] * 30 + [1.3] * 20, 1)]
    found = cross_check(run, 1e-5, opacus=opacus)
    assert list(found) == [PLD, RDP, *[PRV] * opacus]
    assert found[PLD] == epsilon_of(run, 1e-5)
    assert found[RDP] > found[PLD]
    assert not opacus or found[PRV] == pytest.approx(found[PLD], abs=0.02)


def test_a_wrong_rate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting examples at half their rate: PRV and RDP see the events."""
    run = [event(1.1, t, 0.2) for t in range(1, 31)]
    halved = {(1.1, 0.1): 30}
    monkeypatch.setattr(
        "flora_secure.privacy.cross_check.epsilon_of", lambda events, delta: poisson_epsilon(halved, delta)
    )
    with pytest.raises(CrossCheckError):
        cross_check(run, 1e-5)


def test_sampled_rounds_pay_for_aliasing_and_colluders_see_less_noise() -> None:
    base = RoundEvent(1, 100, 0, 1.0, 0.7, 2.0, 5, sampling_rate=0.1)
    kappa = base.aliasing_slack
    assert kappa > 1e-3
    counts = {(base.noise_multiplier, 0.1): 1}
    assert epsilon_of([base], 1e-5) == pytest.approx(poisson_epsilon(counts, 1e-5 * math.exp(-kappa)) + 2 * kappa)
    # one upload alone: the client's coins are secret from the server too, so its examples stay amplified
    local = epsilon_local([base], 1e-5)
    assert local == pytest.approx(poisson_epsilon({(base.noise_multiplier_local, 0.1): 1}, 1e-5), abs=2e-3)
    assert epsilon_of([base], 1e-5) < local < gaussian_epsilon(1 / base.noise_multiplier_local, 1e-5)


def test_many_different_rounds_are_rounded_towards_more_loss() -> None:
    counts = {(float(z), 0.1): 1 for z in np.linspace(1.0, 1.3, 40)}
    exact = _poisson_epsilon(frozenset(counts.items()), 1e-5, 1e-2)
    assert exact < poisson_epsilon(counts, 1e-5, 1e-2) < exact * 1.005


def test_no_noise_is_infinite_and_bad_input_is_named() -> None:
    assert poisson_epsilon({(0.0, 0.1): 1}, 1e-5) == math.inf
    assert epsilon_of([event(0.0, 1, 0.1)], 1e-5) == math.inf
    for rate in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="sampling_rate"):
            noise_multiplier_for(4, 1e-5, 10, rate)
        with pytest.raises(ValueError, match="sampling_rate"):
            epsilon_for(1.0, 1e-5, 10, rate)
        with pytest.raises(ValueError, match="sampling_rate"):
            event(1.0, 1, rate)
    for z in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise multiplier"):
            epsilon_for(z, 1e-5, 10)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        epsilon_for(1.0, 1e-5, 0)
    for half in (2.5, math.nan, "3"):
        with pytest.raises(ValueError, match="rounds must be a whole number"):
            epsilon_for(1.0, 1e-5, half)
        with pytest.raises(ValueError, match="rounds must be a whole number"):
            noise_multiplier_for(1.0, 1e-5, half)
        with pytest.raises(ValueError, match="rounds must be a whole number"):
            calibrate(clients=10, dimension=8, rounds=half, epsilon=1.0, delta=1e-5, clip_norm=1.0)
    assert epsilon_for(1.0, 1e-5, np.int64(3)) == epsilon_for(1.0, 1e-5, 3)
    with pytest.raises(ValueError, match="delta"):
        epsilon_for(1.0, 1.0, 10)
    with pytest.raises(ValueError, match="too small"):
        noise_multiplier_for(1e-4, 1e-9, 100, 0.5)


# What a cohort of known size hides from an outsider


def cohort_delta(epsilon: float, z: float, q: float, mine: float, other: float, reverse: bool) -> float:
    """δ(ε) of one round in one dimension, by quadrature: with probability q my `mine` is in the sum, else another
    client's `other` (both within ±1) is; against the same with 0 for mine."""
    x = np.linspace(-12 * z - 3, 12 * z + 3, 20_001)
    one = q * norm.pdf(x, mine, z) + (1 - q) * norm.pdf(x, other, z)
    two = q * norm.pdf(x, 0.0, z) + (1 - q) * norm.pdf(x, other, z)
    if reverse:
        one, two = two, one
    return float(np.sum(np.maximum(one - math.exp(epsilon) * two, 0)) * (x[1] - x[0]))


@pytest.mark.parametrize(("z", "survivors"), [(1.0, 100), (2.0, 500), (0.8, 20)])
def test_the_cohort_figure_bounds_every_pair_of_contributions(z: float, survivors: int) -> None:
    for delta in (1e-2, 1e-4, 1e-6):
        claimed = cohort_epsilon([event(z, 1, 1.0, survivors, 1000)], delta, CALIBRATION_CELL)
        for mine in (1.0, 0.5):
            for other in (-1.0, -0.5, 0.0, 0.5, 1.0):
                for reverse in (False, True):
                    assert cohort_delta(claimed, z, survivors / 1000, mine, other, reverse) <= delta * (1 + 1e-3)


def test_the_poisson_formula_would_understate_a_cohorts_loss() -> None:
    """Why cohorts are never counted as Poisson: another client takes the place of the one that was not drawn."""
    z, q, delta = 1.0, 0.1, 1e-4
    assert cohort_delta(poisson_epsilon({(z, q): 1}, delta), z, q, 1.0, -1.0, False) > 3 * delta
    textbook = q * (ndtr(0.5 - 1.0) - math.e * ndtr(-0.5 - 1.0))
    assert cohort_delta(math.log1p(q * (math.e - 1)), z, q, 1.0, 0.0, False) == pytest.approx(textbook, rel=1e-3)


def test_cohorts_amplify_for_outsiders_only_where_they_are_uniform() -> None:
    z = 6.0
    hidden = [event(z, t, 1.0, 50, 1000) for t in range(1, 51)]
    known = [event(z, t, 1.0, 50, None) for t in range(1, 51)]
    server = epsilon_of(hidden, 1e-5)
    assert server == epsilon_of(known, 1e-5) == epsilon_outsider(known, 1e-5)
    assert epsilon_outsider(hidden, 1e-5) < 0.3 * server
    assert epsilon_outsider(hidden, 1e-5) > poisson_epsilon({(z, 0.05): 50}, 1e-5)
    mixed = epsilon_outsider([*hidden[:25], *known[25:]], 1e-5)
    assert epsilon_outsider(hidden, 1e-5) < mixed < server
    everyone = [event(z, t, 1.0, 1000, 1000) for t in range(1, 51)]
    assert epsilon_outsider(everyone, 1e-5) == pytest.approx(epsilon_of(everyone, 1e-5), abs=1e-3)


def test_a_second_accountant_finds_the_same_for_outsiders() -> None:
    z = 6.0
    hidden = [event(z, t, 1.0, 50, 1000) for t in range(1, 51)]
    known = [event(z, t, 1.0, 50, None) for t in range(51, 61)]
    for rounds in (hidden, [*hidden, *known], hidden[:1]):
        found = cross_check_outsiders(rounds, 1e-5)
        assert found[PLD] == epsilon_outsider(rounds, 1e-5)
        assert found[QUADRATURE] == pytest.approx(found[PLD], abs=1e-3)
    assert cross_check_outsiders(known, 1e-5) == {}
    assert cross_check_outsiders([event(0.0, 1, 1.0, 50, 1000)], 1e-5) == {}


def test_outsiders_get_no_figure_on_which_accountants_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = [event(6.0, t, 1.0, 50, 1000) for t in range(1, 51)]
    right = epsilon_outsider(hidden, 1e-5)
    # as if cohorts were Poisson samples: what the formula of the textbook would say
    wrong = poisson_epsilon({(6.0, 0.05): 50}, 1e-5)
    assert wrong < right
    monkeypatch.setattr(checks, "epsilon_outsider", lambda events, delta: wrong)
    with pytest.raises(CrossCheckError, match="for outsiders dp-accounting PLD finds"):
        cross_check_outsiders(hidden, 1e-5)


def test_closed_form_and_distributions_meet_without_sampling() -> None:
    run = [event(5.0, t) for t in range(1, 21)]
    assert cross_check(run, 1e-5, opacus=False)[CLOSED_FORM] == pytest.approx(
        poisson_epsilon({(5.0, 1.0): 20}, 1e-5), abs=1e-3
    )


@pytest.mark.parametrize("cells", [2e5, pytest.param(2e6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("z", [1e-4, 0.01])
def test_huge_losses_get_wider_cells_and_no_more_time(z: float, cells: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of 1e-4 would be 10^10 for z = 1e-4; the figure is still above that of the likely half of the losses."""
    assert amplification._CELLS == 2e6
    monkeypatch.setattr(amplification, "_CELLS", cells)
    widths: list[float] = []
    accountant = pld.PLDAccountant
    monkeypatch.setattr(
        pld, "PLDAccountant", lambda adjacency, cell: widths.append(cell) or accountant(adjacency, cell)
    )
    amplification._poisson_epsilon.cache_clear()
    found = poisson_epsilon({(z, 0.5): 1}, 1e-5)
    most = epsilon_for(z, 1e-5, 1)
    assert widths == [pytest.approx(most / cells)]
    assert 0.99 * z**-2 / 2 < found < 1.1 * most


def test_no_noise_costs_everything() -> None:
    assert poisson_epsilon({(0.0, 0.5): 1, (1.0, 0.5): 3}, 1e-5) == math.inf
    assert poisson_epsilon({}, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("z", "delta", "published"), [(1.391, 1e-5, 2.8768), (2.154, 1e-8, 2.1008), (2.716, 1e-12, 2.1660)]
)
def test_rare_losses_of_small_cohorts_stay_in_the_second_accountants_window(z, delta, published) -> None:
    found = cross_check_outsiders([event(z, 1, 1.0, 55, 1000)], delta)
    assert found[PLD] == pytest.approx(published, abs=2e-3)
    assert found[QUADRATURE] == pytest.approx(found[PLD], abs=5e-3)
