"""Who is let in at a server: a port, TLS, a greeting, and the certificate of a client that is enrolled.

At most `MOST_GREETING` connections at a time have not shown who they are; others wait in the system's queue.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from flora_secure.boundary.foreign import printable
from flora_secure.engine.tls.certificates import TlsFiles, client_of, common_name, server_context
from flora_secure.engine.tls.connection import ENDINGS, Connection, Timing, accept_from, reason
from flora_secure.engine.tls.wire import GREETING, Dismissal, require_greeting
from flora_secure.errors import NetworkError

MOST_GREETING = 64
_QUEUE = 1024  # connections that the system holds until they are accepted
_OTHER_FILES = 64  # that this process has open beside connections
_PAUSE = 1.0  # seconds, where the system gives no more connections


class Reception:
    """A port that is listened at, and what it takes to be let in there."""

    def __init__(
        self,
        host: str,
        port: int,
        files: TlsFiles,
        clients: int,
        revoked: frozenset[int],
        timing: Timing,
        log: Callable[[str], None],
    ) -> None:
        """Listen; see `server.TlsTransport` for the arguments, and for what is raised."""
        _require_files(clients)
        self._context = server_context(files)
        self._listener = _listening(host, port)
        self.port: int = self._listener.getsockname()[1]
        self._clients, self._revoked, self._timing, self._log = clients, revoked, timing, log
        self._meeting: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Listen no more. The loop in which `receive` ran has ended."""
        self._listener.close()

    async def receive(self, attend: Callable[[int, Connection], Coroutine[Any, Any, None]]) -> None:
        """Accept connections for ever; `attend(client, connection)` takes each that is let in, to its end."""
        loop, doors = asyncio.get_running_loop(), asyncio.Semaphore(MOST_GREETING)
        while True:
            await doors.acquire()
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except OSError as error:  # such as too many open files
                doors.release()
                self._log(f"no connection is accepted for {_PAUSE:g} s: {reason(error)}")
                await asyncio.sleep(_PAUSE)
                continue
            task = loop.create_task(self._meet(accepted, address[0], doors, attend))
            self._meeting.add(task)
            task.add_done_callback(self._meeting.discard)

    async def _meet(
        self,
        accepted: socket.socket,
        address: str,
        doors: asyncio.Semaphore,
        attend: Callable[[int, Connection], Coroutine[Any, Any, None]],
    ) -> None:
        """A connection from its beginning to its end."""
        try:
            try:
                connection = await accept_from(accepted, self._context, self._timing)
            except BaseException:
                accepted.close()
                raise
            try:
                client = await self._greet(connection)
            except BaseException:
                connection.abort("no greeting")
                raise
            if client is None:
                await connection.closed()
                return
        except ENDINGS as error:
            self._log(f"a connection from {address} is refused: {reason(error)}")
            return
        finally:
            doors.release()
        await attend(client, connection)

    async def _greet(self, connection: Connection) -> int | None:
        """Whose connection it is; None for somebody that is told to go. Raises what a connection may end with."""
        async with asyncio.timeout(self._timing.greeting):
            require_greeting(await connection.greeting(len(GREETING)))
            await connection.greet(GREETING)
        name = common_name(connection.certificate)
        client = client_of(name)
        if client is not None and client < self._clients and client not in self._revoked:
            return client
        revoked = client in self._revoked
        connection.part(Dismissal.REVOKED if revoked else Dismissal.UNKNOWN)
        self._log(f"{printable(name)[:64]!r} is refused: it is {'revoked' if revoked else 'not enrolled'}")
        return None


def _require_files(clients: int) -> None:
    """Raises NetworkError where the system does not let this process have a connection for each client."""
    if os.name == "posix":  # Windows has no such bound
        import resource

        most, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], clients + MOST_GREETING + _OTHER_FILES
        if most != resource.RLIM_INFINITY and needed > most:
            raise NetworkError(
                f"{clients} clients: they take {needed} open files, and this process may have {most}; "
                f"begin it after: ulimit -n {needed}"
            )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises NetworkError."""
    if not 0 <= port <= 65535:
        raise NetworkError(f"port {port}: must lie in 0…65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_QUEUE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise NetworkError(
            f"cannot listen at {host}, port {port}: {why}; give another port, or a name or address of this machine"
        ) from None
    listener.setblocking(False)
    return listener
