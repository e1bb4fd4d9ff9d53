"""Our server among stand-ins for its clients: true keys and shares, random uploads, sealed shares that nobody opens.

What the server computes does not depend on what is in an upload or a sealed box, so a session of 10,000 clients needs
neither their masks nor their key agreements. Only the server's own steps are timed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from flora_bench.measure import Stopwatch
from flora_bench.our_client import forget
from flora_protocols import Exchange, RoundResult, SessionParams, Trip, conduct, drive, keys, lane, messages, shamir


class StandIns:
    """The clients of a session (semi-honest profile); `dropped` of them, spread evenly, vanish before uploading."""

    def __init__(self, params: SessionParams, dropped: int) -> None:
        self._params = params
        self.dropped = frozenset(place * params.clients // dropped for place in range(dropped))
        self.survivors = tuple(index for index in range(params.clients) if index not in self.dropped)
        self._advertisements, self._rows = [], []
        for index in range(params.clients):
            secret, seed = os.urandom(keys.SECRET), os.urandom(keys.SECRET)
            mask = keys.mask_key(secret, params.setup_id, index).public_key().public_bytes_raw()
            transport = os.urandom(keys.KEY - 1) + b"\0"  # below the field's order, hence canonical
            self._advertisements.append(messages.Advertisement(mask, transport, b""))
            points = tuple(holder + 1 for holder in params.graph.holders(index))
            pairs = shamir.split(secret + seed, points, params.threshold, os.urandom)
            self._rows.append(pairs[:, shamir.SHARE :] if index not in self.dropped else pairs[:, : shamir.SHARE])

    def session(self, roster: bytes) -> bytes:
        """The session's id, as client 0 finds it in its `roster`."""
        return messages.decode_roster(self._params, roster, 0, self._advertisements[0])[2]

    @property
    def broken_pairs(self) -> int:
        """Pairs of neighbours of which one has dropped: their masks do not cancel."""
        members = self._params.graph.members
        return sum(member not in self.dropped for owner in self.dropped for member in members(owner))

    def advertisements(self) -> Iterator[tuple[int, bytes]]:
        """The messages of trip 0, one a client."""
        for index, advertisement in enumerate(self._advertisements):
            yield index, messages.encode_advertisement(self._params, advertisement)

    def shares(self, session: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages of trip 1, one a client: sealed boxes of the right length and random content."""
        for index in range(self._params.clients):
            boxes = os.urandom(messages.SEALED * (len(self._params.graph.members(index)) - 1))
            yield index, messages.encode_shares(session, [boxes])

    def uploads(self, session: bytes) -> Iterator[tuple[int, bytes]]:
        """Trip 2: one random vector in everybody's name, so that memory holds one upload."""
        params = self._params
        vector = np.random.default_rng(0).integers(0, 1 << params.bits, params.dimension, np.uint32)
        message = messages.encode_upload(params, session, [vector.astype(lane(params.bits))])
        for index in self.survivors:
            yield index, message

    def reveals(self, session: bytes) -> Iterator[tuple[int, bytes]]:
        """Trip 4: the shares that each survivor holds; with direct reveal, also keys of the dropped."""
        holders = self._params.graph.holders
        places = [{holder: at for at, holder in enumerate(holders(owner))} for owner in range(self._params.clients)]
        for index in self.survivors:
            owned = [self._rows[owner][places[owner][index]].tobytes() for owner in holders(index)]
            near = self.dropped.intersection(holders(index)) if self._params.direct_reveal else ()
            yield index, messages.encode_reveal(session, owned, [os.urandom(keys.KEY) for _ in near])


def serve(params: SessionParams, stand_ins: StandIns) -> tuple[RoundResult, dict[Trip, float]]:
    """Run one round; CPU seconds of the server by trip: receiving the messages, and closing the trip.

    The loop is `conduct`, as everywhere. Its clock stands while the stand-ins make their messages.
    """
    forget()
    params = replace(params)  # nothing computed from them yet
    clocks = {trip: Stopwatch() for trip in (Trip.ADVERTISE, Trip.SHARE, Trip.MASK, Trip.UNMASK)}
    running = _Running()
    session = b""

    def carry(exchange: Exchange) -> Iterator[tuple[int, bytes]]:
        nonlocal session
        running.stop()
        if exchange.trip is Trip.SHARE:
            session = stand_ins.session(exchange.outbox[0])
        made: dict[Trip, Callable[[], Iterator[tuple[int, bytes]]]] = {
            Trip.ADVERTISE: stand_ins.advertisements,
            Trip.SHARE: lambda: stand_ins.shares(session),
            Trip.MASK: lambda: stand_ins.uploads(session),
            Trip.UNMASK: lambda: stand_ins.reveals(session),
        }
        mail = made[exchange.trip]()
        for index, message in mail:
            running.start(clocks[exchange.trip])
            yield index, message
            running.stop()
        running.start(clocks[exchange.trip])  # for closing the trip, which the last message leads to by itself

    result = drive(conduct(params), carry)
    running.stop()
    return result, {trip: clock.seconds for trip, clock in clocks.items()}


class _Running:
    """At most one stopwatch that runs."""

    def __init__(self) -> None:
        self._clock: Stopwatch | None = None

    def start(self, clock: Stopwatch) -> None:
        """Let `clock` run."""
        self._clock = clock.__enter__()

    def stop(self) -> None:
        """Stop the clock that runs, if one does."""
        if self._clock is not None:
            self._clock.__exit__()
            self._clock = None
