"""Membership: shadow federations tell who took part where there is no noise, and what is more than ε allows is said."""

import math

import numpy as np
import pytest
from conftest import skewed
from federations import task_of

from flora_secure.auditing.attacked import Attacks
from flora_secure.auditing.attacks.membership import ADAPTER, SUMS, confidence_of, membership
from flora_secure.auditing.attacks.shadows import shadow
from flora_secure.auditing.attacks.statistics import Allowed

FOUR = Allowed(0.92493, 4.0, 1e-5)


def attacked(config, task, allowed: Allowed, shadows: int = 20) -> Attacks:
    made = membership(config, task, allowed, shadows, 0, lambda line: None)
    return Attacks(rounds_hash="", seed=0, shadows=shadows, outcomes=made.outcomes)


def severities(attacks: Attacks) -> dict[str, str]:
    return {finding.check: finding.severity for block in attacks.blocks for finding in block.findings}


def test_members_show_without_noise_and_no_more_than_allowed_with_it(digits_at_sites) -> None:
    """All draws are from the seed. Were they not, an alarm would be false once in 2,000 (four outcomes)."""
    attacks = attacked(skewed(), digits_at_sites, FOUR)
    assert severities(attacks) == {"X-04": "ok", "X-05": "ok"}
    area = {(one.object, one.target): one for one in attacks.outcomes if one.measure.startswith("area")}
    assert area[SUMS, "clients, no noise"].value > 0.8
    assert area[ADAPTER, "clients, no noise"].low > 0.5
    assert area[SUMS, "clients, ε 4"].value < FOUR.area


def test_shadows_follow_from_their_seed(digits_at_sites) -> None:
    config = skewed()
    sure = confidence_of(config, digits_at_sites)
    one, same, other = (shadow(config, digits_at_sites, sure, seed, noise=True) for seed in (1, 1, 2))
    for name in ("inside", "by_adapter", "by_sums"):
        assert (getattr(one, name) == getattr(same, name)).all()
        assert (getattr(one, name) != getattr(other, name)).any()


def test_more_than_a_claimed_budget_allows_is_a_violation(digits_at_sites) -> None:
    """Noise for ε = 100, and a log that claims 0.1."""
    attacks = attacked(skewed(privacy__epsilon=100.0), digits_at_sites, Allowed(0.0268, 0.1, 1e-5))
    assert severities(attacks)["X-05"] == "violation"
    assert not attacks.passed


def test_who_is_out_gives_nothing(digits_at_sites) -> None:
    """The sum of a shadow without noise is that of its members' clipped updates."""
    config = skewed(privacy__epsilon=math.inf, training__rounds=1)
    sure = confidence_of(config, digits_at_sites)
    one = shadow(config, digits_at_sites, sure, 3, noise=False)
    assert 0 < one.inside.sum() < len(one.inside)
    assert one.by_sums is not None
    inside, outside = one.by_sums[one.inside].mean(), one.by_sums[~one.inside].mean()
    assert inside > outside


def test_images_are_the_targets_of_unit_example(monkeypatch) -> None:
    # of the function that is called, whichever of two imports of its module that is
    monkeypatch.setitem(membership.__globals__, "_MOST_TARGETS", 100)
    config = skewed(privacy__unit="example", training__control_variate=None, training__rounds=1)
    task = task_of(config)
    made = membership(config, task, Allowed(None, 4.0, 1e-5), 6, 0, lambda line: None)
    assert {one.object for one in made.outcomes} == {ADAPTER}
    assert {one.target for one in made.outcomes} == {"images, no noise", "images, ε 4"}
    assert [one.trials for one in made.outcomes if not 0 < one.trials <= 6 * 100] == []


def test_confidence_is_the_odds_of_the_right_class(digits_at_sites) -> None:
    config = skewed(training__rounds=1, privacy__epsilon=math.inf)
    sure = confidence_of(config, digits_at_sites)
    ended = shadow(config, digits_at_sites, sure, 1, noise=False).ended
    texts, images = sure.scorer.test(ended.factors)
    p = (28.0 * images.double() @ texts.double().T).softmax(dim=1).numpy()
    right = p[np.arange(len(p)), sure.scorer.target.numpy()]
    odds = np.log(right) - np.log1p(-right)
    first = digits_at_sites.federation.clients[0]
    assert sure.of(ended)[0] == pytest.approx(odds[first].mean(), rel=1e-4)
