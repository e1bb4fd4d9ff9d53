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

from flora_protocols.client import ClientAdvertise
from flora_protocols.errors import MisuseError, TooFewSurvivors
from flora_protocols.keys import Randomness
from flora_protocols.params import Floors, SessionParams, Trip, require_params
from flora_protocols.ranges import integer
from flora_protocols.reveal import ClientAgree, ClientUnmask
from flora_protocols.ring import require_vector
from flora_protocols.server import Outbox, RoundResult, ServerAdvertise, ServerAgree

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


class _Wires:
    """Between clients and server: shows every message to ``carry``, and lets clients drop out."""

    def __init__(
        self, params: SessionParams, dropouts: Mapping[Trip, Collection[int]] | None, carry: Carry | None
    ) -> None:
        self._dropouts, self._carry = dropouts or {}, carry
        dropped = {integer("a dropout's index", client) for trip in self._dropouts.values() for client in trip}
        strangers = dropped.difference(range(params.clients))
        if strangers:
            raise MisuseError(f"dropouts name client {min(strangers)}; 0 .. {params.clients - 1} are possible")

    def up(
        self,
        trip: Trip,
        server: _Receiver,
        clients: Mapping[int, P],
        mail: Collection[int],
        move: Callable[[int, P], tuple[Q, bytes]],
    ) -> dict[int, Q]:
        """Those of ``clients`` that got ``mail`` move, and the server receives what they send."""
        moved = {}
        for index in mail:
            if index in self._dropouts.get(trip, ()):
                continue
            try:
                moved[index], message = move(index, clients[index])
            except TooFewSurvivors:
                continue  # a client that sees too few others leaves; the server counts who is left
            self._show(trip, index, Direction.UP, message)
            server.receive(index, message)
        return moved

    def down(self, trip: Trip, closed: tuple[Q, Outbox]) -> tuple[Q, Outbox]:
        """The server's next position, and what it tells each client."""
        for index, message in closed[1].items():
            self._show(trip, index, Direction.DOWN, message)
        return closed

    def _show(self, trip: Trip, client: int, direction: Direction, message: bytes) -> None:
        if self._carry is not None:
            self._carry(trip, client, direction, message)


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
    vector = _checked(params, vectors, identities)
    wires, everybody = _Wires(params, dropouts, carry), range(params.clients)
    newcomers = {
        i: ClientAdvertise(params, i, floors=floors, identity=identities[i] if identities else None) for i in everybody
    }

    advertise = ServerAdvertise(params)
    sharers = wires.up(Trip.ADVERTISE, advertise, newcomers, everybody, lambda i, c: c.advertise(randomness))
    share, rosters = wires.down(Trip.ADVERTISE, advertise.close())

    maskers = wires.up(Trip.SHARE, share, sharers, rosters, lambda i, c: c.share(rosters[i], randomness))
    mask, inboxes = wires.down(Trip.SHARE, share.close())

    uploaded = wires.up(Trip.MASK, mask, maskers, inboxes, lambda i, c: c.mask(inboxes[i], vector(i)))
    following, told = wires.down(Trip.MASK, mask.close())

    unmaskers = {i: c for i, c in uploaded.items() if isinstance(c, ClientUnmask)}
    if isinstance(following, ServerAgree):
        agreeing = {i: c for i, c in uploaded.items() if isinstance(c, ClientAgree)}
        unmaskers = wires.up(Trip.AGREE, following, agreeing, told, lambda i, c: c.agree(told[i]))
        unmask, last = wires.down(Trip.AGREE, following.close())
    else:
        unmask, last = following, told

    wires.up(Trip.UNMASK, unmask, unmaskers, last, lambda i, c: c.unmask(last[i]))
    return unmask.close()


def _checked(
    params: SessionParams, vectors: Sequence[Vector] | Callable[[int], Vector], identities: Sequence[bytes] | None
) -> Callable[[int], Vector]:
    """The vector of each client; MisuseError, before any key is made, for what is wrong with those that are there."""
    require_params(params)
    if identities is not None and len(identities) != params.clients:
        raise MisuseError(f"{len(identities)} identity keys for {params.clients} clients; give one each")
    if callable(vectors):
        return vectors
    if not isinstance(vectors, Sequence | np.ndarray):
        raise MisuseError(f"vectors must be a sequence or a callable, not {type(vectors).__name__}")
    if len(vectors) != params.clients:
        raise MisuseError(f"{len(vectors)} vectors for {params.clients} clients; give one each")
    for client, vector in enumerate(vectors):
        try:
            require_vector(vector, params.dimension, params.bits)
        except MisuseError as error:
            raise MisuseError(f"client {client}: {error}") from None
    return vectors.__getitem__
