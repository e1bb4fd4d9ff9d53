"""The server's messages as calls of NVFlare's Collab API."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from nvflare.collab.api.context import get_call_context, set_call_context

from flora_secure.engine.deployed.transport import Transport


class Proxy(Protocol):
    """What the Collab API has in the place of a client: called with options, it has the client's published methods."""

    @property
    def name(self) -> str:
        """NVFlare's name of the site."""
        ...

    def __call__(self, *, timeout: float, optional: bool) -> Proxy:
        """The same client, whose next call ends after `timeout` seconds and may fail."""
        ...

    def answer(self, message: bytes) -> bytes:
        """The site's answer to a message."""
        ...

    def number(self) -> int:
        """The site's number of the enrolment, or -1."""
        ...


class CollabTransport(Transport):
    """Calls each client in a thread of its own; used by one thread at a time, within a function of the Collab API."""

    def __init__(self, clients: Mapping[int, Proxy], log: Callable[[str], None]) -> None:
        """A transport to `clients` by their number of the enrolment. `log` is told, by the kind of error alone, who has
        not answered."""
        self._clients, self._log = dict(clients), log

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        asked = {client: message for client, message in outbox.items() if client in self._clients}
        calls = {client: lambda proxy, message=message: proxy.answer(message) for client, message in asked.items()}
        for client, reply in called({client: self._clients[client] for client in asked}, calls, patience, self._log):
            if isinstance(reply, bytes):
                yield client, reply
            else:
                self._log(f"client {client}: its answer is no bytes")

    def close(self) -> None:
        """There is nothing to let go of: the connections are NVFlare's."""


def clients_of(proxies: list[Proxy], clients: int, patience: float, log: Callable[[str], None]) -> dict[int, Proxy]:
    """The client of each site by its number of the enrolment, as the sites say. The first of two that claim one number
    is kept; what holds a site to its number is its identity key."""
    found: dict[int, Proxy] = {}
    known = dict(enumerate(proxies))
    for place, number in called(known, dict.fromkeys(known, lambda proxy: proxy.number()), patience, log):
        name = known[place].name
        if type(number) is not int or not 0 <= number < clients:
            log(f"{name}: says no number of the enrolment's {clients} clients; its own log says why")
        elif number in found:
            log(f"{name}: says that it is client {number}, which {found[number].name} is; it is left out")
        else:
            found[number] = known[place]
    return found


def called(
    proxies: Mapping[int, Proxy],
    calls: Mapping[int, Callable[[Proxy], object]],
    patience: float,
    log: Callable[[str], None],
) -> Iterator[tuple[int, object]]:
    """What each call of a proxy gives, as they end; one that fails or lasts more than `patience` seconds gives nothing.

    A late result goes to a queue that nobody reads any more.
    """
    results: queue.Queue[tuple[int, object, str]] = queue.Queue()
    context, end = get_call_context(), time.monotonic() + patience

    def call(client: int, proxy: Proxy) -> None:
        set_call_context(context)  # which Collab keeps a thread
        try:
            results.put((client, calls[client](proxy(timeout=max(patience, 0.1), optional=True)), ""))
        except Exception as error:  # whatever it is, its text is of somebody else
            results.put((client, None, type(error).__name__))

    for client, proxy in proxies.items():
        threading.Thread(target=call, args=(client, proxy), daemon=True).start()
    waiting = set(proxies)
    while waiting:
        try:
            client, result, failed = results.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        waiting.discard(client)
        if failed:
            log(f"{proxies[client].name}: no answer ({failed})")
        else:
            yield client, result
    for client in sorted(waiting):
        log(f"{proxies[client].name}: no answer in {patience:.0f} s")
