"""One connection, either side of it: parcels out and in, each bounded in time, and heartbeats.

Whoever has sent nothing for `Timing.beat` seconds sends a beat; a peer of which no byte came for `Timing.silence`
seconds is taken for dead. A parcel of n bytes has `slack + n / rate` seconds to be taken, or to arrive, however
steadily it drips. Bytes in memory: what is sent is the caller's own, sliced; what is received is held twice for the
moment in which it is put together; beside that some 0.5 MB at most in buffers of asyncio and OpenSSL.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flora_secure.engine.tls.wire import HEADER_BYTES, BreachError, Dismissal, Header, Kind
from flora_secure.errors import first_line

CHUNK = 1 << 16  # bytes written, or read, at once
# what a connection may end with: EOFError where the peer closes it, TimeoutError and ssl.SSLError are kinds of OSError
ENDINGS = (OSError, EOFError, BreachError)


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds; both sides should have the same `beat` and `silence`.

    Attributes:
        greeting: TLS and the greetings, at a server; a client waits for `silence`, since servers have queues.
        beat: between two beats.
        silence: without a byte, until the peer is taken for dead.
        slack: that each parcel has, however short.
        rate: bytes per second below which a parcel is too slow.
        pause: of a client before it tries again; it doubles each time,
        most_pause: up to this. A random part of at most a half is taken off.
    """

    greeting: float = 10.0
    beat: float = 10.0
    silence: float = 30.0
    slack: float = 60.0
    rate: float = 16384.0
    pause: float = 0.5
    most_pause: float = 30.0

    def transfer(self, length: int) -> float:
        """The seconds that a parcel of `length` bytes may take."""
        return self.slack + length / self.rate


def reason(error: BaseException) -> str:
    """Why a connection ended, in a line for the log that holds nothing of what was sent."""
    if isinstance(error, BreachError):
        return str(error)
    if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError):
        return "the other side closed it"
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return "the other side took too long"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold: {error.verify_message.rstrip('. ')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or type(error).__name__).replace('_', ' ').lower()}"
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    return type(error).__name__


async def open_to(host: str, port: int, context: ssl.SSLContext, timing: Timing) -> Connection:
    """A connection to a server, its certificate and its name checked. Raises OSError."""
    async with asyncio.timeout(timing.silence):
        reader, writer = await asyncio.open_connection(
            *(host, port),
            limit=CHUNK,
            ssl=context,
            server_hostname=host,
            ssl_handshake_timeout=timing.silence,
            ssl_shutdown_timeout=timing.greeting,
        )
    return Connection(reader, writer, timing)


async def accept_from(accepted: socket.socket, context: ssl.SSLContext, timing: Timing) -> Connection:
    """A connection that was `accepted`, the client's certificate checked. Raises OSError; the socket is then closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol,
        accepted,
        ssl=context,
        ssl_handshake_timeout=timing.greeting,
        ssl_shutdown_timeout=timing.greeting,
    )
    return Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop), timing)


class Connection:
    """A connection whose TLS handshake is done; for one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timing: Timing) -> None:
        self._reader, self._writer, self._timing = reader, writer, timing
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = ""

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, as `ssl.SSLSocket.getpeercert` gives it."""
        found: dict[str, Any] | None = self._writer.get_extra_info("peercert")
        return found

    async def greet(self, greeting: bytes) -> None:
        """Send a greeting. Raises OSError."""
        self._writer.write(greeting)
        await self._writer.drain()

    async def greeting(self, length: int) -> bytes:
        """The peer's greeting of `length` bytes. Raises EOFError, OSError."""
        return await self._reader.readexactly(length)

    async def send(
        self, kind: Kind, number: int = 0, message: bytes = b"", wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Send a parcel when those before it are sent, unless it is then not `wanted` any more.

        Raises BreachError where the peer does not take it in time, and OSError. After that, or where this is cancelled,
        the connection is of no use: abort it.
        """
        async with self._sending:
            if not wanted():
                return
            try:
                async with asyncio.timeout(self._timing.transfer(len(message))):
                    view = memoryview(message)
                    self._writer.write(Header(kind, number, len(message)).to_bytes() + view[:CHUNK])
                    await self._writer.drain()
                    for start in range(CHUNK, len(message), CHUNK):
                        self._writer.write(view[start : start + CHUNK])
                        await self._writer.drain()
            except TimeoutError:
                raise BreachError(f"it did not take {len(message):,} bytes in time") from None

    async def header(self, allowed: frozenset[Kind], most: int) -> Header:
        """The next parcel's header, of the kinds `allowed` and of at most `most` bytes.

        Raises BreachError, EOFError, OSError.
        """
        try:
            async with asyncio.timeout(self._timing.silence):
                raw = await self._reader.readexactly(HEADER_BYTES)
        except TimeoutError:
            raise BreachError(f"no byte came for {self._timing.silence:g} s") from None
        return Header.from_bytes(raw, allowed, most)

    async def message(self, header: Header, wanted: Callable[[], bool] = lambda: True) -> bytes | None:
        """The message behind `header`; None, and no memory taken, where it is not or no longer `wanted`.

        Raises BreachError, EOFError, OSError.
        """
        loop = asyncio.get_running_loop()
        left, deadline = header.length, loop.time() + self._timing.transfer(header.length)
        held = bytearray()  # parts of one byte each would take forty times as much
        while left:
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + self._timing.silence)):
                    part = await self._reader.read(min(left, CHUNK))
            except TimeoutError:
                raise BreachError(f"{left:,} of {header.length:,} bytes did not come in time") from None
            if not part:
                raise EOFError
            left -= len(part)
            if wanted():
                held += part
            else:
                held.clear()
        return bytes(held) if wanted() and len(held) == header.length else None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the reading, until the connection ends; where it fails the connection is aborted."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.abort(reason(error))
            if not isinstance(error, ENDINGS):
                raise error  # a mistake of the program: asyncio reports it

    async def beat(self) -> None:
        """Send beats for ever. Raises as `send`."""
        while True:
            await asyncio.sleep(self._timing.beat)
            await self.send(Kind.BEAT)

    def part(self, dismissal: Dismissal) -> None:
        """Say why and end, unless a parcel is half sent: then only end. Never waits."""
        if self._sending.locked():
            self.abort(dismissal.name.lower())
            return
        with suppress(OSError):
            self._writer.write(Header(Kind.DISMISSAL, dismissal, 0).to_bytes())
        self._end(dismissal.name.lower())
        self._writer.close()  # which waits no longer than the context of the connection was told

    async def closed(self) -> None:
        """Wait until all is sent and the connection is closed."""
        with suppress(*ENDINGS):
            await self._writer.wait_closed()

    def abort(self, why: str) -> None:
        """End at once; `ended` keeps the first `why`. Whoever reads gets an error."""
        self._end(why)
        self._writer.transport.abort()

    def _end(self, why: str) -> None:
        self.ended = self.ended or why
        for task in self._tasks:
            task.cancel()
