import dataclasses
import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_secure.privacy.accounting import (
    default_delta,
    epsilon_local,
    epsilon_of,
    gaussian_epsilon,
    gaussian_mu,
    noise_multiplier_for,
)
from flora_secure.privacy.cross_check import CLOSED_FORM, PLD, PRV, RDP, CrossCheckError, compare, cross_check
from flora_secure.privacy.events import RoundEvent
from flora_secure.privacy.ledger import BudgetExceededError, Ledger, LedgerError


def event(z: float, number: int = 1, survivors: int = 1) -> RoundEvent:
    """A round with noise multiplier z that `survivors` clients share, the grid so fine that aliasing is nil."""
    return RoundEvent(number, survivors, 0, 100 * z / math.sqrt(survivors), 100.0, 1.0, 1)


def rounds(z: float, count: int, survivors: int = 1) -> list[RoundEvent]:
    return [event(z, t, survivors) for t in range(1, count + 1)]


def test_noise_multiplier_of_the_shared_page() -> None:
    assert noise_multiplier_for(4, 1e-5, 20) == pytest.approx(4.835103, abs=5e-7)


@pytest.mark.parametrize(("epsilon", "mu"), [(1, 0.26805), (4, 0.92493)])
def test_gaussian_dp_parameters_of_the_shared_page(epsilon: float, mu: float) -> None:
    assert 1 / noise_multiplier_for(epsilon, 1e-5, 1) == pytest.approx(mu, abs=5e-6)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=5e-5)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1, 4, 8, 60])
@pytest.mark.parametrize("delta", [1e-10, 1e-5, 1e-2])
def test_the_closed_form_is_the_privacy_profile_of_the_gaussian(epsilon: float, delta: float) -> None:
    """Balle and Wang 2018, theorem 8: δ = Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ), evaluated with mpmath."""
    import mpmath

    ctx = mpmath.MPContext()
    ctx.dps = 60
    mu = 1 / ctx.mpf(noise_multiplier_for(epsilon, delta, 1))
    found = ctx.ncdf(mu / 2 - epsilon / mu) - ctx.exp(epsilon) * ctx.ncdf(-mu / 2 - epsilon / mu)
    assert found <= delta
    assert found == pytest.approx(delta, rel=1e-5)


def test_a_published_value_of_dp_accounting() -> None:
    """dp-accounting 0.6.0, pld_privacy_accountant_test.py, test_gaussian_basic: three releases with z = √3."""
    run = rounds(math.sqrt(3), 3)
    assert epsilon_of(run, 0.126936) == pytest.approx(1, abs=1e-4)
    assert cross_check(run, 0.126936, opacus=False)[PLD] == pytest.approx(1, abs=1e-3)


def test_uneven_rounds_compose_as_one_gaussian() -> None:
    zs = [3.0, 4.0, 12.0]
    mu = math.sqrt(1 / 9 + 1 / 16 + 1 / 144)
    assert gaussian_mu(zs) == pytest.approx(mu, rel=1e-14)
    assert epsilon_of([event(z, t + 1) for t, z in enumerate(zs)], 1e-5) == pytest.approx(gaussian_epsilon(mu, 1e-5))


def test_one_upload_alone_and_replace_one_of_the_shared_page() -> None:
    run = rounds(noise_multiplier_for(4, 1e-5, 20), 20, survivors=100)
    assert epsilon_of(run, 1e-5) == pytest.approx(4, abs=1e-6)
    assert epsilon_local(run, 1e-5) == pytest.approx(81, abs=0.5)
    assert gaussian_epsilon(2 * gaussian_mu(e.noise_multiplier for e in run), 1e-5) == pytest.approx(9.09, abs=0.01)


@pytest.mark.parametrize(("clients", "delta"), [(2, 1e-5), (100, 1e-5), (10**5, 10**-5.5), (10**6, 10**-6.6)])
def test_default_delta(clients: int, delta: float) -> None:
    assert default_delta(clients) == pytest.approx(delta)


