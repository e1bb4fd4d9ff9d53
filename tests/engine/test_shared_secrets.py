"""Sharing secrets in a simulation changes neither bytes nor sums, gives nobody a wrong secret, and hides no cost."""

import hashlib
import inspect
from itertools import count

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from flora_protocols import (
    Client,
    ClientAdvertise,
    ClientShare,
    Exchange,
    Floors,
    PeerError,
    Profile,
    ServerAdvertise,
    ServerPrepared,
    SessionParams,
    Suite,
    Trip,
    conduct,
    drive,
    identity_public,
    keys,
    load_position,
    set_up,
)
from flora_protocols.round_params import RoundParams, start_bytes
from flora_secure.engine.shared_secrets import SharedSecrets
from flora_secure.engine.workers import Positions, Workers

PRIVATES = [X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(6)]
PUBLICS = [private.public_key().public_bytes_raw() for private in PRIVATES]

LEAST = Floors(clients=2, threshold=2, survivors=2, suite=Suite.X25519)


def session(neighbours: int, **more) -> SessionParams:
    return SessionParams(clients=9, neighbours=neighbours, threshold=5, bits=16, dimension=20, slots=2, **more)


def identities(params: SessionParams) -> dict[int, bytes | None]:
    return {index: bytes([index + 1]) * 32 if params.malicious else None for index in range(params.clients)}


PUBLIC_IDENTITIES = tuple(identity_public(bytes([index + 1]) * 32) for index in range(9))
MALICIOUS = {"profile": Profile.MALICIOUS_SERVER, "identities": PUBLIC_IDENTITIES}
HYBRID = {"suite": Suite.X25519_MLKEM768}
SESSIONS = pytest.mark.parametrize(
    "params",
    [
        session(8),
        session(6),
        session(8, **MALICIOUS),
        session(6, **HYBRID),
    ],
    ids=["complete", "Harary", "malicious server", "hybrid"],
)
DROPPED = 3  # of the first round, before its upload; it is in the second


def vectors(params: SessionParams) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << params.bits, (params.clients, params.dimension), np.uint32)


class Session:
    """A session and its rounds, every client in this process; what all of them have sent is `seen`.

    Its randomness is a function of client and draw, but for that of the KEM, which is the library's own.
    """

    def __init__(self, params: SessionParams, exchange) -> None:
        self.params, self.seen, own = params, list[bytes](), identities(params)
        self.clients: dict[int, Client] = {
            index: ClientAdvertise(params, index, floors=LEAST, identity=own[index], exchange=exchange)
            for index in range(params.clients)
        }
        self.prepared: ServerPrepared = drive(set_up(params), self._carry)

    def round(self, slot: int, dropped=(), around=lambda client: client) -> list[int]:
        """The sum of a round without the dropped. `around`: what becomes of a client's position before its upload."""
        self._dropped, self._around = dropped, around
        start = self.prepared.next_round(slot, bytes(32))
        return drive(conduct(self.prepared, start), self._carry).sum.tolist()

    def _carry(self, exchange: Exchange):
        for index, message in exchange.outbox.items():
            if exchange.trip is Trip.MASK and index in self._dropped:
                continue
            reply = self._move(index, exchange.trip, message)
            self.seen.append(reply)
            yield index, reply

    def _move(self, index: int, trip: Trip, message: bytes) -> bytes:
        client = self.clients[index]
        if trip is Trip.ADVERTISE:
            self.clients[index], reply = client.advertise(randomness(index))
        elif trip is Trip.MASK:
            size = start_bytes(self.params)
            if message[size:]:
                client = client.collect(message[size:])
            start = RoundParams.from_bytes(self.params, client.session, message[:size])
            self.clients[index], reply = self._around(client).mask(start, vectors(self.params)[index])
        else:
            self.clients[index], reply = getattr(client, trip.name.lower())(message)
        return reply


def randomness(index: int):
    draws = count()
    return lambda size: hashlib.shake_256(bytes([index, next(draws)])).digest(size)


def expected(params: SessionParams, dropped=()) -> list[int]:
    survivors = [index for index in range(params.clients) if index not in dropped]
    return (vectors(params)[survivors].sum(0) % (1 << params.bits)).tolist()


