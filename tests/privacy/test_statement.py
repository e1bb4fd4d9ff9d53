import dataclasses
import math
from typing import Any

import pytest

from flora_secure.privacy.accounting import gaussian_epsilon
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.cross_check import accountant_versions, cross_check
from flora_secure.privacy.ledger import Ledger
from flora_secure.privacy.plan import NoisePlan
from flora_secure.privacy.statement import statement


def run(survivors: tuple[int, ...] = (95, 100, 92), **changes: Any) -> tuple[NoisePlan, Ledger]:
    base = {
        "clients": 100,
        "dimension": 64,
        "rounds": 4,
        "epsilon": 4.0,
        "delta": 1e-5,
        "clip_norm": 2.0,
        "colluders": 1,
    }
    plan = calibrate(**{**base, **changes})
    ledger = Ledger(plan.epsilon, plan.delta)
    for t, count in enumerate(survivors, 1):
        ledger.authorise(plan.event(t, plan.survivors_minimum))
        ledger.record(plan.event(t, count))
    return plan, ledger


def write(plan: NoisePlan, ledger: Ledger, **changes: Any) -> str:
    found = {"closed form": 3.5, "dp-accounting PLD": 3.5001, "opacus PRV": 3.51}
    base: dict[str, Any] = {"cross_check": found, "profile": "semi-honest", "secret_noise": True, "clip_rate": 0.25}
    return statement(plan, ledger, **{**base, "overflow_rate": 0.0, **changes})


def test_it_says_all_that_the_shared_page_lists() -> None:
    plan, ledger = run()
    found = cross_check(ledger.events, plan.delta, opacus=False)
    text = write(plan, ledger, cross_check=found)
    for words in (
        f"epsilon = {ledger.epsilon:.4f} and delta = 1e-05",
        f"mu = {ledger.mu:.4f}",
        "within the budget of epsilon = 4",
        "one client's whole contribution",
        "zero-out",
        "The server, which sees every released sum",
        "h_min = 89",
        "92 to 100 survived",
        "All 3 released sums",
        f"dp-accounting {accountant_versions(found)['dp-accounting']}",
        f"dp-accounting PLD {found['dp-accounting PLD']:.4f}",
        f"(replace-one) the same run reads epsilon = {gaussian_epsilon(2 * ledger.mu, 1e-5):.4g}",
        f"epsilon_local = {ledger.epsilon_local:.4g}",
        "Clipped: 25.00%",
        "Not covered",
        "side channels",
        "initial weights",
    ):
        assert words in text, words
    assert text.startswith("Guarantee")
    assert "SIMULATED" not in text


def test_it_changes_with_everything_it_depends_on() -> None:
    plan, ledger = run()
    texts = {"as is": write(plan, ledger)}
    for name, changes in {
        "survivors": {"survivors": (95, 100, 93)},
        "rounds": {"survivors": (95, 100)},
        "epsilon": {"epsilon": 3.0},
        "delta": {"delta": 1e-6},
        "clip": {"clip_norm": 1.0},
        "colluders": {"colluders": 2},
        "tolerance": {"dropout_tolerance": 0.2},
        "bits": {"bits": 12},
        "planned rounds": {"rounds": 5},
        "peak": {"peak_fraction": 0.5},
    }.items():
        texts[name] = write(*run(**changes))
    for name, changes in {
        "cross-check": {"cross_check": {"closed form": 3.5}},
        "malicious": {"profile": "malicious-server"},
        "off": {"profile": "off"},
        "noise": {"secret_noise": False},
        "aborted": {"aborted_rounds": 2},
        "clip rate": {"clip_rate": None},
        "overflow": {"overflow_rate": 0.01},
    }.items():
        texts[name] = write(plan, ledger, **changes)
    assert len(set(texts.values())) == len(texts)


def test_no_noise_is_said_first_and_loudly() -> None:
    text = write(*run(epsilon=math.inf))
    assert text.startswith("NO DIFFERENTIAL PRIVACY.")
    assert "Guarantee" not in text


def test_reproducible_noise_is_said_first() -> None:
    text = write(*run(), secret_noise=False)
    assert text.startswith("SIMULATED NOISE.")
    assert "not secret" in text.split("\n\n")[0]
    assert "operating system" not in text


def test_without_secure_aggregation_the_server_is_not_covered() -> None:
    text = write(*run(), profile="off")
    assert "SWITCHED OFF" in text
    assert "does NOT hold" in text
    assert "Against whom. The server" not in text


def test_a_budget_that_was_passed_is_not_glossed_over() -> None:
    plan, ledger = run(survivors=())
    event = plan.event(1, 100)
    ledger.authorise(event)
    ledger.record(dataclasses.replace(event, sigma_local=event.sigma_local / 10))
    assert "ABOVE the budget of epsilon = 4" in write(plan, ledger)


def test_nothing_released() -> None:
    text = write(*run(survivors=()), aborted_rounds=3)
    assert "Nothing was released" in text
    assert "3 further rounds were aborted" in text


def test_bad_input_is_refused() -> None:
    plan, ledger = run()
    with pytest.raises(ValueError, match="profile must be one of semi-honest, malicious-server, off, got 'none'"):
        write(plan, ledger, profile="none")
    with pytest.raises(ValueError, match="the plan's budget is epsilon 4"):
        write(plan, Ledger(3.0, 1e-5))
