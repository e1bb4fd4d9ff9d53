"""For how many rounds a masking session is set up, over which channels, and what is said where one is not to be had."""

import pytest

from flora_protocols import Suite, suites
from flora_secure.errors import ConfigError
from flora_secure.planning.config import RunConfig, from_toml, override
from flora_secure.planning.masking import MOST_SLOTS, settled, slots_of, suite_of, warning_of
from flora_secure.records.forecast import forecast

COHORTS = {"participation.rate": 0.5, "participation.sampling": "fixed"}
HYBRID = Suite.X25519_MLKEM768


def config(**changes) -> RunConfig:
    return override(RunConfig(), {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture
def without_kem(monkeypatch) -> None:
    """An installation whose cryptography is older than release 48."""
    monkeypatch.setattr(suites, "_mlkem", None)


@pytest.mark.parametrize(
    ("rounds", "slots"),
    [
        (1, 1),
        (2, 3),
        (10, 11),
        (20, 22),  # a tenth more
        (58, 64),
        (59, 33),  # two sessions, both as long
        (100, 55),
        (1000, 62),
    ],
)
def test_everybody_has_a_tenth_to_spare_in_sessions_of_one_length(rounds, slots) -> None:
    assert slots_of(config(training__rounds=rounds)) == slots <= MOST_SLOTS


def test_a_cohort_has_a_slot_and_who_asks_has_what_was_asked_for() -> None:
    assert slots_of(override(RunConfig(), COHORTS)) == 1
    assert slots_of(config(aggregation__slots=7)) == 7
    assert slots_of(config(aggregation__slots=1)) == 1


def test_no_default_prepares_more_than_a_client_can_hold() -> None:
    """A client of the complete graph deals to everybody; 55 slots among 40,000 would be too many shares."""
    everybody = config(training__rounds=100, data__clients=40_000, aggregation__neighbours=39_999)
    assert slots_of(everybody) == 22  # five sessions
    assert slots_of(config(training__rounds=100, aggregation__neighbours=50)) == 55
    with pytest.raises(ConfigError, match=r"aggregation\.slots 1024 among 2000 holders") as caught:
        forecast(config(data__clients=2000, aggregation__neighbours=1999, aggregation__slots=1024))
    assert str(caught.value).endswith("; lower that or aggregation.neighbours")


def test_prepared_sessions_are_hybrid_and_others_are_not_unless_asked() -> None:
    assert suite_of(config()) is HYBRID
    assert suite_of(config(training__rounds=1)) is Suite.X25519
    assert suite_of(config(aggregation__slots=1)) is Suite.X25519
    assert suite_of(override(RunConfig(), COHORTS)) is Suite.X25519
    assert suite_of(override(RunConfig(), {**COHORTS, "aggregation.suite": "x25519-mlkem768"})) is HYBRID
    assert suite_of(config(aggregation__suite="x25519")) is Suite.X25519
    assert warning_of(config()) is None


def test_without_ml_kem_the_default_is_x25519_and_says_so(without_kem) -> None:
    assert suite_of(config()) is Suite.X25519
    said = warning_of(config())
    assert said is not None
    assert "X25519 alone" in said
    assert "cryptography 48" in said
    assert "\n" not in said
    # where no set-up would have taken it, nothing is missing
    assert warning_of(override(RunConfig(), COHORTS)) is None
    assert warning_of(config(aggregation__secagg="off")) is None


def test_without_ml_kem_asking_for_it_is_refused(without_kem) -> None:
    asked = config(aggregation__suite="x25519-mlkem768")
    for ask in (suite_of, settled, forecast):
        with pytest.raises(ConfigError, match=r"aggregation\.suite x25519-mlkem768 needs ML-KEM-768") as caught:
            ask(asked)
        assert "\n" not in str(caught.value)
        assert "cryptography 48 or later, or take x25519" in str(caught.value)


def test_without_ml_kem_a_plan_prints_both_suites_all_the_same(without_kem) -> None:
    """Sizes need no key."""
    found = forecast(config()).aggregation
    assert found.suite == "x25519"
    assert found.reductions["x25519"] > found.reductions["x25519-mlkem768"] > 1


def test_a_settled_config_goes_on_with_what_it_began_with(monkeypatch) -> None:
    """Also where ML-KEM is there now and was not then."""
    with monkeypatch.context() as patch:
        patch.setattr(suites, "_mlkem", None)
        before = settled(config())
    assert (before.aggregation.slots, before.aggregation.suite) == (22, "x25519")
    assert suite_of(from_toml(before.to_toml())) is Suite.X25519
    now = settled(config())
    assert (now.aggregation.slots, now.aggregation.suite) == (22, "x25519-mlkem768")
    assert settled(now) == now
    off = config(aggregation__secagg="off")
    assert settled(off) == off