@SESSIONS
def test_messages_and_sums_are_the_same_bytes(params) -> None:
    shared, sessions = SharedSecrets(), []
    for exchange in (shared.exchange, keys.exchange_all):
        session = Session(params, exchange)
        assert session.round(0, (DROPPED,)) == expected(params, (DROPPED,))
        assert session.round(1) == expected(params)
        sessions.append(session)
    with_sharing, without = sessions
    assert [len(one) for one in with_sharing.seen] == [len(one) for one in without.seen]
    if not params.suite.hybrid:  # whose encapsulations take no randomness of ours
        assert with_sharing.seen == without.seen
    assert shared.spared_seconds > 0


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 5), unique=True)), max_size=30))
def test_whoever_asks_gets_the_secret_of_its_own_key_with_the_key_it_names(asked) -> None:
    """In any order, again, with keys that nobody holds both ends of, and with itself."""
    shared = SharedSecrets()
    for own, peers in asked:
        publics = {100 - peer: PUBLICS[peer] for peer in peers}
        found = shared.exchange(PRIVATES[own], publics)
        assert list(found.items()) == list(keys.exchange_all(PRIVATES[own], publics).items())


def test_a_key_put_in_the_place_of_a_peers_gets_no_secret_of_the_peer() -> None:
    """A server tells client 1 that client 0 has key 2: what 0 and 1 would agree on stays where it is."""
    shared = SharedSecrets()
    truth = shared.exchange(PRIVATES[0], {1: PUBLICS[1]})[1]
    assert shared.exchange(PRIVATES[1], {0: PUBLICS[2]})[0] == keys.exchange(PRIVATES[1], PUBLICS[2], 0) != truth
    assert shared.exchange(PRIVATES[3], {0: PUBLICS[0]})[0] == keys.exchange(PRIVATES[3], PUBLICS[0], 0) != truth
    assert shared.spared_seconds == 0
    assert shared.exchange(PRIVATES[1], {0: PUBLICS[0]})[0] == truth
    assert shared.spared_seconds > 0


def test_a_key_of_small_order_is_refused_and_named() -> None:
    shared = SharedSecrets()
    with pytest.raises(PeerError) as caught:
        shared.exchange(PRIVATES[0], {1: PUBLICS[1], 7: bytes(32)})
    assert caught.value.culprit == 7
    assert len(shared) == 0


def test_a_secret_is_given_once_and_forgotten_on_request() -> None:
    shared = SharedSecrets()
    secret = shared.exchange(PRIVATES[0], {1: PUBLICS[1], 2: PUBLICS[2]})[1]
    assert len(shared) == 2
    assert secret.hex() not in repr(shared)
    assert repr(secret) not in repr(shared)
    shared.exchange(PRIVATES[1], {0: PUBLICS[0]})
    assert len(shared) == 1
    shared.forget()
    assert len(shared) == 0
    assert shared.exchange(PRIVATES[2], {0: PUBLICS[0]})[0] == keys.exchange(PRIVATES[2], PUBLICS[0], 0)
    assert len(shared) == 1  # computed anew


def test_no_client_shares_secrets_unless_it_is_told_to() -> None:
    assert inspect.signature(ClientAdvertise).parameters["exchange"].default is keys.exchange_all
    params = session(6)
    sharing, _ = ClientAdvertise(params, 0, floors=LEAST, exchange=SharedSecrets().exchange).advertise()
    assert "xchange" not in repr(sharing._me)
    assert sharing._me.exchange is not keys.exchange_all
    restored = ClientShare.load(params, sharing.dump())
    assert restored._me.exchange is keys.exchange_all  # a dump leaves the simulation's process


# In the simulation


