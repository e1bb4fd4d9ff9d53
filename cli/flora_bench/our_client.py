"""One of our clients among real peers: what it receives is made once by the protocol, then its transitions are timed.

What a client's own process would not have in a cache, Lagrange matrices, is emptied before each run, and the session's
parameters are made anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flora_protocols import (
    ClientAdvertise,
    ClientCollect,
    ClientShare,
    ClientUnmask,
    Floors,
    RoundParams,
    ServerAdvertise,
    ServerPrepared,
    SessionParams,
    keys,
    round_messages,
    shamir,
)

_MODEL = bytes(32)


def forget() -> None:
    """Empty the cache that one process for many clients keeps."""
    shamir._interpolation.cache_clear()


class OurClient:
    """A client in the middle of a session of one round (semi-honest profile, X25519), and all that its server sends
    it: of the lowest index it would derive all shares that it holds, of the highest none."""

    def __init__(self, params: SessionParams) -> None:
        self._params, self._me = params, params.clients // 2
        self._floors = Floors(
            clients=params.clients, threshold=params.threshold, survivors=params.clients, suite=params.suite
        )
        self._drawn = os.urandom(keys.KEY), os.urandom(keys.KEY)
        advertise = ServerAdvertise(params)
        sharers = {}
        for index in range(params.clients):
            randomness = self._replayed() if index == self._me else os.urandom
            sharers[index], message = ClientAdvertise(params, index, floors=self._floors).advertise(randomness)
            advertise.receive(index, message)
        share, rosters = advertise.close()
        self._roster = rosters[self._me]
        for index, client in sharers.items():
            assert isinstance(client, ClientShare)
            position, message = client.share(rosters[index])
            share.receive(index, message)
            if index == self._me:
                session = position.session
                self._dump = position.dump()
        prepared, inboxes = share.close()
        assert isinstance(prepared, ServerPrepared)
        self._inbox = inboxes[self._me]
        self._round = prepared.next_round(1, _MODEL)
        self._start = self._round.to_bytes(params, session)
        self._survivors = round_messages.encode_survivors(
            params, self._round.id(params, session), range(params.clients)
        )
        generator = np.random.default_rng(0)
        self._vector = generator.integers(0, 1 << params.bits, params.dimension, np.uint32)

    def mask(self) -> Callable[[], object]:
        """A trial: the inbox opened, masks derived and added, the vector packed."""
        forget()
        position = ClientCollect.load(self._fresh(), self._dump)
        return lambda: self._masked(position)

    def whole_round(self) -> Callable[[], object]:
        """A trial: everything from the session's parameters to the last message."""
        forget()
        return self._whole

    def _whole(self) -> None:
        sharing, _ = ClientAdvertise(self._fresh(), self._me, floors=self._floors).advertise(self._replayed())
        assert isinstance(sharing, ClientShare)
        collecting, _ = sharing.share(self._roster)
        self._masked(collecting).unmask(self._survivors)

    def _masked(self, position: ClientCollect) -> ClientUnmask:
        session, params = position.session, self._params
        unmasking, _ = position.collect(self._inbox).mask(
            RoundParams.from_bytes(params, session, self._start), self._vector
        )
        assert isinstance(unmasking, ClientUnmask)
        return unmasking

    def _fresh(self) -> SessionParams:
        """The same parameters with nothing computed from them yet."""
        return replace(self._params)

    def _replayed(self) -> Callable[[int], bytes]:
        """The randomness of the first trip, again: the peers have sealed their shares for these keys."""
        draws = iter(self._drawn)
        return lambda size: next(draws)
