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
    ClientAdvertise,
    ClientMask,
    ClientShare,
    Floors,
    PeerError,
    Profile,
    ServerAdvertise,
    SessionParams,
    identity_public,
    keys,
)
from flora_secure.engine.shared_secrets import SharedSecrets
from flora_secure.engine.workers import Positions, Workers

PRIVATES = [X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(6)]
PUBLICS = [private.public_key().public_bytes_raw() for private in PRIVATES]

LEAST = Floors(clients=2, threshold=2, survivors=2)


def session(neighbours: int, **more) -> SessionParams:
    return SessionParams(clients=9, neighbours=neighbours, threshold=5, bits=16, dimension=20, **more)


def identities(params: SessionParams) -> dict[int, bytes | None]:
    return {index: bytes([index + 1]) * 32 if params.malicious else None for index in range(params.clients)}


PUBLIC_IDENTITIES = tuple(identity_public(bytes([index + 1]) * 32) for index in range(9))
MALICIOUS = {"profile": Profile.MALICIOUS_SERVER, "identities": PUBLIC_IDENTITIES}
SESSIONS = pytest.mark.parametrize(
    "params",
    [
        session(8),
        session(6),
        session(6, direct_reveal=True),
        session(8, **MALICIOUS),
    ],
    ids=["complete", "Harary", "direct reveal", "malicious server"],
)
DROPPED = 3  # after sharing its keys
TRIPS = ("advertise", "share", "mask", "agree", "unmask")


def vectors(params: SessionParams) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << params.bits, (params.clients, params.dimension), np.uint32)


def replayed(params: SessionParams, exchange) -> tuple[list[bytes], list[int]]:
    """Every message of a session whose randomness is a function of client and draw, and the sum."""
    draws = {index: count() for index in range(params.clients)}

    def randomness(index: int):
        return lambda size: hashlib.shake_256(bytes([index, next(draws[index])])).digest(size)

    own = identities(params)
    clients = {
        index: ClientAdvertise(params, index, floors=LEAST, identity=own[index], exchange=exchange)
        for index in range(params.clients)
    }
    server, mail, seen = ServerAdvertise(params), dict.fromkeys(clients, b""), []
    for trip in TRIPS if params.malicious else [trip for trip in TRIPS if trip != "agree"]:
        for index, message in mail.items():
            arguments = {
                "advertise": (randomness(index),),
                "share": (message, randomness(index)),
                "mask": (message, vectors(params)[index]),
            }.get(trip, (message,))
            if trip == "mask" and index == DROPPED:
                continue
            clients[index], reply = getattr(clients[index], trip)(*arguments)
            server.receive(index, reply)
            seen.append(reply)
        if trip != "unmask":
            server, mail = server.close()
            seen.extend(mail.values())
    return seen, server.close().sum.tolist()


@SESSIONS
def test_messages_and_sum_are_the_same_bytes(params) -> None:
    shared = SharedSecrets()
    with_sharing, without = replayed(params, shared.exchange), replayed(params, keys.exchange_all)
    assert with_sharing == without
    survivors = [index for index in range(params.clients) if index != DROPPED]
    assert without[1] == (vectors(params)[survivors].sum(0) % (1 << params.bits)).tolist()
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


def uploads(params: SessionParams) -> dict[int, np.ndarray]:
    """The vectors of all but the dropped client."""
    return {index: vector for index, vector in enumerate(vectors(params)) if index != DROPPED}


def simulated(params: SessionParams, clients: Positions) -> float:
    """CPU seconds of all clients in a round with a dropped client; nothing may be kept after a trip."""
    server = ServerAdvertise(params)
    replies, total = clients.timed("begin", params, LEAST, identities(params), uploads(params))
    for _ in TRIPS[1:] if params.malicious else [trip for trip in TRIPS[1:] if trip != "agree"]:
        for index, message in replies.items():
            server.receive(index, message)
        server, mail = server.close()
        replies, seconds = clients.timed("answer", mail)
        assert len(clients._secrets) == 0
        total += seconds
    return total


@SESSIONS
def test_a_clients_seconds_are_what_it_would_need_by_itself(params, monkeypatch) -> None:
    tick = Tick(monkeypatch, 0.25)
    pairs = params.clients * params.neighbours / 2
    ends = 2 * pairs + 2 * pairs - params.neighbours  # for the shares, and for the masks but those of the dropped
    assert simulated(params, Positions(tick)) == pytest.approx(0.25 * ends)
    assert tick.made == 2 * pairs  # the dropped client's neighbours compute theirs, and nobody takes them


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
    replies, _ = clients.timed("begin", params, LEAST, identities(params), uploads(params))
    for index, message in replies.items():
        server.receive(index, message)
    _, mail = server.close()
    mail[8] = b"no roster"
    replies, _ = clients.timed("answer", mail)
    assert 8 not in replies  # it leaves, and the others go on
    assert len(clients._secrets) == 0


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_neighbours_live_together(workers) -> None:
    """Only pairs across the ends of the arcs do not: r(r + 1)/2 at each, where neighbours are within r places."""
    params = SessionParams(clients=100, neighbours=10, threshold=5, bits=16, dimension=1)
    cohort = Workers(workers)
    try:
        cohort.open(params, LEAST, dict.fromkeys(range(100)), {})
        assert len(list(cohort.exchange(dict.fromkeys(range(100), b"")))) == 100
    finally:
        cohort.close()
    home = {index: number for number, part in enumerate(cohort._parts) for index in part}
    assert sorted(home) == list(range(100))
    assert max(map(len, cohort._parts)) - min(map(len, cohort._parts)) <= 1
    apart = sum(home[i] != home[j] for i in range(100) for j in params.graph.holders(i) if i < j)
    assert apart == (0 if workers == 1 else workers * 5 * 6 // 2)


def test_a_loaded_client_masks_as_one_that_shared_secrets() -> None:
    """Positions carry no secret of the simulation: what leaves the process works by itself."""
    params, shared = session(6), SharedSecrets()
    clients = {
        index: ClientAdvertise(params, index, floors=LEAST, exchange=shared.exchange) for index in range(params.clients)
    }
    server = ServerAdvertise(params)
    sharing = {}
    for index, client in clients.items():
        sharing[index], message = client.advertise()
        server.receive(index, message)
    server, mail = server.close()
    masking = {}
    for index, client in sharing.items():
        masking[index], message = client.share(mail[index])
        server.receive(index, message)
    server, mail = server.close()
    for index, client in masking.items():
        position = ClientMask.load(params, client.dump()) if index % 2 else client
        position, message = position.mask(mail[index], vectors(params)[index])
        server.receive(index, message)
        masking[index] = position
    server, mail = server.close()
    for index, client in masking.items():
        server.receive(index, client.unmask(mail[index])[1])
    assert server.close().sum.tolist() == (vectors(params).sum(0) % (1 << params.bits)).tolist()
