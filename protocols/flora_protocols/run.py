"""One whole round in one process: the protocol in a minute, and the loop that simulations use.

Every byte that a deployment would send is made here too, and passes through `carry`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from flora_protocols.client import ClientAdvertise, ClientMask, ClientShare
from flora_protocols.conduct import Exchange, conduct, drive
from flora_protocols.errors import MisuseError, PeerError, ProtocolError, RoundAborted, TooFewSurvivors
from flora_protocols.keys import Randomness
from flora_protocols.loading import Client
from flora_protocols.params import Floors, SessionParams, require_params
from flora_protocols.ranges import integer
from flora_protocols.reveal import ClientAgree, ClientUnmask
from flora_protocols.ring import require_vector
from flora_protocols.server import RoundResult
from flora_protocols.trips import Trip

Vector = NDArray[np.uint32]


class Direction(Enum):
    """Which way a message goes."""

    UP = "up"
    DOWN = "down"


Carry = Callable[[Trip, int, Direction, bytes], None]


class _Local:
    """A transport within one process: moves every client that has mail, as soon as the server asks for the next reply.

    `left`: the clients that left on their own account, and why.
    """

    def __init__(
        self,
        clients: Mapping[int, ClientAdvertise],
        vector: Callable[[int], Vector],
        randomness: Randomness,
        dropouts: Mapping[Trip, Collection[int]],
        carry: Carry | None,
    ) -> None:
        self._clients: dict[int, Client] = dict(clients)
        self._vector, self._randomness, self._dropouts, self._carry = vector, randomness, dropouts, carry
        self._before: Trip | None = None
        self.left: dict[int, ProtocolError] = {}

    def exchange(self, exchange: Exchange) -> Iterator[tuple[int, bytes]]:
        trip, absent = exchange.trip, self._dropouts.get(exchange.trip, ())
        if self._before is not None:
            for index, mail in exchange.outbox.items():
                self._show(self._before, index, Direction.DOWN, mail)
        self._before = trip
        for index, mail in exchange.outbox.items():
            if index in absent or index in self.left:
                continue
            try:
                self._clients[index], message = self._move(index, mail)
            except (PeerError, TooFewSurvivors) as error:  # it sees too few others, or what it must not take
                self.left[index] = error
                continue
            self._show(trip, index, Direction.UP, message)
            yield index, message

    def _move(self, index: int, mail: bytes) -> tuple[Client, bytes]:
        client = self._clients[index]
        if isinstance(client, ClientAdvertise):
            return client.advertise(self._randomness)
        if isinstance(client, ClientShare):
            return client.share(mail, self._randomness)
        if isinstance(client, ClientMask):
            return client.mask(mail, self._vector(index))
        if isinstance(client, ClientAgree):
            return client.agree(mail)
        assert isinstance(client, ClientUnmask)  # the server has nothing to say to those who are done
        return client.unmask(mail)

    def _show(self, trip: Trip, client: int, direction: Direction, message: bytes) -> None:
        if self._carry is not None:
            self._carry(trip, client, direction, message)


def run_round(
    params: SessionParams,
    vectors: Sequence[Vector] | Callable[[int], Vector],
    *,
    floors: Floors,
    dropouts: Mapping[Trip, Collection[int]] | None = None,
    randomness: Randomness = os.urandom,
    carry: Carry | None = None,
    identities: Sequence[bytes] | None = None,
) -> RoundResult:
    """Run one round among `params.clients` clients and a server.

    `vectors`: uint32 (d,) by client index, every element < 2^b; a callable is asked only for clients that upload.
    `floors`: everybody's. `dropouts`: who vanishes before sending in a trip. `carry(trip, client, direction, message)`
    sees every message.
    `identities`: Ed25519 secret keys by index (malicious-server profile). A client that must refuse what it gets, or
    sees too few others, leaves; the result's `left` says why. Raises RoundAborted (with `left`, too), MisuseError.
    """
    vector, absent = _checked(params, vectors, identities), _possible(params, dropouts or {})
    clients = {
        i: ClientAdvertise(params, i, floors=floors, identity=identities[i] if identities else None)
        for i in range(params.clients)
    }
    local = _Local(clients, vector, randomness, absent, carry)
    try:
        result = drive(conduct(params), local.exchange)
    except RoundAborted as error:
        error.left = local.left
        raise
    return replace(result, left=local.left)


def _possible(params: SessionParams, dropouts: Mapping[Trip, Collection[int]]) -> Mapping[Trip, Collection[int]]:
    """`dropouts`; MisuseError if they name a client that there cannot be."""
    dropped = {integer("a dropout's index", client) for trip in dropouts.values() for client in trip}
    strangers = dropped.difference(range(params.clients))
    if strangers:
        raise MisuseError(f"dropouts name client {min(strangers)}; 0 .. {params.clients - 1} are possible")
    return dropouts


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
