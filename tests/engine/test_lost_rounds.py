"""Noise from the operating system: a lost round may have been released, and is paid for."""

import dataclasses
import math

import pytest
from crashing import Crash, complete, open_small, resumed, secret
from federations import task_of

from flora_secure.auditing.folder import audit
from flora_secure.engine.recorded import begin
from flora_secure.engine.simulation import Simulation
from flora_secure.errors import CheckpointError
from flora_secure.privacy.accounting import epsilon_of
from flora_secure.records import checkpoints


@pytest.mark.parametrize("secagg", ["off", "semi-honest"])
def test_a_round_in_flight_is_lost_and_paid_for(task, tmp_path, monkeypatch, secagg) -> None:
    config = secret(open_small(aggregation__secagg=secagg, privacy__dropout_tolerance=0.2))
    run = begin(Simulation(config, task), tmp_path / "run")

    def killed(*_: object) -> None:
        raise Crash

    rounds = run.rounds()
    next(rounds)
    released = run.running.exchange.round
    monkeypatch.setattr(run.running.exchange, "round", lambda *given: (released(*given), killed()))
    with pytest.raises(Crash):  # the server has the sum, and nobody wrote it down
        next(rounds)

    again = resumed(tmp_path / "run", config, task)
    assert "round 2 was in flight and may have been released: it is lost and counts" in again.line
    first, lost = again.running.records
    assert lost.lost
    assert not first.lost
    assert lost.accuracy == first.accuracy  # the adapter stayed
    assert len(lost.survivors) == run.running.server.plan.survivors_minimum == 8
    report = complete(again)
    events = [record.event() for record in again.running.records]
    assert [event.round for event in events] == [1, 2, 3]
    assert [event.survivors for event in events] == [10, 8, 10]
    spent = epsilon_of(events, again.running.server.plan.delta)
    assert spent > epsilon_of([events[0], events[2]], again.running.server.plan.delta) + 0.1
    assert again.running.server.ledger.epsilon == pytest.approx(spent, rel=1e-12)
    assert spent <= 50
    assert (report.aggregation.lost, report.aggregation.aborted) == ([2], [])
    assert report.privacy.epsilon == pytest.approx(spent if secagg != "off" else report.privacy.epsilon_local)
    assert "1 of the sums are counted although they are not in the model" in report.privacy.statement
    assert "In fact 10 to 10 survived, where it is known" in report.privacy.statement
    known = [again.running.records[place].seconds["server"] for place in (0, 2)]
    assert report.aggregation.seconds.server_total == pytest.approx(sum(known) / 2)
    found = audit(tmp_path / "run", opacus=False)
    assert found.passed, [finding for finding in found.findings if finding.severity == "violation"]
    told = dataclasses.replace(report, aggregation=dataclasses.replace(report.aggregation, lost=[]))
    (tmp_path / "run/report.json").write_text(told.to_json())
    hidden = {f.check: f.evidence for f in audit(tmp_path / "run", opacus=False).findings if f.severity == "violation"}
    assert "lost is [], the rounds say [2]" in hidden["A-33"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"privacy__unit": "example"},
        {"data__clients": 20, "participation__rate": 0.6, "participation__sampling": "poisson"},
    ],
    ids=["examples", "cohorts"],
)
def test_lost_rounds_of_samples_pass_the_audit(task, tmp_path, monkeypatch, quick, changes) -> None:
    config = secret(open_small(**changes))
    if "data__clients" in changes:
        task = task_of(config)
    run = begin(Simulation(config, task), tmp_path / "run")
    rounds = run.rounds()
    next(rounds)
    monkeypatch.setattr(run.folder, "append_round", lambda *_: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        next(rounds)
    again = resumed(tmp_path / "run", config, task)
    complete(again)
    assert [record.lost for record in again.running.records] == [False, True, False]
    assert {event.round for event in again.running.server.ledger.events} == {1, 2, 3}
    found = audit(tmp_path / "run", opacus=False)
    assert [finding for finding in found.findings if finding.severity == "violation"] == []


def test_a_round_without_noise_is_run_again(task, tmp_path) -> None:
    config = secret(open_small(privacy__epsilon=math.inf))
    run = begin(Simulation(config, task), tmp_path / "run")
    next(run.rounds())
    checkpoints.announce(
        tmp_path / "run/state", dataclasses.replace(run.running.records[0], round=2), run.folder.last_hash
    )
    assert not any(record.lost for record in resumed(tmp_path / "run", config, task).rounds())


def test_a_lost_round_that_the_budget_does_not_hold_is_refused(task, tmp_path) -> None:
    config = secret(open_small())
    run = begin(Simulation(config, task), tmp_path / "run")
    next(run.rounds())
    loud = dataclasses.replace(run.running.records[0], round=2, sigma_local=0.01)
    checkpoints.announce(tmp_path / "run/state", loud, run.folder.last_hash)
    with pytest.raises(CheckpointError, match="the ledger does not take round 2 of the log: round 2 would raise"):
        resumed(tmp_path / "run", config, task)
