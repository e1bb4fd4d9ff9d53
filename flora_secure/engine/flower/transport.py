"""The server's messages over Flower's Grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from flwr.serverapp import Grid

from flora_secure.engine.deployed.transport import Transport
from flora_secure.engine.flower.letters import Letters
from flora_secure.engine.flower.wire import ANSWER


class GridTransport(Transport):
    """Carries messages between the server in a ServerApp and the clients in the sites' ClientApps.

    Patience begins when `exchange` is called, and holds as long as Flower's own server can be reached: Flower waits
    for it without an end.
    """

    def __init__(self, grid: Grid, nodes: Mapping[int, int], log: Callable[[str], None]) -> None:
        """A transport over `grid`, where `nodes` has the node of each client by the client's number, as `nodes_of`
        finds them.

        `log` is told in one line who does not answer, and by which code; never what a node wrote. Raises `ValueError`
        where one node is two clients.
        """
        self._nodes = dict(nodes)
        self._clients = {node: client for client, node in self._nodes.items()}
        if len(self._clients) != len(self._nodes):
            raise ValueError("two clients are one node")
        self._grid, self._log = grid, log
        self._closed = False

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        if self._closed:
            raise RuntimeError("the transport is closed")
        letters = Letters(self._grid, f"query.{ANSWER}", patience, self._log)
        for client, message in outbox.items():
            if client in self._nodes:
                letters.send(self._nodes[client], message, f"client {client}")
            else:
                self._log(f"client {client}: no node of Flower said that it is this client")
        return self._replies(letters)

    def close(self) -> None:
        """End the transport; the Grid is Flower's, and stays open."""
        self._closed = True

    def _replies(self, letters: Letters) -> Iterator[tuple[int, bytes]]:
        while letters.waiting:
            last, began = letters.late, time.monotonic()
            for node, reply in letters.collect():
                yield self._clients[node], reply
            if last:
                letters.give_up()
            if letters.waiting:
                letters.rest(began)
