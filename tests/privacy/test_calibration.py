"""Calibration: the least noise and the fewest bits that satisfy budget, headroom and error, and what cannot be had."""

import math
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plans import plan

from flora_secure.errors import InfeasibleError
from flora_secure.privacy.accounting import noise_multiplier_for
from flora_secure.privacy.calibration import ERROR_RATIO, calibrate
from flora_secure.privacy.ledger import Ledger
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.overflow import RingLoad, overflow_bound


def test_the_default_run() -> None:
    p = plan()
    assert (p.bits, p.rotated, p.length) == (8, True, 2560)
    assert p.noise_multiplier == pytest.approx(noise_multiplier_for(4, 1e-5, 30), rel=1e-8)
    assert p.honest_minimum == p.survivors_minimum == 90
    assert p.error_ratio <= 1.01
    assert p.overflow_probability <= 0.01
    assert p.aliasing_slack < 1e-9
    assert p.sigma_local * math.sqrt(90) / (p.scale * 2.0) == pytest.approx(p.noise_multiplier, rel=1e-12)


def test_as_they_are_updates_need_room_for_a_common_spike() -> None:
    p = plan(rotation=False)
    assert (p.bits, p.rotated, p.length) == (10, False, 2560)
    # Even if every update is the same spike, the signal leaves the noise five deviations.
    assert 2**9 - 100 * 2.0 * p.scale > 5 * p.sigma_local * 10


LARGE = {"dimension": 131072, "rounds": 20}


@pytest.mark.parametrize(
    ("changes", "bits", "rotated"),
    [
        (LARGE, 8, True),
        ({**LARGE, "rotation": False}, 11, False),
        ({**LARGE, "clients": 1000}, 10, True),
        ({**LARGE, "clients": 1000, "rotation": False}, 15, False),
        ({**LARGE, "clients": 1000, "peak_fraction": 0.02}, 11, False),
        ({**LARGE, "clients": 10_000}, 14, True),
        ({**LARGE, "dropout_tolerance": 0.0, "overflow_probability": 1e-6}, 9, True),
        ({"clients": 1000}, 12, True),
        ({"clients": 1000, "rotation": False}, 15, False),
        ({"dimension": 1025}, 8, True),  # padded to 1280
        ({"dimension": 3}, 10, False),  # padding and short vectors make rotating useless
        ({"dimension": 3, "clients": 1000, "epsilon": 50, "rotation": True}, 19, True),  # nearly all of it is signal
        ({"epsilon": math.inf}, 22, False),
    ],
)
def test_bits(changes: dict[str, Any], bits: int, rotated: bool) -> None:
    p = plan(**changes)
    assert (p.bits, p.rotated) == (bits, rotated)


@pytest.mark.parametrize("clients", [20, 100, 1000])
@pytest.mark.parametrize("dimension", [5, 100, 1030, 2560, 70_000])
def test_the_default_is_the_smaller_upload(clients: int, dimension: int) -> None:
    both = [plan(clients=clients, dimension=dimension, rotation=rotation) for rotation in (False, True)]
    default = plan(clients=clients, dimension=dimension)
    assert default == min(both, key=lambda p: p.length * p.bits)
    assert default.payload_bits == default.length * default.bits
    assert [p.rotated for p in both] == [False, True]


@settings(max_examples=50)
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
    rotation=st.booleans(),
    smallest=st.floats(0.3, 1.0),
    taken=st.floats(0.05, 1.0),
)
@example(  # the signal outweighs the noise by thousands, and 21 bits hold both
    clients=1123,
    dimension=1,
    rounds=1,
    epsilon=50.0,
    clip_norm=1.0,
    tolerance=0.0,
    colluding=0.0,
    peak=1.0,
    overflow=0.5,
    rotation=True,
    smallest=1.0,
    taken=1.0,
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
    rotation: bool,
    smallest: float,
    taken: float,
) -> None:
    smallest_cohort = max(2, math.ceil(smallest * clients))
    colluders = int(colluding * smallest_cohort)
    participations = max(1, int(taken * rounds))

    def solve(**more: Any) -> NoisePlan:
        return calibrate(
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
            rotation=rotation,
            smallest_cohort=smallest_cohort,
            participations=participations,
            **more,
        )

    p = solve()
    target = noise_multiplier_for(epsilon, 1e-6, participations)
    assert p.participations == len(p.worst_events()) == participations
    for size in {smallest_cohort, (smallest_cohort + clients) // 2, clients}:
        of_round = p.for_cohort(size)
        honest = size - math.floor(tolerance * size + 1e-9) - colluders
        assert of_round.honest_minimum == honest
        # the noise of the fewest honest survivors, from scratch
        assert of_round.sigma_local * math.sqrt(honest) / (p.scale * clip_norm) >= target
        # The Gaussian tail alone: the bound must be above it, or it bounds nothing.
        peak_signal = 0.0 if rotation else size * clip_norm * peak * p.scale
        a = (2 ** (p.bits - 1) - 0.5 - peak_signal) / (of_round.sigma_local * math.sqrt(size))
        assert rounds * dimension * math.erfc(a / math.sqrt(2)) <= p.overflow_probability * (1 + 1e-6)
    ledger = Ledger(epsilon, 1e-6)
    for event in p.worst_events()[-3:]:
        ledger.authorise(event)
        ledger.record(event)
    assert p.error_ratio <= ERROR_RATIO
    assert p.overflow_probability <= overflow
    if p.bits > 8:  # one bit less would not do
        with pytest.raises(InfeasibleError):
            solve(max_bits=p.bits - 1)


def test_given_bits() -> None:
    roomy = plan(bits=16)
    assert (roomy.bits, roomy.rotated) == (16, False)  # with room for everything there is nothing to gain
    assert roomy.error_ratio < plan().error_ratio
    tight = plan(bits=9, peak_fraction=0.46)
    assert tight.bits == 9
    assert 1.01 < tight.error_ratio < 1.02  # accepted because it was asked for
    with pytest.raises(InfeasibleError, match=r"needs \d+ bits, more than 8; .* the rotation, or a peak_fraction"):
        plan(bits=8, rotation=False)
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


def test_no_bits_at_all_are_one_sentence_too() -> None:
    with pytest.raises(InfeasibleError, match="that needs 1,000 or more bits, more than 32"):
        plan(clip_norm=1e-300, upload_norm=1e300)


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
        ("participations", 0),
        ("participations", 31),
        ("smallest_cohort", 1),
        ("smallest_cohort", 101),
        ("sampling_rate", 0),
        ("sampling_rate", 1.5),
        ("upload_norm", 1.9),
        ("upload_norm", math.nan),
        ("upload_norm", math.inf),
        ("count_noise", 0),
        ("count_noise", math.nan),
        ("epsilon", 1e-9),
    ],
)
def test_bad_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        plan(**{name: value})


