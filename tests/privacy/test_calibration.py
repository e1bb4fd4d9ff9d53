import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from flora_secure.privacy.accounting import epsilon_local, noise_multiplier_for
from flora_secure.privacy.calibration import ERROR_RATIO, InfeasibleError, calibrate, overflow_bound
from flora_secure.privacy.ledger import Ledger
from flora_secure.privacy.plan import NoisePlan, TooFewSurvivorsError
from flora_secure.privacy.rounded_gaussian import RoundedGaussian

BASE: dict[str, Any] = {"clients": 100, "dimension": 2560, "rounds": 30, "epsilon": 4, "delta": 1e-5, "clip_norm": 2.0}


def plan(**changes: Any) -> NoisePlan:
    return calibrate(**{**BASE, **changes})


def test_the_default_run() -> None:
    p = plan()
    assert p.bits == 10
    assert p.noise_multiplier == pytest.approx(noise_multiplier_for(4, 1e-5, 30), rel=1e-8)
    assert p.honest_minimum == p.survivors_minimum == 90
    assert p.error_ratio <= 1.01
    assert p.overflow_probability <= 1e-3
    assert p.aliasing_slack < 1e-9
    assert p.sigma_local * math.sqrt(90) / (p.scale * 2.0) == pytest.approx(p.noise_multiplier, rel=1e-12)
    # Even if every update is the same spike, the signal leaves the noise five and a half deviations.
    assert 2**9 - 100 * 2.0 * p.scale > 5.5 * p.sigma_local * 10


@pytest.mark.parametrize(
    ("changes", "bits"),
    [
        (
            {
                "dimension": 131072,
                "rounds": 20,
                "dropout_tolerance": 0.0,
                "peak_fraction": 0.005,
                "overflow_probability": 0.05,
            },
            8,
        ),
        ({"dimension": 131072, "rounds": 20}, 11),
        ({"dimension": 131072, "rounds": 20, "clients": 1000, "peak_fraction": 0.02}, 11),
        ({"dimension": 131072, "rounds": 20, "clients": 1000, "peak_fraction": 0.005}, 10),
        ({"clients": 1000}, 15),
        ({"epsilon": math.inf}, 22),
    ],
)
def test_bits(changes: dict[str, Any], bits: int) -> None:
    assert plan(**changes).bits == bits


@settings(max_examples=50, deadline=None)
@given(
    clients=st.integers(2, 3000),
    dimension=st.integers(1, 10**6),
    rounds=st.integers(1, 500),
    epsilon=st.floats(0.05, 50),
    clip_norm=st.floats(1e-4, 1e4),
    tolerance=st.floats(0, 0.5),
    colluding=st.floats(0, 0.4),
    peak=st.floats(0.001, 1.0),
    overflow=st.floats(1e-9, 0.5),
)
def test_a_solved_plan_satisfies_its_constraints(
    clients: int,
    dimension: int,
    rounds: int,
    epsilon: float,
    clip_norm: float,
    tolerance: float,
    colluding: float,
    peak: float,
    overflow: float,
) -> None:
    colluders = int(colluding * clients)
    p = calibrate(
        clients=clients,
        dimension=dimension,
        rounds=rounds,
        epsilon=epsilon,
        delta=1e-6,
        clip_norm=clip_norm,
        dropout_tolerance=tolerance,
        colluders=colluders,
        peak_fraction=peak,
        overflow_probability=overflow,
    )
    ledger = Ledger(epsilon, 1e-6)
    for event in p.worst_events()[-3:]:
        ledger.authorise(event)
        ledger.record(event)
    mu = 1 / ledger.events[0].noise_multiplier
    assert mu * math.sqrt(rounds) <= 1 / noise_multiplier_for(epsilon, 1e-6, rounds) * math.sqrt(rounds)
    assert p.error_ratio <= ERROR_RATIO
    assert p.overflow_probability <= overflow
    # The Gaussian tail alone, from scratch: the bound must be above it, or it bounds nothing.
    a = (2 ** (p.bits - 1) - 0.5 - clients * clip_norm * peak * p.scale) / (p.sigma_local * math.sqrt(clients))
    assert rounds * dimension * math.erfc(a / math.sqrt(2)) <= p.overflow_probability
    if p.bits > 8:  # one bit less would not do
        with pytest.raises(InfeasibleError):
            calibrate(
                clients=clients,
                dimension=dimension,
                rounds=rounds,
                epsilon=epsilon,
                delta=1e-6,
                clip_norm=clip_norm,
                dropout_tolerance=tolerance,
                colluders=colluders,
                peak_fraction=peak,
                overflow_probability=overflow,
                max_bits=p.bits - 1,
            )


def test_the_overflow_bound_holds_in_simulation() -> None:
    """20 shares whose signal leaves two deviations of room: they wrap often, less often than the bound, and near it."""
    n, sigma, d = 20, 2.1, 200_000
    reach = (2.0**7 - 0.5 - 2.0 * sigma * math.sqrt(n)) / n
    total = sum(RoundedGaussian(bytes([i]) * 32).sample(np.full(d, reach), sigma) for i in range(n))
    frequency = float(np.mean(total >= 2**7))  # at the end where the signal points; the bound counts both
    assert frequency < overflow_bound(8, n, reach, sigma, 1.0) < 3 * frequency


