"""Sites are named by their updates where they differ; where they do not, the attack says that it shows nothing.

Masks are of fresh keys in every run: by chance the outcome of masked uploads is an alarm once in 2,000 at most.
"""

import math

import pytest
from conftest import skewed
from federations import task_of

from flora_secure.auditing.attacked import Attacks
from flora_secure.auditing.attacks.sites import CLEAN, MASKED, infer_sites
from flora_secure.auditing.attacks.statistics import Allowed


def attacked(config, task) -> Attacks:
    outcomes = infer_sites(config, task, Allowed(0.92493, 4.0, 1e-5), 0, lambda line: None)
    return Attacks(rounds_hash="", seed=0, shadows=0, outcomes=outcomes)


def severities(attacks: Attacks) -> dict[str, str]:
    return {finding.check: finding.severity for block in attacks.blocks for finding in block.findings}


def test_sites_that_differ_are_named_by_clean_updates_alone(digits_at_sites) -> None:
    attacks = attacked(skewed(), digits_at_sites)
    by = {(one.object, one.target): one for one in attacks.outcomes}
    clean, masked = by[CLEAN, "one site of all"], by[MASKED, "one site of all"]
    assert clean.value > 0.5
    assert clean.p is not None
    assert clean.p < 0.001
    assert masked.low <= masked.chance == pytest.approx(1 / 24)
    found = severities(attacks)
    assert found["X-07"] == "ok"
    assert found["X-08"] == "ok"
    assert by["sum", "in or out, no noise"].value > by["sum", "in or out, ε 4"].value


def test_sites_that_do_not_differ_show_nothing() -> None:
    """Digits dealt at random: an update tells its own images, and nothing of its site's other ones."""
    config = skewed(data__partition="iid", privacy__epsilon=math.inf)
    attacks = attacked(config, task_of(config))
    assert severities(attacks)["X-06"] == "warning"
    control = next(one for one in attacks.outcomes if one.object == CLEAN)
    assert "it shows nothing" in control.line


@pytest.mark.usefixtures("broken_masks")
def test_masks_that_do_not_mask_name_sites(digits_at_sites) -> None:
    assert severities(attacked(skewed(privacy__epsilon=math.inf), digits_at_sites))["X-07"] == "violation"
