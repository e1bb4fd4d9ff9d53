"""Positions in the hands of several threads: one transition all the same, and no message lost or counted twice.

Nothing is left to a race: a function inside the transition stops the first thread that comes by, until it is let go.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, wraps

import pytest
from attacker import at, closed, collected, others_send, step
from cohorts import IDENTITIES, Cohort, hybrid, malicious, semi_honest

from flora_protocols import (
    ClientCollect,
    ClientReady,
    ClientUnmask,
    Code,
    MisuseError,
    PeerError,
    ServerPrepared,
    ServerUnmask,
    Suite,
    TooFewSurvivors,
    Trip,
)

PATIENCE = 20  # seconds until a test that hangs fails
MOMENT = 0.2  # seconds in which a thread that need not wait is long done
IN_USE = "in use by another thread; go on with the position returned there, and call this one again only if that raises"
LAST = {  # what each transition of a client does last
    "ClientAdvertise": "setup_messages.encode_advertisement",
    "ClientEncapsulate": "setup_messages.encode_ciphertexts",
    "ClientDecapsulate": "setup_messages.encode_shares",
    "ClientShare": "setup_messages.encode_shares",
    "ClientCollect": "slots.Slots.of",
    "ClientReady": "round_messages.encode_upload",
    "ClientAgree": "round_messages.encode_endorsement",
    "ClientUnmask": "round_messages.encode_reveal",
}


def signed_hybrid(clients=4, **more):
    return malicious(clients, suite=Suite.X25519_MLKEM768, **more)


profiles = pytest.mark.parametrize("make", [semi_honest, malicious, hybrid, signed_hybrid])


@contextmanager
def stopped(monkeypatch, inner, call, error=None):
    """`call` in another thread, where `inner` holds it up, to raise `error` when let go. Gives its future."""
    inside, go = threading.Event(), threading.Event()
    *names, last = inner.split(".")
    owner = __import__(f"flora_protocols.{names[0]}", fromlist=names)
    for name in names[1:]:
        owner = getattr(owner, name)
    truth = getattr(owner, last)

    @wraps(truth)
    def held_up(*args, **kwargs):
        if not inside.is_set():  # others pass
            inside.set()
            assert go.wait(PATIENCE)
            if error is not None:
                raise error
        return truth(*args, **kwargs)

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(owner, last, held_up)
        try:
            future = pool.submit(call)
            assert inside.wait(PATIENCE)
            yield future
        finally:
            go.set()


def stages(make):
    """A cohort before each transition of client 0."""
    cohort = Cohort(make(slots=2))
    while True:
        yield cohort
        if type(cohort.clients[0]) is ClientCollect:
            collected(cohort, 0)
        elif type(cohort.clients[0]) is ClientUnmask:
            cohort.finish()
            return
        else:
            cohort.trip()


def before_mask(cohort):
    """What everybody does in MASK; nothing of it is sent yet."""
    at(cohort, Trip.MASK)
    return {index: cohort.move(index) for index in range(4)}


@profiles
def test_a_second_thread_is_refused(make, monkeypatch):
    """Whichever transition is under way, neither it nor a dump is made beside it; the first one succeeds."""
    cohort = Cohort(make())
    while True:
        client = cohort.clients[0]
        with stopped(monkeypatch, LAST[type(client).__name__], lambda: step(cohort, 0)) as first:
            with pytest.raises(MisuseError, match=IN_USE):
                step(cohort, 0)
            with pytest.raises(MisuseError, match="cannot dump now, it is " + IN_USE):
                client.dump()
            assert not client.spent
        assert client.spent
        with pytest.raises(MisuseError, match="again; go on"):
            step(cohort, 0)
        moved = first.result()
        if isinstance(moved, ClientReady):
            cohort.clients[0] = moved
            continue
        cohort.clients[0], message = moved
        cohort.server.receive(0, message)
        others_send(cohort, 0)
        if type(cohort.server) is ServerUnmask:
            cohort.result()
            return
        closed(cohort)


@pytest.mark.parametrize(
    ("make", "trip"), [(semi_honest, Trip.UNMASK), (malicious, Trip.AGREE), (malicious, Trip.UNMASK)]
)
@pytest.mark.parametrize("answers_first", [True, False])
def test_no_leaving_beside_an_answer(make, trip, answers_first, monkeypatch):
    """Who answers cannot leave at the same time, and take the later slots along twice; nor the other way round."""
    cohort = at(Cohort(make(slots=2)), trip)
    client = cohort.clients[0]
    inner = LAST[type(client).__name__] if answers_first else "client_round._InRound._after"
    acts = [lambda: step(cohort, 0), client.leave]
    first, second = acts if answers_first else acts[::-1]
    with stopped(monkeypatch, inner, first), pytest.raises(MisuseError, match=IN_USE):
        second()
    assert client.spent


def test_a_slot_is_begun_once(cohort, monkeypatch):
    """Of two threads that begin a round the second waits, and finds the slot used."""
    before_mask(cohort)
    prepared = cohort.prepared
    prepared._next = 0
    start = prepared.next_round(1, bytes(32))
    with ThreadPoolExecutor(1) as pool:
        with stopped(monkeypatch, "prepared.ServerMask", lambda: prepared.begin(start)) as first:
            second = pool.submit(prepared.begin, start)
            time.sleep(MOMENT)
            assert not second.done()
        assert first.result().trip is Trip.MASK
        with pytest.raises(MisuseError, match="slot 0 was used or passed over"):
            second.result(PATIENCE)
    assert not prepared.spent


@profiles
def test_no_transition_beside_a_dump(make, monkeypatch):
    for cohort in stages(make):
        client = cohort.clients[0]
        with stopped(monkeypatch, "member._sealed", client.dump) as first, pytest.raises(MisuseError, match=IN_USE):
            step(cohort, 0)
        assert client.spent
        identity = IDENTITIES[0] if cohort.params.malicious else None
        cohort.clients[0] = type(client).load(cohort.params, first.result(), identity=identity)


@profiles
def test_a_refused_message_gives_the_claim_back(make, monkeypatch):
    """The position is claimed while a message is looked at, and as good as before when it has been refused."""
    for cohort in stages(make):
        client, error = cohort.clients[0], PeerError("server", "says something wrong", Code.BAD_BODY)
        inner = LAST[type(client).__name__]
        move = partial(step, cohort, 0)
        with stopped(monkeypatch, inner, move, error) as first, pytest.raises(MisuseError, match=IN_USE):
            move()
        assert first.exception() is error
        assert not client.spent


def test_a_position_is_claimed_from_within_too(cohort):
    """What a caller hands in cannot move the position that is calling it."""

    def meddling(size):
        with pytest.raises(MisuseError, match=IN_USE):
            cohort.clients[0].dump()
        return bytes(size)

    cohort.clients[0].advertise(meddling)
    assert cohort.clients[0].spent


@profiles
def test_a_trip_closes_once(make, monkeypatch):
    """A second `close` is refused; a message that comes meanwhile waits, and is refused when the trip has ended."""
    cohort = Cohort(make())
    while True:
        cohort.send(dropping={3})
        server, close = cohort.server, cohort.server.close
        with ThreadPoolExecutor(1) as pool:
            with stopped(monkeypatch, "server_position.ServerPosition._require", close) as first:
                with pytest.raises(MisuseError, match="cannot close now, it is " + IN_USE):
                    close()
                late = pool.submit(server.receive, 3, b"")
                time.sleep(MOMENT)
                assert not late.done()
                assert server.heard == {0, 1, 2}
            with pytest.raises(MisuseError, match="cannot receive again"):
                late.result(PATIENCE)
        assert server.heard == frozenset()
        if type(server) is ServerUnmask:
            assert first.result().survivors == (0, 1, 2)
            return
        cohort.server, cohort.mail = first.result()
        if isinstance(cohort.server, ServerPrepared):
            cohort.prepared = cohort.server
            cohort.begin()


def test_what_comes_while_a_trip_cannot_close_is_taken(cohort, monkeypatch):
    moved = before_mask(cohort)
    for index in (0, 1):
        cohort.server.receive(index, moved[index][1])
    with ThreadPoolExecutor(1) as pool:
        with stopped(monkeypatch, "server_position.ServerPosition._require", cohort.server.close) as first:
            late = pool.submit(cohort.server.receive, 2, moved[2][1])
            time.sleep(MOMENT)
            assert not late.done()
        with pytest.raises(TooFewSurvivors):
            first.result()
        late.result(PATIENCE)
    assert cohort.server.heard == {0, 1, 2}
    cohort.clients = {index: moved[index][0] for index in range(3)}
    cohort.server, cohort.mail = cohort.server.close()
    assert cohort.finish().survivors == (0, 1, 2)


def test_a_closing_trip_waits_for_the_message_that_is_being_taken(cohort, monkeypatch):
    """Else its vector would be in the sum, and its client not among the survivors."""
    moved = before_mask(cohort)
    for index in (0, 1, 2):
        cohort.server.receive(index, moved[index][1])
    server = cohort.server
    with ThreadPoolExecutor(1) as pool:
        with stopped(monkeypatch, "round_messages.decode_upload", lambda: server.receive(3, moved[3][1])) as last:
            closing = pool.submit(server.close)
            time.sleep(MOMENT)
            assert not closing.done()
        cohort.server, cohort.mail = closing.result(PATIENCE)
    assert last.result() is None
    cohort.clients = {index: position for index, (position, _) in moved.items()}
    assert cohort.finish().survivors == (0, 1, 2, 3)


def test_a_message_that_comes_twice_at_once_counts_once(cohort, monkeypatch):
    moved = before_mask(cohort)
    server = cohort.server
    with ThreadPoolExecutor(1) as pool:
        with stopped(monkeypatch, "round_messages.decode_upload", lambda: server.receive(0, moved[0][1])) as first:
            second = pool.submit(server.receive, 0, moved[0][1])
            time.sleep(MOMENT)
        assert first.result() is None
        with pytest.raises(PeerError, match="client 0: sent a second message"):
            second.result(PATIENCE)
    for index in (1, 2, 3):
        server.receive(index, moved[index][1])
    cohort.clients = {index: position for index, (position, _) in moved.items()}
    cohort.server, cohort.mail = server.close()
    cohort.finish()


def test_messages_from_many_threads(monkeypatch):
    """Every trip's messages come from a pool, each twice: one at a time is taken, and the sum is right."""
    cohort = Cohort(semi_honest(8, threshold=4, dimension=3000))
    inside, most = [], []

    def slowly(take):
        def taken(self, client, message):
            inside.append(client)
            time.sleep(0.002)
            take(self, client, message)
            most.append(len(inside))
            inside.remove(client)

        return taken

    server = cohort.server
    with ThreadPoolExecutor(8) as pool:
        while True:
            moved = {index: cohort.move(index) for index in range(8)}
            with monkeypatch.context() as patched:
                patched.setattr(type(server), "_take", slowly(type(server)._take))
                given = [pool.submit(server.receive, index, moved[index][1]) for index in [*range(8)] * 2]
                refused = [call.exception(PATIENCE) for call in given]
            assert sum(type(error) is PeerError for error in refused) == 8
            assert refused.count(None) == 8
            cohort.clients = {index: position for index, (position, _) in moved.items()}
            if type(server) is ServerUnmask:
                break
            server = closed(cohort).server
    assert most == [1] * 32
    assert len(cohort.result().survivors) == 8
