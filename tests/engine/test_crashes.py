"""Killed at any write, a run ends as if it had not been, and no round that was released is forgotten."""

import os
import shutil

import pytest
from crashing import complete, crashed, open_small, resumed, secret, timeless
from federations import prepare

from flora_secure.auditing.folder import audit
from flora_secure.engine.recorded import begin, go_on
from flora_secure.engine.simulation import Simulation
from flora_secure.records.run_folder import reopen


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aggregation__secagg": "semi-honest", "aggregation__dropout": 0.1, "training__rounds": 2},
        {
            "privacy__adaptive_clip": 0.5,
            "participation__rate": 0.4,
            "participation__sampling": "fixed",
            "participation__min_separation": 2,
            "training__rounds": 2,
        },
        {"model__rule": "alternate", "model__rank": 2, "training__rounds": 2},
    ],
    ids=["plain", "masked", "cohorts", "alternating"],
)
def test_a_crash_at_any_write_changes_no_bit_of_the_result(task, tmp_path, monkeypatch, quick, changes) -> None:
    config = open_small(**changes)
    if "model__rule" in changes:
        task = prepare(config, task.federation)
    complete(begin(Simulation(config, task), tmp_path / "whole"))
    expected, fatal, kept = timeless(tmp_path / "whole"), 0, set()
    while True:
        fatal += 1
        path = tmp_path / f"run{fatal}"
        if not crashed(monkeypatch, fatal, lambda path=path: complete(begin(Simulation(config, task), path))):
            break
        if not (path / "config.toml").exists():  # nothing had begun
            continue
        if not (path / "report.json").exists():
            complete(resumed(path, config, task))
        assert timeless(path) == expected, f"after a crash at call {fatal}"
        kept |= set(os.listdir(path))
        shutil.rmtree(path)
    assert fatal > 18
    assert kept - {"state"} == {"adapter", "config.toml", "report.json", "rounds.jsonl", "sums"}


def test_crashes_while_resuming_are_survived_too(task, tmp_path, monkeypatch, quick) -> None:
    config = open_small(training__rounds=2)
    complete(begin(Simulation(config, task), tmp_path / "whole"))
    expected = timeless(tmp_path / "whole")
    torn, fatal = tmp_path / "torn", 0
    half_a_line = next(
        k
        for k in range(1, 200)
        if crashed(monkeypatch, k, lambda: (shutil.rmtree(torn, True), complete(begin(Simulation(config, task), torn))))
        and (torn / "rounds.jsonl").exists()
        and len((text := (torn / "rounds.jsonl").read_bytes()).split(b"\n")) == 2
        and not text.endswith(b"\n")
    )
    assert half_a_line
    while True:
        fatal += 1
        path = tmp_path / f"again{fatal}"
        shutil.copytree(torn, path)
        if not crashed(monkeypatch, fatal, lambda path=path: complete(resumed(path, config, task))):
            break
        if not (path / "report.json").exists():
            complete(resumed(path, config, task))
        assert timeless(path) == expected
    assert fatal > 12


def test_a_crash_at_any_write_forgets_no_release(task, tmp_path, monkeypatch, quick) -> None:
    """Every sum that was made is an event of the ledger in the end, wherever the run was killed."""
    config, made = secret(open_small(training__rounds=2)), []
    whole = begin(Simulation(config, task), tmp_path / "whole")
    complete(whole)

    def watched() -> Simulation:
        simulation = Simulation(config, task)
        inner = simulation.exchange.round
        monkeypatch.setattr(
            simulation.exchange,
            "round",
            lambda invited, *given: (made.append(invited.round), inner(invited, *given))[1],
        )
        return simulation

    fatal, lost = 0, 0
    while True:
        fatal += 1
        path = tmp_path / f"run{fatal}"
        made.clear()
        if not crashed(monkeypatch, fatal, lambda path=path: complete(begin(watched(), path))):
            break
        if not (path / "config.toml").exists() or (path / "report.json").exists():
            continue
        found = reopen(path)
        again = go_on(watched(), found)
        complete(again)
        assert len(made) == len(set(made)), f"a crash at call {fatal}: a round was released twice"
        assert set(made) <= {event.round for event in again.running.server.ledger.events}
        assert again.running.server.ledger.epsilon <= 50
        lost += sum(record.lost for record in again.running.records)
        assert audit(path, opacus=False).passed, f"a crash at call {fatal}"
    # a crash in the bytes of sum or state, in the name of either, or in the line, of each round
    assert lost == 2 * 5
