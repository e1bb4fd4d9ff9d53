"""A whole session of real clients and a real server in this process: what its clients cost, and how often they move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from flora_bench.measure import Stopwatch
from flora_bench.our_client import forget
from flora_protocols import (
    Client,
    ClientAdvertise,
    ClientCollect,
    ClientReady,
    Exchange,
    Floors,
    RoundParams,
    SessionParams,
    Trip,
    conduct,
    drive,
    set_up,
)

_MODEL = bytes(32)


@dataclass(frozen=True)
class Session:
    """What a session took: `seconds` of CPU of a client, on average, in it all; the `set_up` and the round `trips`."""

    seconds: float
    set_up: tuple[Trip, ...]
    trips: tuple[Trip, ...]


def run(params: SessionParams, identities: tuple[bytes, ...] = ()) -> Session:
    """Set the session up and run all its rounds, everybody present; only the clients' own steps are timed.

    `identities`: everybody's secret key, in the malicious-server profile.
    """
    forget()
    params = dataclasses.replace(params)  # with nothing computed from them yet
    everybody, clock = range(params.clients), Stopwatch()
    vector = np.random.default_rng(0).integers(0, 1 << params.bits, params.dimension, np.uint32)
    floors = Floors(clients=params.clients, threshold=2, survivors=params.clients, suite=params.suite)
    clients: dict[int, Client] = {
        index: ClientAdvertise(params, index, floors=floors, identity=identities[index] if identities else None)
        for index in everybody
    }
    trips: list[Trip] = []

    def moved(index: int, message: bytes, start: int) -> bytes:
        client = clients[index]
        if start:
            if isinstance(client, ClientCollect):
                client = client.collect(message[start:])
            assert isinstance(client, ClientReady)
            clients[index], reply = client.mask(RoundParams.from_bytes(params, client.session, message[:start]), vector)
            return reply
        assert client.trip is not None
        move: Callable[..., tuple[Client, bytes]] = getattr(client, client.trip.name.lower())
        clients[index], reply = move(message) if message else move()
        return reply

    def carry(exchange: Exchange) -> Iterator[tuple[int, bytes]]:
        trips.append(exchange.trip)
        with clock:  # around a whole trip: asking the time costs as much as some answers
            replies = [(index, moved(index, message, exchange.start)) for index, message in exchange.outbox.items()]
        yield from replies

    prepared = drive(set_up(params), carry)
    before = len(trips)
    for number in range(params.slots):
        drive(conduct(prepared, prepared.next_round(number, _MODEL)), carry)
    each = (len(trips) - before) // params.slots
    return Session(clock.seconds / params.clients, tuple(trips[:before]), tuple(trips[before : before + each]))
