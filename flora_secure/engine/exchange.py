"""A round's messages between clients and server, carried and counted.

`MaskedExchange` drives the protocol over a transport, `PlainExchange` does without masks, and `CountedExchange` counts
the protocol's messages by their sizes instead of making them. The sums are equal, element for element.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from flora_protocols import (
    Exchange,
    Floors,
    Kind,
    ServerPrepared,
    SessionParams,
    TooFewSurvivors,
    Trip,
    conduct,
    drive,
    lane,
    pack,
    set_up,
    unpack,
)
from flora_secure.engine.workers import Workers
from flora_secure.records.transcript.writing import RoundTranscript
from flora_secure.rounds.counting import Counted, in_round, in_set_up, recovered
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import REQUEST_BYTES
from flora_secure.rounds.sum import RoundSum, Vector


@dataclass
class Traffic:
    """Running totals of one round, in bytes, over all clients. `payload` are updates and broadcasts, and `broadcast` is
    the part of it that went down."""

    upload: int = 0
    download: int = 0
    payload: int = 0
    broadcast: int = 0
    clients: set[int] = field(default_factory=set)

    def sent_up(self, client: int, message: bytes, payload: int = 0) -> None:
        """`client` → server; `payload` of the message's bytes are the update itself."""
        self.counted((client,), len(message), payload, up=True)

    def sent_down(self, client: int, message: bytes, payload: int = 0, around: int = 0) -> None:
        """Server → `client`; `payload` of the message's bytes are the broadcast. `around`: bytes that frame it."""
        self.counted((client,), len(message) + around, payload, up=False)
        self.broadcast += payload

    def counted(self, clients: Collection[int], size: int, payload: int = 0, *, up: bool) -> None:
        """Messages of so many bytes in all of `clients`, or to them, `payload` bytes among them."""
        if not 0 <= payload <= size:
            raise ValueError(f"payload of {payload} bytes in messages of {size}")
        self.clients.update(clients)
        self.payload += payload
        if up:
            self.upload += size
        else:
            self.download += size

    @property
    def masking(self) -> int:
        """Bytes that are neither broadcast nor update: what invitations and masking cost."""
        return self.upload + self.download - self.payload


class Transport(Protocol):
    """What carries bytes between a server and its clients, whatever the network."""

    def exchange(self, outbox: Mapping[int, bytes], patience: float | None = None) -> Iterator[tuple[int, bytes]]:
        """Deliver each message of `outbox` to the client at that position of the protocol, and give the replies.

        Yields (position, reply) as they come, in any order; it ends when everybody has replied or after `patience`
        seconds (None for the transport's own). Who has not replied by then has dropped out.
        """
        ...


@dataclass(frozen=True)
class Carried:
    """A round that ended in a sum, and the CPU seconds that it took.

    Attributes:
        sum: the released sum.
        client_seconds: mean of a client, as it would spend them outside a simulation (`workers`).
        server_seconds: total of the server. Both are 0 where the protocol is not run.
    """

    sum: RoundSum
    client_seconds: float
    server_seconds: float


class RoundExchange(Protocol):
    """How a simulated round's vectors become their sum."""

    def round(
        self,
        invitation: Invitation,
        floors: Floors | None,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
        record: RoundTranscript | None = None,
    ) -> Carried:
        """Sum `uploads` (client → uint32 (plan.length,) below 2^bits) of the members; those without one drop out.

        `floors`: the clients', from their policy. `record`: where the protocol's messages are kept, if there are any.
        Raises TooFewSurvivors or RoundAborted (of flora_protocols) where no sum is released; uploads may have been
        sent.
        """
        ...

    def close(self) -> None:
        """Release what the exchange holds."""
        ...

    @property
    def standing(self) -> bool:
        """Whether the masking session, if there is one, can go on in the next round."""
        ...


class PlainExchange:
    """An exchange without masking, for comparison and debugging: the server receives every upload by itself."""

    standing = True

    def round(
        self,
        invitation: Invitation,
        floors: Floors | None,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
        record: RoundTranscript | None = None,
    ) -> Carried:
        """The sum of the uploads as they are, see `RoundExchange`."""
        plan, before = invitation.plan, time.process_time()
        total = np.zeros(plan.length, np.uint32)
        for client, vector in uploads.items():
            message = pack(vector.astype(lane(plan.bits)), plan.bits)
            traffic.sent_up(client, message, payload=len(message))
            arrived = unpack(message, plan.length, plan.bits)
            assert arrived is not None  # our own packing
            total += arrived
        if len(uploads) < plan.survivors_minimum:
            raise TooFewSurvivors("clients that uploaded", len(uploads), plan.survivors_minimum)
        total &= np.uint32((1 << plan.bits) - 1)
        return Carried(RoundSum(total, tuple(sorted(uploads)), 0), 0.0, time.process_time() - before)

    def close(self) -> None:
        """There is nothing to release."""


