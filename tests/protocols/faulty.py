"""A transport for `set_up` and `conduct` whose clients may misbehave, each in one trip and one way."""

import os
from dataclasses import replace
from unittest.mock import patch

import numpy as np
from attacker import body_of, reframed
from cohorts import IDENTITIES, LEAST, MODEL, vectors_for

from flora_protocols import (
    ClientAdvertise,
    ClientAgree,
    ClientCollect,
    ClientUnmask,
    Code,
    PeerError,
    RoundParams,
    TooFewSurvivors,
    Trip,
    conduct,
    drive,
    set_up,
    shamir,
)

MOVES = {Trip.ENCAPSULATE: "encapsulate", Trip.SHARE: "share", Trip.AGREE: "agree", Trip.UNMASK: "unmask"}
TRIPS = tuple(Trip)
# How -> the trips in which it can be done, and the codes that the server may refuse it with.
WAYS = {
    "silence": (TRIPS, set()),
    "garbage": (TRIPS, {Code.NOT_A_MESSAGE}),
    "text": (TRIPS, {Code.NOT_A_MESSAGE}),
    "flipped": (TRIPS, {Code.NOT_A_MESSAGE}),
    "long": (TRIPS, {Code.NOT_A_MESSAGE}),
    "short": (TRIPS, {Code.BAD_BODY}),
    "twice": (TRIPS, set()),
    "second": (TRIPS, {Code.SECOND_MESSAGE}),
    "late": (TRIPS[:-1], {Code.STRANGER}),
    "slow": (TRIPS, {Code.STRANGER}),
    "old": (TRIPS[1:], set()),
    "own shares": ((Trip.UNMASK,), {Code.BAD_SHARE}),
    "all shares": ((Trip.UNMASK,), {Code.BAD_SHARE}),
    "dealt rubbish": ((Trip.SHARE,), set()),
    "dealt another secret": ((Trip.SHARE,), {Code.BAD_SHARE}),
    "sealed rubbish": ((Trip.SHARE,), {Code.BAD_SHARE}),
    "other blobs": ((Trip.SHARE,), {Code.BAD_SHARE}),
}


def random_shares(count):
    """Canonical, and nothing else."""
    return shamir.encode(np.random.default_rng().integers(0, 1 << 16, (count, 8))).tobytes()


