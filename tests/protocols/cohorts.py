"""A cohort that can be stopped anywhere: every position and every message of a round, for tests to tamper with."""

from __future__ import annotations

import hashlib

import numpy as np

from flora_protocols import (
    ClientAdvertise,
    Floors,
    Profile,
    ServerAdvertise,
    SessionParams,
    identity_public,
)

LEAST = Floors(clients=2, threshold=2, survivors=2)
IDENTITIES = [hashlib.sha256(b"identity %d" % index).digest() for index in range(16)]


def semi_honest(clients=4, neighbours=None, threshold=3, bits=9, dimension=5, **more):
    neighbours = clients - 1 if neighbours is None else neighbours
    return SessionParams(
        clients=clients, neighbours=neighbours, threshold=threshold, bits=bits, dimension=dimension, **more
    )


def malicious(clients=4, threshold=3, **more):
    public = tuple(identity_public(IDENTITIES[index]) for index in range(clients))
    return semi_honest(clients, threshold=threshold, profile=Profile.MALICIOUS_SERVER, identities=public, **more)


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
    """All clients and the server, moved trip by trip; `mail[i]` is what client i gets next."""

    def __init__(self, params, floors=LEAST):
        self.params = params
        self.vectors = vectors_for(params)
        self.clients = {
            i: ClientAdvertise(params, i, floors=floors, identity=IDENTITIES[i] if params.malicious else None)
            for i in range(params.clients)
        }
        self.server = ServerAdvertise(params)
        self.mail = dict.fromkeys(self.clients, b"")
        self.sent = {}

    def move(self, index):
        """One client's transition, without changing the cohort: (next position, message)."""
        client, mail = self.clients[index], self.mail[index]
        name = type(client).__name__
        if name == "ClientAdvertise":
            return client.advertise()
        if name == "ClientMask":
            return client.mask(mail, self.vectors[index])
        return getattr(client, {"ClientShare": "share", "ClientAgree": "agree", "ClientUnmask": "unmask"}[name])(mail)

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
        return self

    def send(self, dropping=()):
        self.sent = {}
        for index in [i for i in self.clients if i in self.mail and i not in dropping]:
            self.clients[index], self.sent[index] = self.move(index)
            self.server.receive(index, self.sent[index])
        self.clients = {i: self.clients[i] for i in self.sent}
        return self

    def finish(self):
        """The last trip; checks the sum."""
        while type(self.server).__name__ != "ServerUnmask":
            self.trip()
        self.send()
        return self.result()

    def result(self):
        result = self.server.close()
        assert (result.sum == plain_sum(self.params, self.vectors, result.survivors)).all()
        return result
