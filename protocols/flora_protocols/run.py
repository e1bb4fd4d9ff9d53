"""One whole round in one process: the protocol in a minute, and the loop that simulations use.

Every byte that a deployment would send is made here too, and passes through ``carry``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .client import ClientAdvertise
from .errors import MisuseError, TooFewSurvivors
from .keys import Randomness
from .params import Floors, SessionParams, Trip
from .reveal import ClientAgree, ClientUnmask
from .server import Outbox, RoundResult, ServerAdvertise, ServerAgree

Vector = NDArray[np.uint32]
P = TypeVar("P")
Q = TypeVar("Q")


class Direction(Enum):
    """Which way a message goes."""

    UP = "up"
    DOWN = "down"


Carry = Callable[[Trip, int, Direction, bytes], None]


class _Receiver(Protocol):
    def receive(self, client: int, message: bytes) -> None: ...


def run_round(
    params: SessionParams,
    vectors: Sequence[Vector] | Callable[[int], Vector],
    *,
    dropouts: Mapping[Trip, Collection[int]] | None = None,
    randomness: Randomness = os.urandom,
    carry: Carry | None = None,
    floors: Floors | None = None,
    identities: Sequence[bytes] | None = None,
) -> RoundResult:
    """Run one round among ``params.clients`` clients and a server.

    ``vectors``: uint32 (d,) by client index, every element < 2^b; a callable is asked only for clients that upload.
    ``dropouts``: who vanishes before sending in a trip. ``carry(trip, client, direction, message)`` sees every message.
    ``identities``: Ed25519 secret keys by index (malicious-server profile). Raises TooFewSurvivors, MisuseError.
    """
    if not callable(vectors) and len(vectors) != params.clients:
        raise MisuseError(f"{len(vectors)} vectors for {params.clients} clients; give one each")
    vector = vectors if callable(vectors) else vectors.__getitem__
    lost = dropouts or {}
    watch = carry or (lambda trip, client, direction, message: None)

    def up(
        trip: Trip, server: _Receiver, clients: Mapping[int, P], mail: Outbox, move: Callable[[int, P], tuple[Q, bytes]]
    ) -> dict[int, Q]:
        moved = {}
        for index in mail:
            if index in lost.get(trip, ()):
                continue
            try:
                moved[index], message = move(index, clients[index])
            except TooFewSurvivors:
                continue  # a client that sees too few others leaves; the server counts who is left
            watch(trip, index, Direction.UP, message)
            server.receive(index, message)
        return moved

    def down(trip: Trip, closed: tuple[Q, Outbox]) -> tuple[Q, Outbox]:
        for index, message in closed[1].items():
            watch(trip, index, Direction.DOWN, message)
        return closed

    everybody = range(params.clients)
    start = {
        i: ClientAdvertise(params, i, floors=floors, identity=identities[i] if identities else None) for i in everybody
    }
    advertise = ServerAdvertise(params)
    sharers = up(Trip.ADVERTISE, advertise, start, dict.fromkeys(everybody, b""), lambda i, c: c.advertise(randomness))
    share, rosters = down(Trip.ADVERTISE, advertise.close())
    maskers = up(Trip.SHARE, share, sharers, rosters, lambda i, c: c.share(rosters[i], randomness))
    mask, inboxes = down(Trip.SHARE, share.close())
    uploaded = up(Trip.MASK, mask, maskers, inboxes, lambda i, c: c.mask(inboxes[i], vector(i)))
    following, told = down(Trip.MASK, mask.close())
    unmaskers = {i: c for i, c in uploaded.items() if isinstance(c, ClientUnmask)}
    if isinstance(following, ServerAgree):
        agreeing = {i: c for i, c in uploaded.items() if isinstance(c, ClientAgree)}
        unmaskers = up(Trip.AGREE, following, agreeing, told, lambda i, c: c.agree(told[i]))
        unmask, last = down(Trip.AGREE, following.close())
    else:
        unmask, last = following, told
    up(Trip.UNMASK, unmask, unmaskers, last, lambda i, c: c.unmask(last[i]))
    return unmask.close()
