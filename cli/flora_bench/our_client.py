"""One of our clients among real peers: what it receives is made once by the protocol, then its transitions are timed.

What a client's own process would not have in a cache, powers of the shares' points, is emptied before each run, and the
session's parameters are made anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flora_protocols import (
    ClientAdvertise,
    ClientMask,
    ClientUnmask,
    Floors,
    ServerAdvertise,
    SessionParams,
    keys,
    messages,
    shamir,
)

ME = 0


def forget() -> None:
    """Empty the cache that one process for many clients keeps."""
    shamir._vandermonde.cache_clear()


class OurClient:
    """Client 0 of a session (semi-honest profile), and all that its server sends it."""

    def __init__(self, params: SessionParams) -> None:
        self._params = params
        self._floors = Floors(clients=params.clients, threshold=params.threshold, survivors=params.clients)
        self._drawn = os.urandom(keys.SECRET), os.urandom(keys.KEY)
        advertise = ServerAdvertise(params)
        sharers = {}
        for index in range(params.clients):
            randomness = self._replayed() if index == ME else os.urandom
            sharers[index], message = ClientAdvertise(params, index, floors=self._floors).advertise(randomness)
            advertise.receive(index, message)
        share, rosters = advertise.close()
        self._roster = rosters[ME]
        for index, client in sharers.items():
            position, message = client.share(rosters[index])
            share.receive(index, message)
            if index == ME:
                self._session = position._session
                self._dump = position.dump()
        _, inboxes = share.close()
        self._inbox = inboxes[ME]
        self._survivors = messages.encode_survivors(params, self._session, range(params.clients))
        generator = np.random.default_rng(0)
        self._vector = generator.integers(0, 1 << params.bits, params.dimension, np.uint32)

    def mask(self) -> Callable[[], object]:
        """A trial: the inbox opened, masks agreed on and added, the vector packed."""
        forget()
        position = ClientMask.load(self._fresh(), self._dump)
        return lambda: position.mask(self._inbox, self._vector)

    def whole_round(self) -> Callable[[], object]:
        """A trial: everything from the session's parameters to the last message."""
        forget()
        return self._round

    def _round(self) -> None:
        sharing, _ = ClientAdvertise(self._fresh(), ME, floors=self._floors).advertise(self._replayed())
        masking, _ = sharing.share(self._roster)
        unmasking, _ = masking.mask(self._inbox, self._vector)
        assert isinstance(unmasking, ClientUnmask)
        unmasking.unmask(self._survivors)

    def _fresh(self) -> SessionParams:
        """The same parameters with nothing computed from them yet."""
        return replace(self._params)

    def _replayed(self) -> Callable[[int], bytes]:
        """The randomness of the first trip, again: the peers have sealed their shares for these keys."""
        draws = iter(self._drawn)
        return lambda size: next(draws)
