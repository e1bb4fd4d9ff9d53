"""A transport for `conduct` whose clients may misbehave, each in one trip and one way."""

import os
from unittest.mock import patch

import numpy as np
from attacker import body_of, reframed
from cohorts import IDENTITIES, LEAST, vectors_for

from flora_protocols import ClientAdvertise, Code, PeerError, TooFewSurvivors, Trip, conduct, drive, shamir

MOVES = {Trip.SHARE: "share", Trip.MASK: "mask", Trip.AGREE: "agree", Trip.UNMASK: "unmask"}
# How -> the trips in which it can be done, and the codes that the server may refuse it with.
WAYS = {
    "silence": (tuple(Trip), set()),
    "garbage": (tuple(Trip), {Code.NOT_A_MESSAGE}),
    "text": (tuple(Trip), {Code.NOT_A_MESSAGE}),
    "flipped": (tuple(Trip), {Code.NOT_A_MESSAGE}),
    "long": (tuple(Trip), {Code.NOT_A_MESSAGE}),
    "short": (tuple(Trip), {Code.BAD_BODY}),
    "twice": (tuple(Trip), set()),
    "second": (tuple(Trip), {Code.SECOND_MESSAGE}),
    "late": (tuple(Trip)[:-1], {Code.STRANGER}),
    "old": (tuple(Trip)[1:], set()),
    "own shares": ((Trip.UNMASK,), {Code.BAD_SHARE}),
    "all shares": ((Trip.UNMASK,), {Code.BAD_SHARE}),
    "dealt rubbish": ((Trip.SHARE,), set()),
    "dealt another secret": ((Trip.SHARE,), set()),
    "sealed rubbish": ((Trip.SHARE,), set()),
}


def random_shares(count):
    """Canonical, and nothing else."""
    return shamir.encode(np.random.default_rng().integers(0, 1 << 16, (count, 8))).tobytes()


class Faulty:
    """`faults`: client -> (trip, how). `revealed`: whose REVEAL was sent unspoilt by its length.

    A client that errs goes on as if nothing had been, as long as it is sent anything.
    """

    def __init__(self, params, faults=()):
        self.params, self.faults, self.vectors = params, dict(faults), vectors_for(params)
        self.clients = {
            i: ClientAdvertise(params, i, floors=LEAST, identity=IDENTITIES[i] if params.malicious else None)
            for i in range(params.clients)
        }
        self.exchanges, self.left, self.sent, self.late = [], {}, {}, set()

    def run(self):
        return drive(conduct(self.params), self)

    def __call__(self, exchange):
        assert set(exchange.outbox) <= set(range(self.params.clients))
        assert all(mail == b"" for mail in exchange.outbox.values()) == (exchange.trip is Trip.ADVERTISE)
        self.exchanges.append(exchange)
        for index in sorted(self.late):  # dropped in a trip before, and heard of once more
            yield index, b"late"
        self.late.clear()
        for index, mail in exchange.outbox.items():
            yield from self.replies(exchange.trip, index, mail)

    def replies(self, trip, index, mail):
        fault = self.faults.get(index, (None, ""))
        how = fault[1] if fault[0] is trip else ""
        if how in ("silence", "late"):
            if how == "late":
                self.late.add(index)
            return
        old = self.sent.get(index, b"")
        try:
            message = self.move(trip, index, mail, how)
        except (PeerError, TooFewSurvivors) as error:
            self.left[index] = error
            return
        self.sent[index] = message
        flipped = message[:-1] + bytes((message[-1] ^ 1,))
        spoilt = {"garbage": os.urandom(100), "text": "text", "flipped": flipped, "long": message + bytes(2000)}
        spoilt |= {"short": reframed(message, body_of(message)[:-1]), "old": old}
        yield index, spoilt.get(how, message)
        if how in ("twice", "second"):
            yield index, message if how == "twice" else message[::-1]

    def move(self, trip, index, mail, how):
        client = self.clients[index]
        if trip is Trip.ADVERTISE:
            self.clients[index], message = client.advertise()
            return message
        true, held = shamir.split, len(client._uploaded.held) if trip is Trip.UNMASK else 0

        def split(secrets, points, *rest):
            if how == "dealt another secret":
                return true(bytes(16) + secrets[16:], points, *rest)
            rows = np.frombuffer(random_shares(2 * len(points)), np.uint8)
            return rows.reshape(len(points), -1)

        more = [self.vectors[index]] if trip is Trip.MASK else []
        with patch("flora_protocols.client.split", split if how.startswith("dealt") else true):
            self.clients[index], message = getattr(client, MOVES[trip])(mail, *more)
        if how == "sealed rubbish":
            return reframed(message, os.urandom(len(body_of(message))))
        if how.endswith("shares"):
            return self.lying(index, message, how, held)
        return message

    def lying(self, index, message, how, count):
        """Wrong shares of all its owners, or of the one who has the same place among them as it has among clients."""
        body = bytearray(body_of(message))
        owners = range(count) if how == "all shares" else [index % count]
        for owner in owners:
            body[owner * 17 : owner * 17 + 17] = random_shares(1)
        return reframed(message, bytes(body))
