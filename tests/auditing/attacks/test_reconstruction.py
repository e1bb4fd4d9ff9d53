"""Reconstruction finds images where nothing protects them, and where masks do not mask; behind masks it does not.

Masks are of fresh keys in every run: by chance an outcome of masked uploads is an alarm once in 2,000 at most.
"""

import math

import numpy as np
import pytest
from conftest import skewed
from federations import FEW, few_images, small, task_of

from flora_secure.auditing.attacked import CONTROL, HIDDEN, Attacks
from flora_secure.auditing.attacks.reconstruction import ADAPTER, CLEAN, MASKED, SHARE, SUM, reconstruct
from flora_secure.auditing.attacks.statistics import Allowed
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig

NOTHING = Allowed(None, math.inf, 1e-5)


def found(config: RunConfig, task: Task, allowed: Allowed = NOTHING) -> Attacks:
    made = reconstruct(config, task, allowed, 0, lambda line: None)
    return Attacks(rounds_hash="", seed=0, shadows=0, outcomes=made.outcomes)


def severities(attacks: Attacks) -> dict[str, str]:
    return {finding.check: finding.severity for block in attacks.blocks for finding in block.findings}


def test_images_are_found_in_clean_updates_and_nowhere_else(digits_at_sites) -> None:
    attacks = found(skewed(), digits_at_sites, Allowed(0.92493, 4.0, 1e-5))
    assert [one.object for one in attacks.outcomes] == [w for w in (CLEAN, SHARE, MASKED, SUM, ADAPTER) for _ in "1234"]
    images = len(digits_at_sites.federation.dataset.private)
    for one in attacks.outcomes:
        size = int(one.target.split()[2])
        assert one.chance == pytest.approx(size / images)
        assert one.candidates == images
        if one.object == CLEAN:
            assert one.role == CONTROL
            assert one.low > one.chance
            assert one.value >= (0.8 if size <= 2 else 0.3)  # of more, digits are too much alike
            assert one.p is not None
            assert one.p < (0.02 if size <= 2 else 0.2)  # six trials
            assert one.rank < one.rank_by_chance
        elif one.object != SHARE:
            assert one.value <= 0.2
    assert severities(attacks) == {"X-01": "ok", "X-02": "ok", "X-03": "ok"}
    assert attacks.passed


@pytest.mark.usefixtures("broken_masks")
def test_masks_that_do_not_mask_are_found(digits_at_sites) -> None:
    attacks = found(skewed(privacy__epsilon=math.inf), digits_at_sites)
    masked = [one for one in attacks.outcomes if one.role == HIDDEN]
    assert [one.value >= 0.8 for one in masked[:2]] == [True, True]
    assert all("finds what masks should hide" in one.line for one in masked)
    assert severities(attacks) == {"X-01": "ok", "X-02": "violation"}
    assert not attacks.passed


def test_images_of_unit_example(digits_at_sites) -> None:
    config = skewed(
        privacy__unit="example", training__control_variate=None, aggregation__secagg="off", training__rounds=1
    )
    attacks = found(config, task_of(config), Allowed(None, 4.0, 1e-5))
    assert {one.object for one in attacks.outcomes} == {CLEAN, SHARE, SUM, ADAPTER}  # nothing is masked
    assert np.mean([one.value for one in attacks.outcomes if one.object == CLEAN]) >= 0.7
    # ε is of one image: it says nothing of several together
    assert {one.target for one in attacks.outcomes if one.allowed is not None} == {"clients of 1 image"}


def test_cohorts_are_attacked_as_they_are_drawn(task) -> None:
    config = small(participation__rate=0.5, participation__sampling="fixed", aggregation__corrupt=0.0)
    assert {one.trials for one in found(config, task).outcomes} <= {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"model__rule": "alternate"},
        {"model__rule": "ab"},
        {"privacy__adaptive_clip": 0.5},
        {"participation__rate": 0.5, "participation__sampling": "poisson", "aggregation__corrupt": 0.0},
        {"aggregation__dropout": 0.2, "privacy__dropout_tolerance": 0.3},
        {"aggregation__secagg": "malicious-server", "data__clients": 12},
    ],
)
def test_every_kind_of_run_is_attacked(changes: dict[str, object]) -> None:
    config = small(**{"data__clients": 20, **changes})
    attacks = found(config, task_of(config), Allowed(0.92493, 4.0, 1e-5))
    clean = [one for one in attacks.outcomes if one.object == CLEAN]
    masked = [one for one in attacks.outcomes if one.object == MASKED]
    assert sum(one.value * one.trials for one in clean) >= 0.3 * sum(one.trials for one in clean)
    assert not any(one.bad for one in masked)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["visual-projection", "text-attention"])
def test_other_placements_are_attacked(placement: str) -> None:
    """Learners by automatic differentiation, of sixty images."""
    task = few_images(model__placement=placement)
    config = small(**{**FEW, "model__placement": placement})
    attacks = found(config, task)
    clean = [one for one in attacks.outcomes if one.object == CLEAN]
    assert all(one.value == 1.0 for one in clean if one.target == "clients of 1 image")
    assert not any(one.bad for one in attacks.outcomes if one.object == MASKED)
