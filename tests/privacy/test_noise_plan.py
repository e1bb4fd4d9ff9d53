"""What a plan says of its rounds: events of some survivors, shares of a cohort, another clip norm."""

import dataclasses
import math

import pytest
from plans import plan

from flora_secure.privacy.accounting import epsilon_local, noise_multiplier_for
from flora_secure.privacy.noise_plan import CohortSizeError, TooFewSurvivorsError


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


def test_cohorts_of_different_sizes_carry_the_same_noise() -> None:
    p = plan(clients=130, smallest_cohort=70, population=1000, participations=12)
    assert p.noise_multiplier == pytest.approx(noise_multiplier_for(4, 1e-5, 12), rel=1e-8)
    for size in (70, 71, 99, 130):
        of_round = p.for_cohort(size)
        assert of_round.survivors_minimum == size - size // 10
        event = of_round.event(1, of_round.survivors_minimum, participants=range(size), population=1000)
        assert event.noise_multiplier == pytest.approx(p.noise_multiplier, rel=1e-9)
        assert event.participants == frozenset(range(size))
        assert event.population == 1000
        assert (of_round.scale, of_round.bits) == (p.scale, p.bits)
    assert p.for_cohort(130) == dataclasses.replace(p, smallest_cohort=130)
    for size in (69, 131):
        with pytest.raises(CohortSizeError, match="70 to 130"):
            p.for_cohort(size)


def test_the_ring_has_room_for_the_loudest_cohort() -> None:
    """With 3 of 4 tolerated to drop out, ⌊·⌋ makes some cohorts louder than the largest: n ÷ h differs."""
    even, uneven = ({"clients": 103, "dropout_tolerance": 0.75, "smallest_cohort": m} for m in (103, 4))
    assert max(n / (n - math.floor(0.75 * n)) for n in range(4, 104)) > 103 / (103 - 77)
    assert plan(**uneven).scale < plan(**even).scale


def test_another_clip_norm_changes_nothing_on_the_grid() -> None:
    p = plan(count_noise=5.0)
    wider = p.with_clip(5.0)
    assert wider.clip_norm * wider.scale == pytest.approx(p.clip_norm * p.scale, rel=1e-15)
    assert wider.event(1, 90).noise_multiplier == pytest.approx(p.noise_multiplier, rel=1e-12)
    assert (wider.sigma_local, wider.bits, wider.count_scale) == (p.sigma_local, p.bits, p.count_scale)
    for bad in (0.0, math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="clip_norm"):
            p.with_clip(bad)