class CountedExchange:
    """The masking protocol counted and not run: no key, no mask, no message is made, and nothing is hidden.

    Bytes, sum and survivors of a round, and whether it ends without one, are those of `MaskedExchange`.
    """

    standing = True  # what would end a session, too few who set it up, does not happen in a simulation

    def __init__(self) -> None:
        self._session: SessionParams | None = None
        self._without_inbox: set[int] = set()

    def round(
        self,
        invitation: Invitation,
        floors: Floors | None,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
        record: RoundTranscript | None = None,
    ) -> Carried:
        """The sum of the uploads as they are, see `RoundExchange`."""
        params, members = invitation.params, invitation.members
        assert params is not None
        assert floors is not None
        stayed = [position for position, client in enumerate(members) if client in uploads]

        def count(messages: Iterable[Counted]) -> None:
            for one in messages:
                payload = params.payload_bytes * len(one.positions) if one.kind is Kind.UPLOAD else 0
                size = sum(one.sizes) + (REQUEST_BYTES * len(one.positions) if one.kind is Kind.START else 0)
                traffic.counted([members[position] for position in one.positions], size, payload, up=one.up)

        if self._session != params:
            count(in_set_up(params))
            self._session, self._without_inbox = params, set(range(params.clients))
        without = frozenset(self._without_inbox)
        self._without_inbox -= set(stayed)
        count(in_round(params, floors, stayed, without))
        total, survivors = np.zeros(params.dimension, np.uint32), tuple(members[position] for position in stayed)
        for client in survivors:
            total += uploads[client]
        total &= np.uint32((1 << params.bits) - 1)
        return Carried(RoundSum(total, survivors, recovered(params, stayed)), 0.0, 0.0)

    def close(self) -> None:
        """There is nothing to release."""


class MaskedExchange:
    """Secure aggregation (Bonawitz et al. CCS'17, Bell et al. CCS'20), the clients in `workers` processes.

    A session is among the members of its rounds: its position i is held by the i-th of them. It is set up in the first
    of them, and goes on as long as the invitations are of the same session.
    """

    def __init__(self, identities: Mapping[int, bytes], enrolment: Enrolment, workers: int = 0) -> None:
        """Start the worker processes.

        `identities`: Ed25519 secret keys by client in the malicious-server profile; empty otherwise.
        """
        self._identities, self._enrolment = dict(identities), enrolment
        self._workers = Workers(workers)
        self._prepared: ServerPrepared | None = None

    @property
    def standing(self) -> bool:
        """Whether a session is set up, and a round of it can be tried."""
        return self._prepared is not None and len(self._prepared.clients) >= self._prepared.params.threshold

    def round(
        self,
        invitation: Invitation,
        floors: Floors | None,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
        record: RoundTranscript | None = None,
    ) -> Carried:
        """The sum under masks, see `RoundExchange`."""
        params, members, workers, server = invitation.params, invitation.members, self._workers, _Stopwatch()
        assert params is not None
        assert floors is not None
        clients_before = workers.cpu_seconds

        def carry(exchange: Exchange) -> Iterator[tuple[int, bytes]]:
            asked = exchange.trip is Trip.MASK
            with server.paused():
                replies = list(workers.exchange(exchange.outbox))
            for position, message in exchange.outbox.items():
                if message:  # nothing in ADVERTISE, which the opening begins
                    traffic.sent_down(members[position], message, around=REQUEST_BYTES * asked)
            for position, message in replies:
                traffic.sent_up(members[position], message, params.payload_bytes * asked)
                yield position, message

        carried = carry if record is None else record.carrying(carry)
        with server:
            if self._prepared is None or self._prepared.params != params:
                self._prepared = None
                workers.open(
                    params, floors, {place: self._identities.get(client) for place, client in enumerate(members)}
                )
                self._prepared = drive(set_up(params), carried)
            start = invitation.start(self._enrolment, self._prepared.clients)
            workers.give({place: uploads[client] for place, client in enumerate(members) if client in uploads})
            result = drive(conduct(self._prepared, start, least_survivors=floors.survivors), carried)
        client_seconds = (workers.cpu_seconds - clients_before) / params.clients
        survivors = tuple(members[position] for position in result.survivors)
        return Carried(RoundSum(result.sum, survivors, len(result.recovered)), client_seconds, server.seconds)

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()


class _Stopwatch:
    """CPU time spent inside a `with` block, less what is spent while it is paused."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def __enter__(self) -> None:
        self._since = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time of this block does not count."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()