class Tick:
    """A clock that only X25519 moves, by `cost` each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now, self.made, truth = 0.0, 0, keys.exchange

        def exchange(*arguments):
            self.now += cost
            self.made += 1
            return truth(*arguments)

        monkeypatch.setattr(keys, "exchange", exchange)

    def __call__(self) -> float:
        return self.now


def simulated(params: SessionParams, clients: Positions) -> tuple[float, float]:
    """CPU seconds of all clients in the set-up, and in its two rounds; nothing may be kept after a trip."""
    seconds = 0.0

    def carry(exchange: Exchange):
        nonlocal seconds
        if exchange.trip is Trip.ADVERTISE:
            replies, more = clients.timed("begin", params, LEAST, identities(params))
        else:
            replies, more = clients.timed("answer", exchange.outbox)
        seconds += more
        assert len(clients._secrets) == 0
        return replies.items()

    prepared = drive(set_up(params), carry)
    once, seconds = seconds, 0.0
    for slot, dropped in enumerate(((DROPPED,), ())):
        clients.give({index: vector for index, vector in enumerate(vectors(params)) if index not in dropped})
        result = drive(conduct(prepared, prepared.next_round(slot, bytes(32))), carry)
        assert result.sum.tolist() == expected(params, dropped)
    return once, seconds


@SESSIONS
def test_a_clients_seconds_are_what_it_would_need_by_itself(params, monkeypatch) -> None:
    tick = Tick(monkeypatch, 0.25)
    pairs = params.clients * params.neighbours / 2
    once, later = simulated(params, Positions(tick))
    assert once == pytest.approx(0.25 * 2 * pairs)  # both ends of each
    assert later == 0  # no round takes another one
    assert tick.made == pairs


def test_what_is_taken_counts_as_the_mean_of_what_was_computed() -> None:
    ticks = iter([0.0, 3.0, 3.0, 8.0, 8.0, 8.0])
    shared = SharedSecrets(lambda: next(ticks))
    shared.exchange(PRIVATES[0], {1: PUBLICS[1], 2: PUBLICS[2]})  # 3 s
    shared.exchange(PRIVATES[1], {0: PUBLICS[0], 2: PUBLICS[2], 3: PUBLICS[3]})  # 5 s for two, and one taken
    assert shared.spared_seconds == pytest.approx(8 / 4)
    shared.exchange(PRIVATES[2], {0: PUBLICS[0], 1: PUBLICS[1]})
    assert shared.spared_seconds == pytest.approx(3 * 8 / 4)


def test_nothing_is_kept_when_a_trip_fails() -> None:
    params, clients = session(6), Positions()
    server = ServerAdvertise(params)
    replies, _ = clients.timed("begin", params, LEAST, identities(params))
    for index, message in replies.items():
        server.receive(index, message)
    _, mail = server.close()
    mail[8] = b"no roster"
    replies, _ = clients.timed("answer", mail)
    assert 8 not in replies  # it leaves, and the others go on
    assert len(replies) == 8
    assert len(clients._secrets) == 0


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_neighbours_live_together(workers) -> None:
    """Only pairs across the ends of the arcs do not: r(r + 1)/2 at each, where neighbours are within r places."""
    params = SessionParams(clients=100, neighbours=10, threshold=5, bits=16, dimension=1)
    cohort = Workers(workers)
    try:
        cohort.open(params, LEAST, dict.fromkeys(range(100)))
        assert len(list(cohort.exchange(dict.fromkeys(range(100), b"")))) == 100
    finally:
        cohort.close()
    home = {index: number for number, part in enumerate(cohort._parts) for index in part}
    assert sorted(home) == list(range(100))
    assert max(map(len, cohort._parts)) - min(map(len, cohort._parts)) <= 1
    apart = sum(home[i] != home[j] for i in range(100) for j in params.graph.holders(i) if i < j)
    assert apart == (0 if workers == 1 else workers * 5 * 6 // 2)


@SESSIONS
def test_a_loaded_client_masks_as_one_that_shared_secrets(params) -> None:
    """Positions carry no secret of the simulation: what leaves the process works by itself."""
    own, shared = identities(params), SharedSecrets()
    session = Session(params, shared.exchange)

    def moved(client):
        """Every second one goes on in another process."""
        index = client.index
        return load_position(params, client.dump(), identity=own[index]) if index % 2 else client

    assert session.round(0, (DROPPED,), moved) == expected(params, (DROPPED,))
    assert session.round(1, (), moved) == expected(params)
