"""A cohort that can be stopped anywhere: every position and every message of a session, for tests to tamper with."""

from __future__ import annotations

import hashlib

import numpy as np

from flora_protocols import (
    ClientAdvertise,
    ClientAgree,
    ClientCollect,
    ClientUnmask,
    Floors,
    Profile,
    RoundParams,
    ServerAdvertise,
    ServerPrepared,
    SessionParams,
    Suite,
    identity_public,
)

LEAST = Floors(clients=2, threshold=2, survivors=2, suite=Suite.X25519)
IDENTITIES = [hashlib.sha256(b"identity %d" % index).digest() for index in range(16)]
MODEL = hashlib.sha256(b"model").digest()


def semi_honest(clients=4, neighbours=None, threshold=3, bits=9, dimension=5, **more):
    neighbours = clients - 1 if neighbours is None else neighbours
    return SessionParams(
        clients=clients, neighbours=neighbours, threshold=threshold, bits=bits, dimension=dimension, **more
    )


def malicious(clients=4, threshold=3, **more):
    public = tuple(identity_public(IDENTITIES[index]) for index in range(clients))
    return semi_honest(clients, threshold=threshold, profile=Profile.MALICIOUS_SERVER, identities=public, **more)


def hybrid(clients=4, **more):
    return semi_honest(clients, suite=Suite.X25519_MLKEM768, **more)


def vectors_for(params, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 1 << params.bits, params.dimension, dtype=np.uint32) for _ in range(params.clients)]


def plain_sum(params, vectors, survivors):
    total = sum(vectors[index].astype(object) for index in survivors) % (1 << params.bits)
    return np.array(total, dtype=np.uint32)


def duplicate(position):
    """Another position with the same contents, made behind the position's back: it could answer a second time."""
    other = object.__new__(type(position))
    vars(other).update(vars(position))
    return other


class Cohort:
    """All clients and the server, moved trip by trip; `mail[i]` is what client i gets next.

    `trip()` takes the cohort from one trip to the next: ADVERTISE, [ENCAPSULATE,] SHARE, MASK, [AGREE,] UNMASK. Once
    the session is set up, `mail` holds the inboxes, the clients are ClientCollect, `prepared` is the session and
    `start` the parameters of the first round, whose ServerMask is `server`: so a cohort of one slot is moved as if
    there were one round only. `again()` begins another round.
    """

    def __init__(self, params, floors=LEAST):
        self.params = params
        self.vectors = vectors_for(params)
        self.clients = {
            i: ClientAdvertise(params, i, floors=floors, identity=IDENTITIES[i] if params.malicious else None)
            for i in range(params.clients)
        }
        self.server = ServerAdvertise(params)
        self.prepared = self.start = None
        self.mail = dict.fromkeys(self.clients, b"")
        self.sent = {}

    def move(self, index):
        """One client's transition, without changing the cohort: (next position, message)."""
        client, mail = self.clients[index], self.mail[index]
        name = self.server.trip.name.lower()
        if name == "advertise":
            return client.advertise()
        if name != "mask":
            return getattr(client, name)(mail)
        if isinstance(client, ClientAgree | ClientUnmask):
            client = client.leave()
        if isinstance(client, ClientCollect):
            client = client.collect(mail)
        return client.mask(self.start, self.vectors[index])

    def move_again(self, index):
        """What one client would send, its position kept: a duplicate moves."""
        original = self.clients[index]
        self.clients[index] = duplicate(original)
        try:
            return self.move(index)[1]
        finally:
            self.clients[index] = original

    def trip(self, dropping=()):
        """Everybody but `dropping` moves and is heard; then the server closes the trip."""
        self.send(dropping)
        self.server, self.mail = self.server.close()
        if isinstance(self.server, ServerPrepared):
            self.prepared = self.server
            self.begin()
        return self

    def begin(self, **more):
        """The next round, to which all who shared are invited; `more` replaces parameters of it."""
        start = self.prepared.next_round(more.pop("round", self.prepared.next_slot + 1), MODEL)
        self.start = RoundParams(**{name: getattr(start, name) for name in FIELDS} | more)
        self.server = self.prepared.begin(self.start)

    def again(self, **more):
        """A round after another one, whether or not that has ended. Clients need no mail for it."""
        self.mail = dict.fromkeys(self.prepared.clients, b"")
        self.begin(**more)
        return self

    def send(self, dropping=()):
        self.sent, moved = {}, {}
        for index in [i for i in self.clients if i in self.mail and i not in dropping]:
            moved[index], self.sent[index] = self.move(index)
            self.server.receive(index, self.sent[index])
        if self.prepared is None:
            self.clients = moved
        else:  # who is silent in a round may be in the next
            self.clients |= moved
        return self

    def finish(self):
        """All trips that are left of the round; checks the sum."""
        while type(self.server).__name__ != "ServerUnmask":
            self.trip()
        self.send()
        return self.result()

    def result(self):
        result = self.server.close()
        assert (result.sum == plain_sum(self.params, self.vectors, result.survivors)).all()
        return result


FIELDS = ("slot", "round", "model_hash", "invited")