def test_fewer_survivors_and_known_noise_cost_more() -> None:
    full = RoundEvent(1, 100, 0, 2.5, 2.0, 2.0, 2560)
    fewer = dataclasses.replace(full, survivors=90)
    colluding = dataclasses.replace(full, colluders=10)
    assert full.noise_multiplier == pytest.approx(2.5 * 10 / 4)
    assert epsilon_of([full], 1e-5) < epsilon_of([fewer], 1e-5)
    assert fewer.noise_multiplier == colluding.noise_multiplier
    assert full.noise_multiplier_local == fewer.noise_multiplier_local == 0.625


def test_aliasing_is_paid_for() -> None:
    coarse = RoundEvent(1, 100, 0, 0.7, 0.7, 2.0, 5)
    kappa = coarse.aliasing_slack
    assert 0.1 < kappa < 1
    mu = 1 / coarse.noise_multiplier
    paid = epsilon_of([coarse], 1e-5)
    assert paid == pytest.approx(gaussian_epsilon(mu, 1e-5 * math.exp(-kappa)) + 2 * kappa)
    assert paid > gaussian_epsilon(mu, 1e-5) + 2 * kappa
    assert epsilon_of([dataclasses.replace(coarse, sigma_local=0.3)], 1e-5) == math.inf  # the bound does not apply


def test_the_ledger_refuses_the_round_that_would_pass_the_budget() -> None:
    ledger = Ledger(4, 1e-5)
    z = noise_multiplier_for(4, 1e-5, 20)
    for e in rounds(z, 20):
        ledger.authorise(e)
        ledger.record(e)
    assert 3.999999 < ledger.epsilon <= 4
    assert ledger.mu == pytest.approx(0.92493, abs=5e-6)
    with pytest.raises(
        BudgetExceededError, match=r"round 21 would raise epsilon from 4 to 4\.1\d+, above the budget of 4"
    ):
        ledger.authorise(event(z, 21))
    assert len(ledger.events) == 20
    with pytest.raises(LedgerError, match="not authorised"):
        ledger.record(event(z, 21))
    ledger.authorise(event(1e9, 21))  # a round that costs next to nothing still fits


def test_a_round_with_fewer_survivors_than_announced_is_counted_as_it_was() -> None:
    ledger = Ledger(4, 1e-5)
    ledger.authorise(event(2.0))
    ledger.record(event(1.0))
    assert ledger.epsilon == gaussian_epsilon(1.0, 1e-5)
    assert ledger.epsilon > 4
    with pytest.raises(BudgetExceededError):
        ledger.authorise(event(100.0, 2))


def test_the_ledger_wants_rounds_in_order_each_authorised_once() -> None:
    ledger = Ledger(4, 1e-5)
    with pytest.raises(LedgerError, match="not authorised"):
        ledger.record(event(5.0, 1))
    ledger.authorise(event(5.0, 1))
    with pytest.raises(LedgerError, match="not authorised"):
        ledger.record(event(5.0, 2))
    ledger.record(event(5.0, 1))
    with pytest.raises(LedgerError, match="not authorised"):
        ledger.record(event(5.0, 1))
    with pytest.raises(LedgerError, match="round 1 comes after round 1"):
        ledger.authorise(event(5.0, 1))
    ledger.authorise(event(5.0, 2))  # aborted, say: nothing recorded, and the same number may be tried again
    ledger.authorise(event(5.0, 2))
    ledger.record(event(5.0, 2))
    assert [e.round for e in ledger.events] == [1, 2]


def test_no_noise_needs_an_infinite_budget() -> None:
    assert noise_multiplier_for(math.inf, 1e-5, 20) == 0.0
    free = Ledger(math.inf, 1e-5)
    assert free.epsilon == 0.0
    free.authorise(event(0.0))
    free.record(event(0.0))
    assert free.epsilon == free.mu == free.epsilon_local == math.inf
    with pytest.raises(BudgetExceededError, match="to inf"):
        Ledger(4, 1e-5).authorise(event(0.0))


