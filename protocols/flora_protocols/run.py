"""Whole sessions and rounds in one process: the protocol in a minute, and the loop that simulations use.

Every byte that a deployment would send is made here too, and passes through `carry`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flora_protocols.client import ClientAdvertise, ClientEncapsulate
from flora_protocols.client_round import ClientAgree, ClientDone, ClientReady, ClientUnmask
from flora_protocols.conduct import Exchange, Replies, conduct, drive, set_up
from flora_protocols.dealing import ClientCollect
from flora_protocols.errors import MisuseError, PeerError, ProtocolError, RoundAborted, TooFewSurvivors
from flora_protocols.keys import Randomness
from flora_protocols.loading import Client
from flora_protocols.params import Floors, SessionParams, require_params
from flora_protocols.prepared import ServerPrepared
from flora_protocols.ranges import integer
from flora_protocols.ring import require_vector
from flora_protocols.round_params import RoundParams
from flora_protocols.server_round import RoundResult
from flora_protocols.trips import Trip

Vector = NDArray[np.uint32]
T = TypeVar("T")
Vectors = Sequence[Vector] | Callable[[int], Vector]
Dropouts = Mapping[Trip, Collection[int]]


class Direction(Enum):
    """Which way a message goes."""

    UP = "up"
    DOWN = "down"


Carry = Callable[[Trip, int, Direction, bytes], None]


class LocalSession:
    """A session among `params.clients` clients and a server, all in this process.

    `floors`: everybody's. `dropouts`: who vanishes before sending in a trip of the set-up, for the whole session.
    `carry(trip, client, direction, message)` sees every message. `identities`: Ed25519 secret keys by index
    (malicious-server profile). A client that must refuse what it gets, or sees too few others, leaves; `left` says who
    did so and why, while the session was set up or in the last round. Raises RoundAborted (with `left`, too) where the
    set-up fails, MisuseError.
    """

    def __init__(
        self,
        params: SessionParams,
        *,
        floors: Floors,
        dropouts: Dropouts | None = None,
        randomness: Randomness = os.urandom,
        carry: Carry | None = None,
        identities: Sequence[bytes] | None = None,
    ) -> None:
        require_params(params)
        if identities is not None and len(identities) != params.clients:
            raise MisuseError(f"{len(identities)} identity keys for {params.clients} clients; give one each")
        self.left: dict[int, ProtocolError] = {}
        self._params, self._randomness, self._carry = params, randomness, carry
        self._clients: dict[int, Client] = {
            i: ClientAdvertise(params, i, floors=floors, identity=identities[i] if identities else None)
            for i in range(params.clients)
        }
        self._dropouts = _possible(params, dropouts or {})
        self._vector: Callable[[int], Vector] = _nothing
        self._before: Trip | None = None
        self.prepared: ServerPrepared = self._driven(set_up(params))

    def round(self, round: RoundParams, vectors: Vectors, dropouts: Dropouts | None = None) -> RoundResult:
        """One round: the sum of the vectors of those that stay.

        `vectors`: uint32 (d,) by client index, every element < 2^b; a callable is asked only for clients that upload.
        `dropouts`: who vanishes before sending in a trip, for this round. The result's `left` says which clients left
        on their own account, and why. Raises RoundAborted (with `left`, too), MisuseError.
        """
        self._vector, self._dropouts = _checked(self._params, vectors), _possible(self._params, dropouts or {})
        self.left, self._before = {}, None
        return replace(self._driven(conduct(self.prepared, round)), left=self.left)

    def _driven(self, loop: Generator[Exchange, Replies, T]) -> T:
        try:
            return drive(loop, self._exchange)
        except RoundAborted as error:
            error.left = self.left
            raise

    def _exchange(self, exchange: Exchange) -> Iterator[tuple[int, bytes]]:
        """Moves every client that has mail, as soon as the server asks for the next reply."""
        trip, absent = exchange.trip, self._dropouts.get(exchange.trip, ())
        for index, mail in exchange.outbox.items():
            if mail:
                self._show(trip, index, Direction.DOWN, mail)
            if index in absent or index in self.left:
                continue
            try:
                self._clients[index], message = self._move(index, mail, exchange.start)
            except (PeerError, TooFewSurvivors) as error:  # it sees too few others, or what it must not take
                self.left[index] = error
                continue
            self._show(trip, index, Direction.UP, message)
            yield index, message

    def _move(self, index: int, mail: bytes, start: int) -> tuple[Client, bytes]:
        client = self._clients[index]
        if start:
            if isinstance(client, ClientAgree | ClientUnmask):
                client = client.leave()
            if isinstance(client, ClientCollect):
                client = self._clients[index] = client.collect(mail[start:])
            assert isinstance(client, ClientReady)  # the server starts no round without a slot
            return client.mask(RoundParams.from_bytes(self._params, client.session, mail[:start]), self._vector(index))
        if isinstance(client, ClientAdvertise):
            return client.advertise(self._randomness)
        if isinstance(client, ClientEncapsulate):
            return client.encapsulate(mail)
        if isinstance(client, ClientAgree):
            return client.agree(mail)
        if isinstance(client, ClientUnmask):
            return client.unmask(mail)
        assert not isinstance(client, ClientReady | ClientCollect | ClientDone)
        return client.share(mail)

    def _show(self, trip: Trip, client: int, direction: Direction, message: bytes) -> None:
        if self._carry is not None:
            self._carry(trip, client, direction, message)


def run_round(
    params: SessionParams,
    vectors: Vectors,
    *,
    floors: Floors,
    model_hash: bytes = bytes(32),
    round: int = 0,
    dropouts: Dropouts | None = None,
    randomness: Randomness = os.urandom,
    carry: Carry | None = None,
    identities: Sequence[bytes] | None = None,
) -> RoundResult:
    """A session of which one round is run, its first: arguments, result and errors as of `LocalSession`.

    Everybody who shared is invited. What is wrong with `vectors` is said before any key is made.
    """
    vector = _checked(params, vectors)
    session = LocalSession(
        params, floors=floors, dropouts=dropouts, randomness=randomness, carry=carry, identities=identities
    )
    left = dict(session.left)
    started = session.prepared.next_round(round, model_hash)
    try:
        result = session.round(started, vector, dropouts)
    except RoundAborted as error:
        error.left = left | session.left
        raise
    absent = sorted({*range(params.clients)}.difference(started.invited, result.dropped))
    dropped = tuple(sorted((*result.dropped, *absent)))
    refused = {**session.prepared.refused, **result.refused}
    return replace(result, dropped=dropped, refused=refused, left=left | session.left)


def _possible(params: SessionParams, dropouts: Dropouts) -> Dropouts:
    """`dropouts`; MisuseError if they name a client that there cannot be."""
    dropped = {integer("a dropout's index", client) for trip in dropouts.values() for client in trip}
    strangers = dropped.difference(range(params.clients))
    if strangers:
        raise MisuseError(f"dropouts name client {min(strangers)}; 0 .. {params.clients - 1} are possible")
    return dropouts


def _checked(params: SessionParams, vectors: Vectors) -> Callable[[int], Vector]:
    """The vector of each client; MisuseError, before any key is made, for what is wrong with those that are there."""
    require_params(params)
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


def _nothing(client: int) -> Vector:
    raise MisuseError(f"client {client} has no vector while the session is set up")