@pytest.mark.parametrize("sigma", [1.0, 2.036])
def test_the_overflow_bound_holds_exactly(sigma: float) -> None:
    """100 shares without signal, their mass function enumerated: the Gaussian tail is too small, the bound is not."""
    n, bits = 100, 8 if sigma > 2 else 7
    k = np.arange(-30, 31)
    share = ndtr(-(np.abs(k) - 0.5) / sigma) - ndtr(-(np.abs(k) + 0.5) / sigma)
    total = np.ones(1)
    for _ in range(n):
        total = np.convolve(total, share)
    cut = 2 ** (bits - 1)
    tail = float(total[30 * n + cut :].sum() + total[: 30 * n - cut].sum())
    assert tail <= overflow_bound(bits, n, 0.0, sigma, 1.0) < 2 * tail
    assert tail > 1.2 * math.erfc((cut - 0.5) / (sigma * math.sqrt(n)) / math.sqrt(2))


def test_dropout_tolerance_costs_what_the_shared_page_says() -> None:
    none, some = plan(dropout_tolerance=0.0), plan(dropout_tolerance=0.36)
    ratio = some.sigma_local / some.scale / (none.sigma_local / none.scale)
    assert ratio == pytest.approx(1 / math.sqrt(1 - 0.36), rel=1e-9)


def test_colluders_are_left_out_of_the_noise() -> None:
    p = plan(colluders=20)
    assert p.honest_minimum == 70
    assert p.survivors_minimum == 90
    assert p.event(1, 90).noise_multiplier == pytest.approx(p.noise_multiplier, rel=1e-12)
    assert p.event(1, 100).honest == 80


def test_events_of_a_plan() -> None:
    p = plan()
    assert p.event(3, 90).noise_multiplier == pytest.approx(p.noise_multiplier, rel=1e-12)
    assert p.event(3, 100).noise_multiplier > p.noise_multiplier
    with pytest.raises(TooFewSurvivorsError, match=r"round 3: 89 of 100 clients survived, the noise needs 90"):
        p.event(3, 89)
    with pytest.raises(ValueError, match="101 survivors"):
        p.event(3, 101)
    assert epsilon_local(p.worst_events(), p.delta) == pytest.approx(75.1, abs=0.1)


def test_given_bits() -> None:
    roomy = plan(bits=16)
    assert roomy.bits == 16
    assert roomy.error_ratio < plan().error_ratio
    tight = plan(bits=9, peak_fraction=0.43)
    assert tight.bits == 9
    assert 1.01 < tight.error_ratio < 1.02  # accepted because it was asked for
    with pytest.raises(InfeasibleError, match=r"needs \d+ bits, more than 8"):
        plan(bits=8)
    with pytest.raises(InfeasibleError, match=r"needs (\d+) bits, more than 12"):
        plan(clients=10_000, max_bits=12)


def test_the_bits_that_a_refusal_asks_for_are_enough() -> None:
    with pytest.raises(InfeasibleError) as caught:
        plan(clients=2000, max_bits=9)
    needed = int(str(caught.value).split("needs ")[1].split(" bits")[0])
    assert plan(clients=2000).bits == needed


def test_without_noise_nothing_can_wrap() -> None:
    p = plan(epsilon=math.inf)
    assert not p.noisy
    assert p.noise_multiplier == p.sigma_local == p.overflow_probability == 0.0
    assert p.rounding_error <= 1e-3
    assert 100 * 2.0 * p.scale + 100 / 2 <= 2 ** (p.bits - 1) - 1
    assert plan(epsilon=math.inf, bits=12).bits == 12
    with pytest.raises(InfeasibleError, match="without noise"):
        plan(epsilon=math.inf, bits=8, clients=1000)
    event = p.event(1, 95)
    assert event.noise_multiplier == event.aliasing_slack == 0.0


def test_no_bits_work_for_a_huge_federation() -> None:
    with pytest.raises(InfeasibleError, match="more than 32"):
        plan(clients=10**5, epsilon=1e5, delta=1e-9, dimension=1, rounds=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clients", 1),
        ("dimension", 0),
        ("rounds", 0),
        ("epsilon", 0),
        ("epsilon", -1),
        ("epsilon", math.nan),
        ("delta", 0),
        ("delta", 1),
        ("clip_norm", 0),
        ("clip_norm", math.nan),
        ("clip_norm", math.inf),
        ("dropout_tolerance", 1),
        ("dropout_tolerance", -0.1),
        ("colluders", -1),
        ("colluders", 90),
        ("bits", 7),
        ("bits", 33),
        ("max_bits", 33),
        ("peak_fraction", 0),
        ("peak_fraction", 1.1),
        ("overflow_probability", 0),
        ("overflow_probability", 1),
        ("epsilon", 1e-9),
    ],
)
def test_bad_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        plan(**{name: value})


def test_delta_of_a_client_or_more_warns() -> None:
    with pytest.warns(UserWarning, match="1/clients"):
        plan(delta=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(delta=0.0099)
