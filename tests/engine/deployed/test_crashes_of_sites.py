"""Sites that die at a write, at a message, or have no room on their disk: the sum is right, and everything counts."""

import errno
import math
import os
from pathlib import Path

import pytest
from crashing import Crash, FaultyOs
from given import Given, Wires

from flora_bench.federation import parties
from flora_secure.client.client import Client
from flora_secure.client.ledger import ClientLedger
from flora_secure.records import durable
from flora_secure.rounds.opening import is_opening, is_request
from flora_secure.rounds.reply import Refused, decode_reply


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the uploads of sites in this process written down, before they are masked."""
    monkeypatch.setattr(Client, "_vector", Client._vector)  # so that it is put back
    parties._keep_vectors(tmp_path / "vectors")


def rounds_of(given: Given, number: int) -> list[int]:
    return [one.event.round for one in ClientLedger(given.place(number) / "state/ledger.jsonl").given]


@pytest.mark.usefixtures("vectors")
def test_a_site_that_dies_at_any_write_answers_again_and_counts_once(tmp_path: Path, monkeypatch) -> None:
    """One run after another in the same folders, each a session of its own; site1 dies once in each, one write later
    than before, until it does not die any more. It is opened anew and asked the same."""
    given, crashes = Given(tmp_path), 0
    for fatal in range(1, 100):
        wired, site = FaultyOs(fatal), given.site(1)
        others = {number: given.site(number) for number in (0, 2)}

        def answer(client: int, message: bytes, site=site, wired=wired, others=others) -> bytes:
            if client != 1:
                return others[client].answer(message)
            with monkeypatch.context() as patch:
                patch.setattr(durable, "os", wired)
                try:
                    return site.answer(message)
                except Crash:
                    wired.calls, wired.fatal = 0, math.inf
                    site = given.site(1)
                    return site.answer(message)

        before = rounds_of(given, 1)
        coordinator = given.coordinator(Wires(answer))
        coordinator.check()
        (record,) = coordinator.rounds()
        coordinator.farewell()
        survivors, right = given.sums[-1]
        assert right
        assert set(survivors) >= {0, 2}
        assert record.survivors == survivors
        after = rounds_of(given, 1)
        assert len(after) == len(before) + 1  # once, whether its upload is in the sum or was lost with the process
        if wired.fatal != math.inf:
            assert survivors == [0, 1, 2]
            break
        crashes += 1
    assert crashes > 12  # five messages, each a write and a rename; terms; ledger


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("when", ["opening", "request", "rest"])
def test_a_site_without_room_on_its_disk_drops_out_and_is_in_the_next_round(tmp_path: Path, monkeypatch, when) -> None:
    given, full = Given(tmp_path, rounds=2), []

    class FullOs:
        def __getattr__(self, name: str):
            if name != "write":
                return getattr(os, name)

            def write(*arguments):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return write

    def answer(client: int, message: bytes) -> bytes:
        asked = {"opening": is_opening(message), "request": is_request(message)}
        due = asked.get(when, not any(asked.values()) and rounds_of(given, 2) == [1])
        if client != 2 or full or not due:
            return given.site(client).answer(message)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", FullOs())
            full.append(given.site(client).answer(message))
        assert decode_reply(full[0]) == Refused("failed")
        return full[0]

    coordinator = given.coordinator(Wires(answer))
    coordinator.check()
    first, second = coordinator.rounds()
    assert full
    assert any("No space left" in line for line in given.told)
    assert [right for _, right in given.sums] == [True, True]
    # who is out of disk after its upload has given it
    assert first.survivors == ([0, 1, 2] if when == "rest" else [0, 1])
    assert second.survivors == [0, 1, 2]
    assert rounds_of(given, 2) == ([1, 2] if when == "rest" else [2])


# the messages of a site in a run of one round, by their number; terms are the first
TRIPS = {"opening": 2, "roster": 3, "request": 4, "agreement": 5, "shares": 6}


def run(given: Given, lives: dict[int, dict], *, absence: float, again: bool = False) -> list:
    """The round over TLS, each site a process that ends as `lives` says; `again`: it is then started once more."""
    with given.listening(absence) as transport:
        for number in range(given.sites):
            given.start(number, transport.port, **lives.get(number, {}))
        everybody = frozenset(range(given.sites))
        assert transport.wait_for(everybody, given.sites, 60.0) == everybody
        if again:
            log, revived = given.told.append, set[int]()

            def revive(line: str) -> None:
                log(line)
                for number in lives:
                    if f"client-{number} is disconnected" in line and number not in revived:
                        revived.add(number)
                        assert given.lives[number].wait(20) == -9
                        given.start(number, transport.port)

            transport._log = revive
        coordinator = given.coordinator(transport)
        assert coordinator.check() == tuple(everybody)
        records = list(coordinator.rounds())
        coordinator.farewell()
        transport.dismiss()
        return records


@pytest.mark.slow
@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
def test_a_site_that_is_killed_at_a_trip_costs_itself_alone(tmp_path: Path, trip: int) -> None:
    given = Given(tmp_path)
    (record,) = run(given, {1: {"message": trip, "spoil": "die before"}}, absence=0.5)
    survivors = [0, 1, 2] if trip > TRIPS["request"] else [0, 2]
    assert given.sums == [(survivors, True)]
    assert record.survivors == survivors
    assert given.lives[1].returncode == -9
    assert rounds_of(given, 1) == ([1] if trip > TRIPS["request"] else [])


@pytest.mark.slow
@pytest.mark.parametrize("spoil", ["die before", "die after"])
@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
def test_a_site_that_is_killed_and_comes_back_within_the_round_is_in_its_sum(tmp_path, trip: int, spoil: str) -> None:
    given = Given(tmp_path)
    (record,) = run(given, {1: {"message": trip, "spoil": spoil}}, absence=20.0, again=True)
    assert given.sums == [([0, 1, 2], True)]
    assert record.recovered == 0
    assert [rounds_of(given, number) for number in range(3)] == [[1]] * 3


@pytest.mark.slow
@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
@pytest.mark.parametrize("killed", [2, 3])
def test_of_six_sites_two_may_be_killed_and_three_end_the_round_by_name(tmp_path: Path, trip: int, killed: int) -> None:
    given = Given(tmp_path, sites=6)
    lives = {number: {"message": trip, "spoil": "die before"} for number in range(killed)}
    (record,) = run(given, lives, absence=0.5)
    if killed == 2:
        survivors = list(range(6)) if trip > TRIPS["request"] else [2, 3, 4, 5]
        assert given.sums == [(survivors, True)]
    else:
        assert given.sums == []
        assert record.aborted
        assert record.released or record.exposed or not record.uploaded  # whatever was given is charged
