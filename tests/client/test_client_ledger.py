"""The client's own ledger: its closed form against dp-accounting, and that nothing given is forgotten."""

import json
import math
from pathlib import Path

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans_of_clients import event, sampled

from flora_secure.client.ledger import ClientLedger, gaussian_epsilon, spent, within
from flora_secure.errors import Refusal, RefusalError, RunFolderError
from flora_secure.privacy.accounting import epsilon_of

SESSION, OTHER = bytes(16), bytes([1]) * 16


@settings(max_examples=200, deadline=None, derandomize=True)
@given(mu=st.floats(1e-3, 40.0), log_delta=st.floats(-12, -1))
def test_the_closed_form_is_that_of_dp_accounting_and_never_below(mu: float, log_delta: float) -> None:
    delta = 10**log_delta
    expected = float(dp_accounting.get_epsilon_gaussian(1 / mu, delta))
    found = gaussian_epsilon(mu, delta)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert found >= expected - 1e-9


@pytest.mark.parametrize("sigma", [2.0, 20.0, 200.0])
def test_what_fits_is_what_costs_no_more(sigma: float) -> None:
    events = [event(number, sigma) for number in (1, 2, 3)]
    cost = spent(events, 1e-5)
    assert within(events, cost * 1.0001 + 1e-6, 1e-5)
    assert not within(events, cost * 0.9999 - 1e-6, 1e-5)
    assert within(events, math.inf, 1e-5)
    assert not within([event(1, sigma=0.0)], 1e6, 1e-5)
    assert within([sampled(1)], spent([sampled(1)], 1e-5), 1e-5)


def test_rounds_add_up_as_the_servers_ledger_counts_them() -> None:
    events = [event(number) for number in range(1, 6)]
    assert spent(events, 1e-5) == pytest.approx(epsilon_of(events, 1e-5), rel=1e-7)
    assert spent([], 1e-5) == 0
    assert spent([event(1, sigma=0.0)], 1e-5) == math.inf
    with_coins = [sampled(number) for number in (1, 2)]
    assert spent(with_coins, 1e-5) == epsilon_of(with_coins, 1e-5)


def test_it_is_on_disk_before_an_upload_leaves_and_refuses_beyond_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    budget = spent([event(1), event(2)], 1e-5) + 1e-6
    ledger = ClientLedger(path)
    ledger.enter(SESSION, event(1), budget, 1e-5)
    ledger.enter(SESSION, event(1), budget, 1e-5)  # asked for again: the same upload
    again = ClientLedger(path)
    assert again.given == ledger.given
    assert len(again.given) == 1
    again.enter(OTHER, event(1), budget, 1e-5)  # another session has a round 1 of its own
    before = path.read_bytes()
    with pytest.raises(RefusalError, match="above its budget") as caught:
        again.enter(SESSION, event(2), budget, 1e-5)
    assert caught.value.code is Refusal.BUDGET
    assert path.read_bytes() == before
    assert again.rounds_of(SESSION) == [1]
    assert repr(again) == "ClientLedger(rounds=2)"
    assert again.epsilon(1e-5) == pytest.approx(budget, abs=1e-5)


def test_a_full_disk_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = ClientLedger(path)
    ledger.enter(SESSION, event(1), 100, 1e-5)

    def half(where: Path, data: bytes, mode: int) -> None:
        with where.open("ab") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flora_secure.client.ledger.append", half)
        with pytest.raises(OSError, match="No space"):
            ledger.enter(SESSION, event(2), 100, 1e-5)
    assert ledger.rounds_of(SESSION) == [1]
    ledger.enter(SESSION, event(2), 100, 1e-5)
    assert ClientLedger(path).rounds_of(SESSION) == [1, 2]


def test_a_line_that_a_crash_cut_off_goes_and_any_other_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ClientLedger(path).enter(SESSION, event(1), 100, 1e-5)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert ClientLedger(path).rounds_of(SESSION) == [1]
    assert path.read_bytes() == whole
    table = json.loads(whole)
    for wrong in (
        whole[1:],
        b"[]\n",
        b"\n",
        json.dumps({**table, "schema": "flora-secure/client-ledger/9"}).encode() + b"\n",
        json.dumps({**table, "sigma_local": "1"}).encode() + b"\n",
        json.dumps({**table, "scale": -1.0}).encode() + b"\n",
        json.dumps({**table, "session": "no hex"}).encode() + b"\n",
        json.dumps({**table, "extra": 1}).encode() + b"\n",
    ):
        path.write_bytes(wrong)
        with pytest.raises(RunFolderError, match="line 1"):
            ClientLedger(path)