@settings(max_examples=30)
@given(st.lists(st.floats(0.5, 50), min_size=1, max_size=12), st.floats(1e-9, 1e-2))
def test_epsilon_grows_with_every_round_and_ignores_order(zs: list[float], delta: float) -> None:
    events = [event(z, t + 1) for t, z in enumerate(zs)]
    spent = [epsilon_of(events[:k], delta) for k in range(len(zs) + 1)]
    assert spent[0] == 0.0
    assert all(b > a or a == b == 0.0 for a, b in itertools.pairwise(spent))
    assert epsilon_of(events[::-1], delta) == pytest.approx(spent[-1], rel=1e-12)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0, 1e-5), (-1, 1e-5), (math.nan, 1e-5), (4, 0), (4, 1), (4, -1), (4, math.nan)]
)
def test_bad_budgets_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon|delta"):
        Ledger(epsilon, delta)
    with pytest.raises(ValueError, match=r"epsilon|delta"):
        noise_multiplier_for(epsilon, delta, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"round": 0},
        {"survivors": 3, "colluders": 3},
        {"colluders": -1},
        {"sigma_local": -1.0},
        {"sigma_local": math.nan},
        {"scale": 0.0},
        {"clip_norm": math.inf},
        {"dimension": 0},
    ],
)
def test_bad_events_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(RoundEvent(1, 10, 0, 2.5, 2.0, 2.0, 7), **change)


@pytest.mark.parametrize(
    "run", [rounds(noise_multiplier_for(4, 1e-5, 20), 20), [event(z, t + 1) for t, z in enumerate((2, 3, 3, 9))]]
)
def test_independent_accountants_agree(run: list[RoundEvent]) -> None:
    found = cross_check(run, 1e-5)
    assert list(found) == [CLOSED_FORM, PLD, RDP, PRV]
    assert found[PLD] == pytest.approx(found[CLOSED_FORM], abs=1e-3)
    assert found[PRV] == pytest.approx(found[CLOSED_FORM], abs=0.02)
    assert found[RDP] > found[PLD]


def test_the_cross_check_includes_the_aliasing_slack() -> None:
    coarse = RoundEvent(1, 100, 0, 1.0, 0.7, 2.0, 5)
    assert coarse.aliasing_slack > 1e-3
    found = cross_check([coarse], 1e-5, opacus=False)
    assert found[PLD] == pytest.approx(found[CLOSED_FORM], abs=5e-4)


def test_an_accountant_that_cannot_count_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(counts: object, delta: float) -> float:
        raise ValueError("Floating point errors will dominate")

    run = rounds(10.0, 20)
    assert set(cross_check(run, 1e-12)) == {CLOSED_FORM, PLD, RDP, PRV}
    monkeypatch.setattr("flora_secure.privacy.cross_check._prv", refuses)
    assert set(cross_check(run, 1e-12)) == {CLOSED_FORM, PLD, RDP}


def test_nothing_to_cross_check() -> None:
    assert cross_check([], 1e-5) == {CLOSED_FORM: 0.0}
    assert cross_check([event(0.0)], 1e-5) == {CLOSED_FORM: math.inf}


@pytest.mark.parametrize(
    ("name", "epsilon", "words"),
    [(PLD, 4.03, "apart"), (PRV, 3.97, "apart"), (PLD, math.nan, "apart"), (RDP, 3.9, "below")],
)
def test_disagreement_is_an_error(name: str, epsilon: float, words: str) -> None:
    good = {CLOSED_FORM: 4.0, PLD: 4.0001, RDP: 4.3, PRV: 4.01}
    compare(good)
    with pytest.raises(CrossCheckError, match=words):
        compare({**good, name: epsilon})


def test_a_wrong_closed_form_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accountants see the events, not the ledger's figure."""
    monkeypatch.setattr(
        "flora_secure.privacy.cross_check.epsilon_of", lambda events, delta: 0.9 * epsilon_of(events, delta)
    )
    with pytest.raises(CrossCheckError):
        cross_check(rounds(5.0, 20), 1e-5, opacus=False)


def test_planning_imports_neither_torch_nor_opacus() -> None:
    code = (
        "import sys, flora_secure.privacy.encoding, flora_secure.records.statement; "
        "import flora_secure.privacy.cross_check as c; "
        "from flora_secure.privacy.calibration import calibrate; "
        "p = calibrate(clients=100, dimension=10, rounds=2, epsilon=4, delta=1e-5, clip_norm=1.0); "
        "c.cross_check(p.worst_events(), 1e-5, opacus=False); "
        "print([m for m in ('torch', 'opacus') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
