"""A fork copies every position, and only the process that made one may move it."""

import os
import threading

import pytest
from attacker import at, collected, step
from cohorts import IDENTITIES, Cohort, semi_honest
from test_threads import LAST, profiles, stopped

from flora_protocols import ClientCollect, ClientDone, Code, MisuseError, Trip, load_position

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
PATIENCE = 20


def forked(act):
    """What `act()` says, a short text, in a child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = b"died"
        try:
            said = act().encode()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def refusal(act):
    """The code of the error, or that there was none."""
    try:
        act()
    except MisuseError as error:
        return error.code.value if "forked" in str(error) else str(error)
    return "answered"


@profiles
def test_a_forked_process_cannot_answer(make):
    """Neither a client's copy nor the server's, in no trip and between two rounds, whether or not the position has
    moved at home. At home all goes on as if there had been no fork."""
    cohort = Cohort(make(slots=2))
    while True:
        client = cohort.clients[0]
        acts = [client.dump]
        if not isinstance(client, ClientDone):
            acts += [lambda: step(cohort, 0), lambda: cohort.server.receive(1, b""), lambda: cohort.server.close()]
        if hasattr(client, "leave"):
            acts.append(client.leave)
        if cohort.prepared is not None:
            acts.append(lambda: cohort.prepared.begin(cohort.start))
        if hasattr(client, "check"):
            acts.append(lambda client=client: client.check(cohort.start))
        for act in acts:
            assert forked(lambda act=act: refusal(act)) == Code.SPENT.value
        if isinstance(client, ClientDone):
            return
        if isinstance(client, ClientCollect):
            collected(cohort, 0)
        elif cohort.server.trip is Trip.UNMASK:
            cohort.finish()
            if cohort.prepared.next_slot < 2:
                cohort.again()
        else:
            cohort.trip()
        assert forked(lambda old=client: refusal(old.dump)) == Code.SPENT.value


def test_both_secrets_of_a_peer_are_not_to_be_had_by_a_fork():
    """The attack: one position, two survivor sets, one answer at home and the other in the fork."""
    cohort = at(Cohort(semi_honest()), Trip.UNMASK)
    position, mail = cohort.clients[0], cohort.mail[0]
    assert forked(lambda: refusal(lambda: position.unmask(mail))) == "spent"
    position.unmask(mail)
    with pytest.raises(MisuseError, match="again"):
        position.unmask(mail)


def test_no_slot_is_used_at_home_and_in_a_fork():
    """The attack: one slot, two vectors; their difference would be plain to the server."""
    cohort = at(Cohort(semi_honest(slots=2)), Trip.MASK)
    ready, start = collected(cohort, 0), cohort.start
    assert forked(lambda: refusal(lambda: ready.mask(start, cohort.vectors[1]))) == "spent"
    ready.mask(start, cohort.vectors[0])


@profiles
def test_a_loaded_position_belongs_to_who_loaded_it(make):
    """Dumped at home, it is moved in the fork: that is how positions change processes."""
    params = make()
    identity = IDENTITIES[0] if params.malicious else None
    cohort = Cohort(params)
    position = cohort.clients[0]
    dump = position.dump()

    def move():
        loaded = load_position(params, dump, identity=identity)
        loaded.advertise()
        return "answered"

    assert forked(move) == "answered"
    loaded = load_position(params, dump, identity=identity)
    assert forked(lambda: refusal(loaded.advertise)) == "spent"


def test_a_fork_in_the_middle_of_a_transition_does_not_hang(monkeypatch):
    """Another thread holds the position's locks in the moment of the fork, in the copy for ever."""
    cohort = Cohort(semi_honest())
    client = cohort.clients[0]
    with stopped(monkeypatch, LAST["ClientAdvertise"], client.advertise) as moving:
        said = []
        asking = threading.Thread(target=lambda: said.append(forked(lambda: refusal(client.advertise))), daemon=True)
        asking.start()
        asking.join(PATIENCE)
        assert said == ["spent"]
    assert moving.result(PATIENCE)


def test_what_shows_of_a_position_shows_in_a_fork_too():
    cohort = Cohort(semi_honest())
    client = cohort.clients[0]
    assert forked(lambda: f"{client!r} {client.spent} {client.trip.name}") == f"{client!r} False ADVERTISE"