class Faulty:
    """`faults`: client -> (trip, how), until others are given. `left`: which clients would not go on, and why.

    A client that errs goes on as if nothing had been, as long as it is sent anything. Who is "late" is heard of in the
    next exchange, with rubbish; who is "slow", with its message.
    """

    def __init__(self, params, faults=(), floors=LEAST):
        self.params, self.faults, self.vectors = params, dict(faults), vectors_for(params)
        self.clients = {
            i: ClientAdvertise(params, i, floors=floors, identity=IDENTITIES[i] if params.malicious else None)
            for i in range(params.clients)
        }
        self.exchanges, self.left, self.sent, self.late = [], {}, {}, []
        self.prepared = self.start = None
        self.wrong_blobs = None  # for how many recipients "other blobs" are wrong; for all

    def prepare(self):
        self.prepared = drive(set_up(self.params), self)
        return self

    def round(self, faults=None, least_survivors=2):
        """One round of the session, to which all are invited that may be."""
        self.faults = self.faults if faults is None else dict(faults)
        self.left, self.exchanges = {}, []
        if self.prepared.next_slot:  # what is no message comes late within its round
            self.late = [(index, message) for index, message in self.late if message != b"late"]
        self.start = self.prepared.next_round(self.prepared.next_slot + 1, MODEL)
        return drive(conduct(self.prepared, self.start, least_survivors=least_survivors), self)

    def run(self, **more):
        """A session's first round."""
        self.prepare()
        before, left = self.exchanges, self.left
        try:
            result = self.round(**more)
        finally:
            self.exchanges, self.left = before + self.exchanges, left | self.left
        return replace(result, refused={**self.prepared.refused, **result.refused})

    def __call__(self, exchange):
        assert set(exchange.outbox) <= set(range(self.params.clients))
        assert all(mail == b"" for mail in exchange.outbox.values()) == (exchange.trip is Trip.ADVERTISE)
        assert (exchange.start > 0) == (exchange.trip is Trip.MASK)
        self.exchanges.append(exchange)
        late, self.late = self.late, []  # silent in the exchange before, and heard of once more
        yield from late
        for index, mail in exchange.outbox.items():
            yield from self.replies(exchange, index, mail)

    def replies(self, exchange, index, mail):
        fault = self.faults.get(index, (None, ""))
        how = fault[1] if fault[0] is exchange.trip else ""
        if how in ("silence", "late"):
            if how == "late":
                self.late.append((index, b"late"))
            return
        old = self.sent.get(index, b"")
        try:
            message = self.move(exchange, index, mail, how)
        except (PeerError, TooFewSurvivors) as error:
            self.left[index] = error
            return
        self.sent[index] = message
        if how == "slow":
            self.late.append((index, message))
            return
        flipped = message[:-1] + bytes((message[-1] ^ 1,))
        spoilt = {"garbage": os.urandom(100), "text": "text", "flipped": flipped, "long": message + bytes(3000)}
        spoilt |= {"short": reframed(message, body_of(message)[:-1]), "old": old}
        yield index, spoilt.get(how, message)
        if how in ("twice", "second"):
            yield index, message if how == "twice" else message[::-1]

    def move(self, exchange, index, mail, how):
        client, trip = self.clients[index], exchange.trip
        if trip is Trip.ADVERTISE:
            self.clients[index], message = client.advertise()
            return message
        if trip is Trip.MASK:
            return self.upload(index, mail[: exchange.start], mail[exchange.start :])
        held = len(client._uploaded.held) if trip is Trip.UNMASK else 0
        with patch("flora_protocols.slots.split", splitting(how)):
            self.clients[index], message = getattr(client, MOVES[trip])(mail)
        if how == "sealed rubbish":
            return reframed(message, os.urandom(len(body_of(message))))
        if how == "other blobs":
            return other_blobs(self.params, message, len(self.clients[index]._box_keys), self.wrong_blobs)
        if how.endswith("shares"):
            return self.lying(index, message, how, held)
        return message

    def upload(self, index, start, inbox):
        client = self.clients[index]
        if isinstance(client, ClientAgree | ClientUnmask):
            client = client.leave()
        if isinstance(client, ClientCollect):
            client = client.collect(inbox)
        self.clients[index] = client
        start = RoundParams.from_bytes(self.params, client.session, start)
        self.clients[index], message = client.mask(start, self.vectors[index])
        return message

    def lying(self, index, message, how, count):
        """Wrong shares of all its owners, or of the one who has the same place among them as it has among clients."""
        body = bytearray(body_of(message))
        owners = range(count) if how == "all shares" else [index % count]
        for owner in owners:
            body[owner * 17 : owner * 17 + 17] = random_shares(1)
        return reframed(message, bytes(body))


def splitting(how):
    """What a dealer shares in the place of its secrets, among those that do not derive their shares: "dealt rubbish"
    nothing, "dealt another secret" other seeds and openers in all slots."""
    true = shamir.split

    def split(secrets, given, values, points):
        if how == "dealt rubbish":
            rows = np.frombuffer(random_shares(len(secrets) // 16 * len(points)), np.uint8)
            return rows.reshape(len(points), -1)
        return true(os.urandom(len(secrets)) if how == "dealt another secret" else secrets, given, values, points)

    return split


def other_blobs(params, message, recipients, wrong=None):
    """SHARES for so many `recipients`, whose blobs hold other keys than their sender will mask with: for the first
    `wrong` of them, or all."""
    body, slots = bytearray(body_of(message)), params.slots
    first = len(body) - 16 * slots * (1 + recipients)
    for slot in range(slots):
        start = first + 16 * recipients * slot
        end = start + 16 * (recipients if wrong is None else wrong)
        body[start:end] = bytes(byte ^ 1 for byte in body[start:end])
    return reframed(message, bytes(body))
