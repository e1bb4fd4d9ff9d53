"""The client's end: connect out, answer what the server asks, come back when the connection is lost.

Nothing of a request is kept here. What a reply is to was seen by `answer` already, which gives the same bytes to the
same request: so the server may ask again as often as it must. A request that comes while another is answered waits,
and takes the place of one that waits; so a server can have a client hold three requests at most, and one reply.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from flora_secure.engine.tls.certificates import TlsFiles, client_context, own_name
from flora_secure.engine.tls.connection import ENDINGS, Connection, Timing, open_to, reason
from flora_secure.engine.tls.threads import Answerers
from flora_secure.engine.tls.wire import (
    FROM_SERVER,
    GREETING,
    MOST_BYTES,
    BreachError,
    Dismissal,
    Kind,
    require_greeting,
)
from flora_secure.errors import NetworkError, first_line

PATIENCE = 600.0  # seconds
_AT_ONCE = 64  # clients of one process that connect at the same time
_LAST_WORDS = {
    Dismissal.UNKNOWN: "the server does not know this client; ask its coordinator for the number of your certificate",
    Dismissal.REVOKED: "this client is revoked; ask the server's coordinator why",
    Dismissal.REPLACED: "another process has joined with the same certificate; run one of them",
}
Answer = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Joiner:
    """One client of a process that runs many: its files, and the function that answers its requests."""

    files: TlsFiles
    answer: Answer


def join(
    host: str,
    port: int,
    files: TlsFiles,
    answer: Answer,
    *,
    patience: float = PATIENCE,
    timing: Timing | None = None,
    log: Callable[[str], None],
) -> None:
    """Be a client of the server at `host` and `port` until it says that the federation is over.

    Args:
        host: a name or address that the server's certificate holds.
        port: the server's.
        files: the client's certificate and key, and the authority of the server's.
        answer: gives the reply to a request. It runs in another thread, one call at a time, as long as it takes.
        patience: seconds without a server after which this gives up.
        timing: what may take how long; the defaults of `Timing` where it is None.
        log: is given a line for each change: connected, lost, over.

    On Ctrl-C, and before any error, an answer that is being made is made to its end; a second Ctrl-C ends at once.

    Raises NetworkError, one line: as `certificates.client_context`; for a server whose certificate does not hold, where
    it never did; after `patience`; for a client that is unknown, revoked, or joined elsewhere. What `answer` raises
    ends it too.
    """
    join_all(host, port, [Joiner(files, answer)], threads=1, patience=patience, timing=timing, log=log)


def join_all(
    host: str,
    port: int,
    joiners: Sequence[Joiner],
    *,
    threads: int,
    patience: float = PATIENCE,
    timing: Timing | None = None,
    log: Callable[[str], None],
) -> None:
    """Be many clients in one process, as `join` is one: one event loop, and so many `threads` for the answers of all.

    One that is refused, or gives up, does not end the others; the first such NetworkError is raised when all have.
    """
    answerers = Answerers(threads)

    async def one(joiner: Joiner, doors: asyncio.Semaphore) -> None:
        try:
            await attend(host, port, joiner, answerers, doors, patience=patience, timing=timing, log=log)
        except NetworkError as error:
            if len(joiners) > 1:  # else it is raised at once
                log(str(error))
            raise

    async def together() -> None:
        doors = asyncio.Semaphore(_AT_ONCE)
        ended = await asyncio.gather(*(one(joiner, doors) for joiner in joiners), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    try:
        asyncio.run(together())
    finally:
        if answerers.busy:
            log("ends when the answer in hand is made; Ctrl-C (again) ends at once")
        answerers.close()


async def attend(
    host: str,
    port: int,
    joiner: Joiner,
    answerers: Answerers,
    doors: asyncio.Semaphore,
    *,
    patience: float = PATIENCE,
    timing: Timing | None = None,
    log: Callable[[str], None],
) -> None:
    """What `join` does, as a coroutine, which can be cancelled. `doors`: taken while it connects. Raises as `join`."""
    timing = timing or Timing()
    context, name = client_context(joiner.files), own_name(joiner.files)
    if not 0 < port <= 65535:
        raise NetworkError(f"port {port}: must lie in 1…65535")
    where, loop, desk = f"{host}:{port}", asyncio.get_running_loop(), _Desk(joiner.answer, answerers)
    alone_since, pause, greeted, said = loop.time(), timing.pause, False, ""
    try:
        while desk.failure is None:
            try:
                async with doors:
                    connection = await _connect(host, port, context, timing)
            except ENDINGS as error:
                why = reason(error)
                if not greeted and (isinstance(error, ssl.SSLCertVerificationError | BreachError)):
                    raise NetworkError(f"{where}: {why}; check host, port and authority") from None
            except ValueError as error:  # such as a name that is too long
                raise NetworkError(f"{where}: no place to connect to: {first_line(error)}") from None
            else:
                log(f"{name} is connected to {where}")
                greeted, pause, said = True, timing.pause, ""
                dismissal = await desk.serve(connection)
                if dismissal is Dismissal.OVER:
                    log(f"{name}: the federation is over")
                    return
                if dismissal is not None:
                    raise NetworkError(f"{name} at {where}: {_LAST_WORDS[dismissal]}")
                alone_since, why = loop.time(), connection.ended
            if why != said:
                log(f"{name} is not connected to {where}: {why}; tries for {patience:g} s")
                said = why
            if loop.time() - alone_since + pause > patience:
                raise NetworkError(f"{where}: no server for {patience:g} s ({why}); start it, and join again")
            await asyncio.sleep(secrets.SystemRandom().uniform(pause / 2, pause))
            pause = min(2 * pause, timing.most_pause)
        raise desk.failure
    finally:
        await desk.leave()


async def _connect(host: str, port: int, context: ssl.SSLContext, timing: Timing) -> Connection:
    """A connection on which both sides have greeted. Raises what a connection may end with."""
    connection = await open_to(host, port, context, timing)
    try:
        await connection.greet(GREETING)
        async with asyncio.timeout(timing.silence):
            try:
                raw = await connection.greeting(len(GREETING))
            except (EOFError, ConnectionResetError):
                # TLS 1.3 tells a client nothing of how its certificate was received before it reads
                raise ConnectionRefusedError(
                    0, "the server does not take this client's certificate, or has just ended"
                ) from None
        require_greeting(raw)
    except BaseException:
        connection.abort("no greeting")
        raise
    return connection


class _Desk:
    """The client's work, over all of its connections: one answer at a time, to the last request that came."""

    def __init__(self, answer: Answer, answerers: Answerers) -> None:
        self._answer, self._answerers = answer, answerers
        self._connection: Connection | None = None
        self._wanted: tuple[int, bytes] | None = None
        self._working: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None

    async def serve(self, connection: Connection) -> Dismissal | None:
        """Take requests and send replies until the connection ends. Gives the server's last word, if it had one."""
        self._connection = connection
        connection.spawn(connection.beat())
        try:
            while True:
                header = await connection.header(FROM_SERVER, MOST_BYTES)
                if header.kind is Kind.DISMISSAL:
                    return Dismissal(header.number)
                if header.kind is Kind.REQUEST and (message := await connection.message(header)) is not None:
                    self._take(header.number, message)
        except ENDINGS as error:
            connection.abort(reason(error))
        finally:
            self._connection = None
            connection.abort("closed")
        return None

    def _take(self, number: int, message: bytes) -> None:
        self._wanted = number, message
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        """Answer until nothing is wanted. A reply that nobody can be sent, or wants no more, is let go."""
        try:
            while (task := self._wanted) is not None:
                reply = await asyncio.wrap_future(self._answerers.ask(self._answer, task[1]))
                if len(reply) > MOST_BYTES:
                    raise ValueError(f"an answer of {len(reply)} bytes; the most are {MOST_BYTES}")
                if self._wanted != task:  # the server has gone on
                    continue
                self._wanted = None
                if (connection := self._connection) is not None:
                    connection.spawn(connection.send(Kind.REPLY, task[0], reply))
        except Exception as error:  # of `answer`, which should not: whoever joined gets it
            self.failure = error
            if self._connection is not None:
                self._connection.abort(f"the answer failed ({type(error).__name__})")
        finally:
            self._working = None

    async def leave(self) -> None:
        """Stop; an answer that is being made goes on in its thread."""
        if self._working is not None:
            self._working.cancel()
            with suppress(asyncio.CancelledError):
                await self._working