def test_delta_of_a_client_or_more_warns() -> None:
    with pytest.warns(UserWarning, match="1/clients = 0.01: it allows giving one client away"):
        plan(delta=0.01)
    with pytest.warns(UserWarning, match="1/clients = 0.001"):
        plan(delta=0.001, population=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(delta=0.0099)


@pytest.mark.parametrize("count_noise", [None, 5.0])
def test_padding_and_count_are_counted(count_noise: float | None) -> None:
    """Overflow and slack of all coordinates that are sent, not of the update's alone."""
    p = plan(dimension=1025, rotation=True, count_noise=count_noise, epsilon=100, dropout_tolerance=0.0)
    assert p.length == 1280 + p.count_coordinates
    deviation = p.sigma_local * 10
    updates = RingLoad(100, 0.0, 100 * 2.0 * p.scale / math.sqrt(1280), p.sigma_local, deviation)
    allowed = 30 * 1280 * overflow_bound(p.bits, updates, 1.0)
    if count_noise:
        reach = 100 * p.count_scale / 2 / math.sqrt(p.count_coordinates)
        bit = RingLoad(100, reach, 0.0, p.sigma_local, deviation)
        allowed += 30 * p.count_coordinates * overflow_bound(p.bits, bit, 1.0)
    assert p.overflow_probability == pytest.approx(allowed, rel=1e-6)
    assert p.aliasing_slack == pytest.approx(sum(e.aliasing_slack for e in p.worst_events()), rel=1e-9)
    assert p.worst_events()[0].dimension == p.length


def test_examples_are_sampled_and_uploads_longer_than_the_clip_norm() -> None:
    p = plan(sampling_rate=0.05, upload_norm=40.0, rounds=50, clients=10)
    assert p.noise_multiplier == noise_multiplier_for(4 - 2e-9, 1e-5 * math.exp(-1e-9), 50, 0.05)
    event = p.event(1, 10)
    assert event.sampling_rate == 0.05
    assert event.sensitivity == p.scale * 2.0
    assert p.upload_norm == 40.0
    assert plan(clients=10, upload_norm=40.0, rotation=False).bits > plan(clients=10, rotation=False).bits
    assert p.with_clip(1.0).upload_norm == 20.0


def test_a_count_shares_the_budget() -> None:
    """Andrew et al. 1905.03871, theorem 1: z_Δ = (z^-2 − (2σ_b)^-2)^-½, and both together cost ε."""
    fixed, adaptive = plan(rotation=False), plan(rotation=False, count_noise=5.0)
    event = adaptive.event(1, 90)
    assert event.noise_multiplier == pytest.approx(fixed.noise_multiplier, rel=1e-9)
    of_update = adaptive.sigma_local * math.sqrt(90) / (adaptive.scale * 2.0)
    assert of_update == pytest.approx((fixed.noise_multiplier**-2 - 10.0**-2) ** -0.5, rel=1e-9)
    assert adaptive.sigma_local * math.sqrt(90) / adaptive.count_scale == pytest.approx(5.0, rel=1e-9)
    assert adaptive.length == 2560 + adaptive.count_coordinates
    with pytest.raises(InfeasibleError, match=r"count's noise of 2 clients .* above z/2 = 2\.9"):
        plan(count_noise=2.0)


@pytest.mark.parametrize(("clients", "count_noise"), [(100, 5.0), (1000, 50.0), (1000, 10.0), (40, 4.0)])
@pytest.mark.parametrize("rotation", [False, True])
def test_a_count_fits_beside_the_update(clients: int, count_noise: float, rotation: bool) -> None:
    p = plan(clients=clients, count_noise=count_noise, rotation=rotation)
    assert p.overflow_probability <= 0.01
    share = clients * p.count_scale / 2 / math.sqrt(p.count_coordinates)
    room = (2 ** (p.bits - 1) - share) / (p.sigma_local * math.sqrt(clients))
    assert room > 3.4  # deviations between a unanimous count and the ring's edge


@pytest.mark.parametrize(("rotation", "bits"), [(False, 22), (True, 19)])
def test_without_noise_rotated_too(rotation: bool, bits: int) -> None:
    p = plan(epsilon=math.inf, rotation=rotation)
    assert (p.bits, p.rotated) == (bits, rotation)
    assert p.overflow_probability == (0.01 if rotation else 0.0)
    counting = plan(epsilon=math.inf, rotation=rotation, count_noise=5.0)
    assert 50 * counting.count_scale + 50 <= 2 ** (counting.bits - 1) - 1
