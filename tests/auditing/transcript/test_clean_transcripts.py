"""Transcripts of runs that went as they should: whatever the mode, nothing is found."""

import dataclasses
import os
from pathlib import Path

import pytest
from crashing import resumed
from falsifying import small, written
from federations import task_of
from given import Given, Wires
from transcripts import audited, recorded, serialised, unclean

from flora_bench.federation import parties
from flora_protocols import Trip
from flora_secure.auditing.findings import OK
from flora_secure.auditing.folder import audit
from flora_secure.client.client import Client
from flora_secure.engine.recorded import begin, go_on
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.planning.config import override
from flora_secure.planning.masking import settled
from flora_secure.records.reading import read_run
from flora_secure.records.run_folder import reopen
from flora_secure.records.transcript.reading import path_of

MODES = {
    "semi-honest": {},
    "malicious-server": {"aggregation__secagg": "malicious-server"},
    "x25519": {"aggregation__suite": "x25519", "aggregation__secagg": "malicious-server"},
    "a session a round": {"aggregation__slots": 1},
    "two slots": {"aggregation__slots": 2, "aggregation__secagg": "malicious-server"},
    "sparse": {"aggregation__neighbours": 6},
    "cohorts": {"participation__sampling": "fixed", "participation__rate": 0.6, "privacy__dropout_tolerance": 0.4,
                "data__clients": 20},
    "examples": {"privacy__unit": "example"},
    "wide": {"privacy__bits": 32},
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_a_clean_transcript_passes(mode: str, digits: Task, tmp_path: Path) -> None:
    config = small(evidence__transcript=True, **MODES[mode])
    plain = {"data__clients", "privacy__unit"}
    run = written(config, digits if not plain & MODES[mode].keys() else task_of(config), tmp_path / "run")
    assert unclean(run) == {}
    found = audited(run)
    assert len(found.findings) == 16
    assert not any(one.alarm for one in found.measurements)
    assert "3 rounds replayed" in next(f.evidence for f in found.findings if f.check == "T-10")
    for number in (1, 2, 3):
        assert serialised(recorded(run, number)) == path_of(run / "transcript", number).read_bytes()


def test_rounds_that_end_without_a_sum_pass(digits: Task, tmp_path: Path) -> None:
    """Too many drop out for the noise, after the uploads; the session goes on."""
    config = small(evidence__transcript=True, aggregation__dropout=0.3)
    run = written(config, digits, tmp_path / "run")
    assert all(record.aborted for record in read_run(run).records)
    assert unclean(run) == {}


def test_a_run_that_was_killed_and_goes_on_begins_another_session(digits: Task, tmp_path: Path) -> None:
    config = settled(small(evidence__transcript=True))
    rounds = begin(Simulation(config, digits), tmp_path / "run").rounds()
    next(rounds)
    rounds.close()
    list(resumed(tmp_path / "run", config, digits).rounds())
    assert [Trip.ADVERTISE in {one.trip for one in recorded(tmp_path / "run", n).sent} for n in (1, 2, 3)] == [
        True, True, False,
    ]  # fmt: skip
    assert unclean(tmp_path / "run") == {}


class Killed(BaseException):
    """The server's process ends here."""


def test_a_lost_round_leaves_what_was_sent_until_then(digits: Task, tmp_path: Path) -> None:
    """Killed between the uploads and the shares; with noise that is a secret, the round is lost."""
    secret = small(evidence__transcript=True)
    config = settled(dataclasses.replace(secret, privacy=dataclasses.replace(secret.privacy, simulation_noise=False)))
    simulation = Simulation(config, digits)
    rounds = begin(simulation, tmp_path / "run").rounds()
    next(rounds)
    workers = simulation.exchange._workers
    replies, calls = workers.exchange, []

    def dying(outbox):
        calls.append(outbox)
        if len(calls) == 2:
            raise Killed
        return replies(outbox)

    workers.exchange = dying
    with pytest.raises(Killed):
        next(rounds)
    assert unclean(tmp_path / "run") == {}  # in flight: beyond the log
    list(resumed(tmp_path / "run", config, digits).rounds())
    records = read_run(tmp_path / "run").records
    assert [record.lost for record in records] == [False, True, False]
    assert records[1].transcript_hash is None
    assert {one.trip for one in recorded(tmp_path / "run", 2).sent} == {Trip.MASK, Trip.UNMASK}
    assert not recorded(tmp_path / "run", 2).complete
    assert unclean(tmp_path / "run") == {}


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the uploads of sites in this process written down, before they are masked."""
    monkeypatch.setattr(Client, "_vector", Client._vector)  # so that it is put back
    parties._keep_vectors(tmp_path / "vectors")


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("trip", [Trip.ADVERTISE, Trip.ENCAPSULATE, Trip.SHARE, Trip.MASK, Trip.AGREE, Trip.UNMASK])
def test_a_federation_whose_sites_drop_out_at_any_trip_passes(trip: Trip, tmp_path: Path) -> None:
    """Real sites over wires; one is silent in one trip of the first round, and answers in all others."""
    given, heard = Given(tmp_path, sites=5, rounds=2), list[int]()
    given.config = override(given.config, {"evidence.transcript": True})
    sites = [given.site(number) for number in range(5)]
    due = {Trip.ADVERTISE: 1, Trip.ENCAPSULATE: 2, Trip.SHARE: 3, Trip.MASK: 4, Trip.AGREE: 5, Trip.UNMASK: 6}[trip]

    def answer(client: int, message: bytes) -> bytes | None:
        if client == 2:
            heard.append(len(message))
            if len(heard) == due + 1:  # the first asks for its terms
                return None
        return sites[client].answer(message)

    coordinator = given.coordinator(Wires(answer))
    coordinator.check()
    for _ in begin(coordinator, tmp_path / "run").rounds():
        pass
    first, second = coordinator.server.records
    assert first.dropped == ([2] if trip < Trip.AGREE else [])
    assert second.transcript_hash
    assert unclean(tmp_path / "run") == {}
    assert all(right for _, right in given.sums)


@pytest.mark.usefixtures("vectors")
def test_a_federation_whose_server_is_started_again_passes(tmp_path: Path) -> None:
    given = Given(tmp_path, sites=4, rounds=3)
    given.config = override(given.config, {"evidence.transcript": True})
    sites = [given.site(number) for number in range(4)]
    wires = Wires(lambda client, message: sites[client].answer(message))
    first = begin(given.coordinator(wires), tmp_path / "run")
    first.running.check()
    next(first.rounds())
    again = go_on(given.coordinator(wires), _freed(tmp_path / "run", first))
    again.running.check()
    list(again.rounds())
    assert unclean(tmp_path / "run") == {}
    assert {block.name: block.left_out for block in audit(tmp_path / "run", opacus=False).blocks}["transcript"] is None


def _freed(path: Path, run):
    os.close(run.folder._lock)
    return reopen(path)


def test_a_run_that_keeps_its_messages_is_compared_with_one_without_noise(digits: Task, tmp_path: Path) -> None:
    """Which has no masks, and so nothing to keep."""
    written(small(evidence__transcript=True), digits, tmp_path / "run", ("no-noise",))
    assert read_run(tmp_path / "run").report.competitors.no_noise is not None


@pytest.mark.parametrize("how", ["off", "counted"])
def test_without_masks_there_is_nothing_to_keep(how: str) -> None:
    changes = {"aggregation__secagg": "off"} if how == "off" else {"aggregation__masking": "counted"}
    with pytest.raises(ValueError, match=r"evidence\.transcript True keeps .* leave it out"):
        small(evidence__transcript=True, **changes)
    assert small(evidence__transcript=False, **changes).evidence.transcript is False


def test_a_run_without_a_transcript_says_so(genuine: Path, open_run: Path, counted_run: Path) -> None:
    assert "kept none" in audited(genuine).left_out
    assert "masking was off" in audited(open_run).left_out
    assert "counted" in audited(counted_run).left_out


def test_findings_that_are_ok_have_evidence(digits: Task, tmp_path: Path) -> None:
    found = audited(written(small(evidence__transcript=True), digits, tmp_path / "run"))
    assert all(f.evidence for f in found.findings if f.severity == OK)
