"""Our server among stand-ins for its clients: true secrets, shares and blobs, but random uploads, and boxes that nobody
opens.

What the server computes does not depend on what is in an upload or a box, so a session of 10,000 clients needs neither
their masks nor their key agreements. Only the server's own steps are timed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from flora_bench.measure import Stopwatch
from flora_bench.our_client import forget
from flora_protocols import (
    Bitmap,
    Exchange,
    Replies,
    RoundResult,
    ServerPrepared,
    SessionParams,
    Trip,
    conduct,
    drive,
    keys,
    lane,
    round_messages,
    set_up,
    setup_messages,
    shamir,
)
from flora_protocols.setup_messages import Advertisement
from flora_protocols.slots import blob_stream
from flora_protocols.suites import CIPHERTEXT, KEM_SEED, kem_public

T = TypeVar("T")
_SLOT = 0  # the one whose round is run; what the clients leave for others is random
_MODEL = bytes(32)


class StandIns:
    """The clients of a session (semi-honest profile); `dropped` of them, spread evenly, upload nothing."""

    def __init__(self, params: SessionParams, dropped: int) -> None:
        self._params = params
        self.dropped = frozenset(place * params.clients // dropped for place in range(dropped))
        self.survivors = tuple(index for index in range(params.clients) if index not in self.dropped)
        everybody, hybrid = range(params.clients), params.suite.hybrid
        self._kem_keys = [kem_public(os.urandom(KEM_SEED)) if hybrid else b"" for _ in everybody]
        self._entries = [  # a last byte of zero is below the field's order, hence canonical
            Advertisement(os.urandom(keys.KEY - 1) + b"\0", setup_messages.hash_of_kem(key), b"")
            for key in self._kem_keys
        ]
        digest = hashlib.sha256(b"".join(entry.entry for entry in self._entries)).digest()
        self.session = params.session_id(Bitmap.of(params.clients, everybody).raw, digest)
        self._seeds, self._openers = ([os.urandom(keys.SECRET) for _ in everybody] for _ in range(2))
        self._keys: dict[tuple[int, int], bytes] = {}  # of who has dropped and a neighbour, from its blob
        # of each client, by holder, its share of the secret that will be needed
        self._dealt = [self._deal(index) for index in everybody]

    @property
    def masks(self) -> int:
        """How many masks the server takes off: each survivor's own, and each of a survivor and a dropped neighbour."""
        near = self._params.graph.members
        return len(self.survivors) + sum(peer not in self.dropped for gone in self.dropped for peer in near(gone))

    def replies(self, trip: Trip, scope: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages of a trip, one a client. `scope`: the round id, from MASK on."""
        made: dict[Trip, Callable[[], Iterator[tuple[int, bytes]]]] = {
            Trip.ADVERTISE: self._advertisements,
            Trip.ENCAPSULATE: self._ciphertexts,
            Trip.SHARE: self._shares,
            Trip.MASK: lambda: self._uploads(scope),
            Trip.UNMASK: lambda: self._reveals(scope),
        }
        return made[trip]()

    def _deal(self, index: int) -> dict[int, bytes]:
        params = self._params
        derivers = params.graph.derivers(index, params.threshold)
        others = [holder for holder in params.graph.holders(index) if holder not in derivers]
        values = shamir.uniform(shamir.LIMBS, [os.urandom] * len(derivers))
        secret, given = (self._openers if index in self.dropped else self._seeds)[index], [i + 1 for i in derivers]
        rows = shamir.split(secret, tuple(given), values, tuple(holder + 1 for holder in others))
        shares = (*shamir.encode(values), *rows)
        return {holder: row.tobytes() for holder, row in zip((*derivers, *others), shares, strict=True)}

    def _advertisements(self) -> Iterator[tuple[int, bytes]]:
        for index, (entry, key) in enumerate(zip(self._entries, self._kem_keys, strict=True)):
            yield index, setup_messages.encode_advertisement(self._params, entry, key)

    def _ciphertexts(self) -> Iterator[tuple[int, bytes]]:
        for index, count in enumerate(self._params.graph.clockwise.sum(axis=1).tolist()):
            yield index, setup_messages.encode_ciphertexts(self._params, self.session, [os.urandom(CIPHERTEXT * count)])

    def _shares(self) -> Iterator[tuple[int, bytes]]:
        """Boxes of random content; the commitment of the slot is true, and its blob holds keys that are random, too."""
        params, size = self._params, setup_messages.sealed_bytes(self._params)
        for index in range(params.clients):
            peers = [peer for peer in params.graph.members(index) if peer != index]
            derivers = params.graph.derivers(index, params.threshold)
            boxes = [os.urandom(keys.TAG + size * (peer not in derivers)) for peer in peers]
            raw = np.frombuffer(os.urandom(keys.SECRET * params.slots * len(peers)), np.uint8)
            blobs = raw.reshape(params.slots, len(peers), keys.SECRET)
            if index in self.dropped:
                opened = blobs[_SLOT] ^ blob_stream(self._openers[index], self.session, index, _SLOT, len(peers))
                self._keys.update({(index, peer): row.tobytes() for peer, row in zip(peers, opened, strict=True)})
            own = keys.commitment(self._seeds[index], self.session, index, _SLOT)
            commitments = own + os.urandom(keys.COMMITMENT_BYTES * (params.slots - 1))
            yield index, setup_messages.encode_shares(params, self.session, boxes, blobs, commitments)

    def _uploads(self, scope: bytes) -> Iterator[tuple[int, bytes]]:
        """One random vector in everybody's name, so that memory holds few uploads."""
        params = self._params
        vector = np.random.default_rng(0).integers(0, 1 << params.bits, params.dimension, np.uint32)
        for index in self.survivors:
            tiles, members = [vector.astype(lane(params.bits))], params.graph.members(index)
            yield index, round_messages.encode_upload(params, scope, tiles, members, ())

    def _reveals(self, scope: bytes) -> Iterator[tuple[int, bytes]]:
        graph = self._params.graph
        for index in self.survivors:
            shares = [self._dealt[owner][index] for owner in graph.holders(index)]
            masks = [
                keys.pair_mask(self._keys[gone, index], scope, gone, index)
                for gone in graph.members(index)
                if gone in self.dropped
            ]
            yield index, round_messages.encode_reveal(self._params, scope, shares, map(keys.pair_tag, masks))


def prepare(params: SessionParams, stand_ins: StandIns) -> tuple[ServerPrepared, dict[Trip, float]]:
    """Set a session up; CPU seconds of the server by trip: receiving the messages, and closing the trip."""
    forget()
    return _timed(set_up(replace(params)), stand_ins, b"")  # with nothing computed from the parameters yet


def serve(prepared: ServerPrepared, stand_ins: StandIns) -> tuple[RoundResult, dict[Trip, float]]:
    """Run the first round of a session that is set up; CPU seconds of the server by trip."""
    forget()
    start = prepared.next_round(1, _MODEL)
    return _timed(conduct(prepared, start), stand_ins, start.id(prepared.params, prepared.session))


def _timed(loop: Generator[Exchange, Replies, T], stand_ins: StandIns, scope: bytes) -> tuple[T, dict[Trip, float]]:
    """The loop is that of every transport. Its clock stands while the stand-ins make their messages."""
    clocks: dict[Trip, Stopwatch] = {}
    running = _Running()

    def carry(exchange: Exchange) -> Iterator[tuple[int, bytes]]:
        running.stop()
        clock = clocks[exchange.trip] = Stopwatch()
        for index, message in stand_ins.replies(exchange.trip, scope):
            running.start(clock)
            yield index, message
            running.stop()
        running.start(clock)  # for closing the trip

    result = drive(loop, carry)
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
