"""The server's end: a transport whose connections live in a thread of their own.

Which client a connection is of, its certificate says, and never a message. One connection a client: a second one
replaces the first, for it came back before the first was found dead. A request that is pending when a client comes, or
comes back, is sent.

What strangers and clients can take is bounded:

| what | bound |
|---|---|
| connections | one a client, one more that was replaced and ends, and `reception.MOST_GREETING` of nobody yet |
| time to show who one is | `Timing.greeting` seconds, TLS and greeting each |
| a silent, or a slow peer | `Timing.silence`, `Timing.transfer` |
| memory a connection | some 0.3 MB, most of it a buffer of asyncio's TLS; 0.5 MB while it sends or receives |
| requests | held once, as the caller has them; one more a client that is slow to take an earlier one |
| replies | one a client, of at most `most_reply` bytes, twice that while it is put together; others are not kept |
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Condition

from flora_secure.engine.tls.certificates import TlsFiles, client_name
from flora_secure.engine.tls.connection import ENDINGS, Connection, Timing, reason
from flora_secure.engine.tls.reception import Reception
from flora_secure.engine.tls.threads import LoopThread
from flora_secure.engine.tls.wire import FROM_CLIENT, MOST_BYTES, Dismissal, Kind

_LEAVING = 5.0  # seconds that clients have to take a dismissal
_LOOK = 0.5  # seconds after which an exchange that hears nothing looks who is connected


_Reply = tuple[float, int, bytes]  # when it came, of which client


@dataclass(frozen=True, eq=False)
class _Request:
    """A message to one client, its number, and where the reply goes with the time at which it came."""

    number: int
    message: bytes
    replies: SimpleQueue[_Reply | None]


@dataclass
class _Seat:
    """What the server has of one client: its connection, the one before where that is being ended, and the request that
    it owes a reply to."""

    client: int
    connection: Connection | None = None
    leaving: Connection | None = None
    request: _Request | None = None


class TlsTransport:
    """Messages to the clients of an enrolment over mutual TLS, see `flora_secure.engine.deployed.transport`.

    `exchange`, `wait_for` and `dismiss` are for one thread, that of the caller's loop; `close` is for any.
    """

    def __init__(
        self,
        host: str,
        port: int,
        files: TlsFiles,
        clients: int,
        *,
        revoked: Collection[int] = (),
        most_reply: int = MOST_BYTES,
        absence: float = math.inf,
        timing: Timing | None = None,
        log: Callable[[str], None],
    ) -> None:
        """Listen, and accept clients from now on.

        Args:
            host: a name or address of this machine; "0.0.0.0" or "::" for all that it has.
            port: 1 to 65535; 0 for any free one, which `port` then says.
            files: the server's certificate and key, and the authority of the clients'.
            clients: how many are enrolled; their numbers are 0 .. clients - 1.
            revoked: numbers of those that are not let in.
            most_reply: bytes of the longest reply that is taken, at most 2^31.
            absence: seconds after which an exchange waits no longer for a client that has no connection.
            timing: what may take how long; the defaults of `Timing` where it is None.
            log: is given a line, from another thread, for each client that comes or goes and each connection refused.

        Raises NetworkError, one line, for a port that cannot be had, and as `certificates.server_context`.
        """
        self.most_reply = most_reply
        self._reception = Reception(host, port, files, clients, frozenset(revoked), timing or Timing(), log)
        self.port = self._reception.port
        self._log = log
        self._seats = [_Seat(client) for client in range(clients)]
        self._numbers = secrets.randbits(62)  # so that a server that starts again does not use those of the one before
        self._here: frozenset[int] = frozenset()
        self._absence, self._gone = absence, dict.fromkeys(range(clients), time.monotonic())
        self._changed = Condition()
        self._asking: SimpleQueue[_Reply | None] | None = None
        self._closed = False
        self._thread = LoopThread("flora-secure connections")
        self._thread.start(self._reception.receive(self._attend))

    @property
    def connected(self) -> frozenset[int]:
        """The clients that have a connection now."""
        return self._here

    @property
    def most_reply(self) -> int:
        """Bytes of the longest reply that is taken; it can be set, for replies from then on."""
        return self._most

    @most_reply.setter
    def most_reply(self, most: int) -> None:
        if not 0 < most <= MOST_BYTES:
            raise ValueError(f"replies of at most {most} bytes; the most are {MOST_BYTES}")
        self._most = most

    def wait_for(self, clients: Collection[int], least: int, patience: float) -> frozenset[int]:
        """Wait until `least` of `clients` are connected, or `patience` seconds are over; give those that are."""
        chosen = frozenset(clients)
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or len(self._here & chosen) >= least, min(patience, TIMEOUT_MAX)
            )
            return self._here & chosen

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        """Deliver each message of `outbox` to the client of that number of the enrolment, and give the replies.

        Yields (client, reply) as they come, in any order; it ends when everybody has replied, or `patience` seconds
        after the first was asked for. Who has not replied by then has dropped out: a reply that comes later is left
        out, and so is one to an earlier message. A client that is not connected is sent its message when it comes;
        where all that are waited for have been away for `absence` seconds, the exchange ends before.

        An exchange that was broken off ends where another begins.

        Raises ValueError for clients that are not enrolled and for messages of more than 2^31 bytes, and RuntimeError
        after `close`.
        """
        if self._closed:
            raise RuntimeError("the transport is closed")
        for client, message in outbox.items():
            if not 0 <= client < len(self._seats):
                raise ValueError(f"client {client} is not among the {len(self._seats)} that are enrolled")
            if len(message) > MOST_BYTES:
                raise ValueError(f"a message of {len(message)} bytes to client {client}; the most are {MOST_BYTES}")
        replies: SimpleQueue[_Reply | None] = SimpleQueue()
        requests = {
            client: _Request(self._numbers + i, message, replies) for i, (client, message) in enumerate(outbox.items())
        }
        self._numbers += len(requests)
        deadline, left = time.monotonic() + patience, set(requests)
        if self._asking is not None:
            self._asking.put(None)
        self._asking = replies
        try:
            self._thread.loop.call_soon_threadsafe(self._post, requests)
            while left:
                now = time.monotonic()
                end = min(deadline, self._given_up(left), now + TIMEOUT_MAX)
                try:
                    arrived = replies.get(timeout=min(max(end - now, 0.0), _LOOK))
                except Empty:
                    if now >= end:
                        return
                    continue
                if arrived is None:  # closed, or another exchange has begun
                    return
                came, client, reply = arrived
                left.discard(client)
                if came <= deadline:  # this thread may have been busy since
                    yield client, reply
        finally:
            if self._asking is replies:
                self._asking = None
            with suppress(RuntimeError):  # closed meanwhile
                self._thread.loop.call_soon_threadsafe(self._withdraw, requests)

    def _given_up(self, clients: Collection[int]) -> float:
        """When the last of `clients` will have been away for too long; never, while one of them is connected."""
        with self._changed:
            if self._here.isdisjoint(clients):
                return max(self._gone[client] for client in clients) + self._absence
        return math.inf

    def dismiss(self) -> None:
        """Tell all clients that are connected that the federation is over, so that they end; wait a few seconds for
        that. Those that are not connected will look for a server until their own patience is over."""
        if not self._closed:
            self._thread.start(self._dismiss()).result()

    def close(self) -> None:
        """End all connections, the thread, and an exchange that is going on; clients will look for a server again. A
        second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if (replies := self._asking) is not None:
            replies.put(None)
        self._thread.close()
        self._reception.close()

    # what follows runs in the thread of the connections

    def _post(self, requests: Mapping[int, _Request]) -> None:
        for seat in self._seats:
            seat.request = None
        for client, request in requests.items():
            self._seats[client].request = request
            self._ask(self._seats[client])

    def _withdraw(self, requests: Mapping[int, _Request]) -> None:
        for client, request in requests.items():
            if self._seats[client].request is request:
                self._seats[client].request = None

    def _ask(self, seat: _Seat) -> None:
        request, connection = seat.request, seat.connection
        if request is not None and connection is not None:
            connection.spawn(
                connection.send(Kind.REQUEST, request.number, request.message, lambda: seat.request is request)
            )

    async def _attend(self, client: int, connection: Connection) -> None:
        seat, name = self._seats[client], client_name(client)
        if seat.leaving is not None:
            seat.leaving.abort("replaced")
        seat.leaving, seat.connection = seat.connection, connection
        if seat.leaving is not None:
            seat.leaving.part(Dismissal.REPLACED)
        self._note(self._here | {seat.client})
        self._log(f"{name} is connected")
        try:
            connection.spawn(connection.beat())
            self._ask(seat)
            while True:
                await self._take(seat, connection)
        except ENDINGS as error:
            connection.abort(reason(error))
            self._log(f"{name} is disconnected: {connection.ended}")
        finally:
            connection.abort("closed")
            if seat.connection is connection:
                seat.connection = None
            if seat.leaving is connection:
                seat.leaving = None
            if seat.connection is None:
                self._note(self._here - {seat.client})

    async def _take(self, seat: _Seat, connection: Connection) -> None:
        """Read one parcel."""
        header = await connection.header(FROM_CLIENT, self._most)
        if header.kind is not Kind.REPLY:
            return
        request = seat.request
        reply = await connection.message(
            header, lambda: request is not None and seat.request is request and request.number == header.number
        )
        if request is None or reply is None:
            self._log(f"{client_name(seat.client)}: a reply of {header.length:,} bytes came too late, or twice")
        else:
            seat.request = None
            request.replies.put((time.monotonic(), seat.client, reply))

    def _note(self, here: frozenset[int]) -> None:
        with self._changed:
            self._gone.update(dict.fromkeys(self._here - here, time.monotonic()))
            self._here = here
            self._changed.notify_all()

    async def _dismiss(self) -> None:
        leaving = [seat.connection for seat in self._seats if seat.connection is not None]
        for connection in leaving:
            connection.part(Dismissal.OVER)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING):
                await asyncio.gather(*(connection.closed() for connection in leaving))
