"""The server's messages over Flower's Grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from flwr.serverapp import Grid

from flora_secure.engine.deployed.transport import Transport
from flora_secure.engine.flower.letters import Letters
from flora_secure.engine.flower.nodes import HELLO_PATIENCE, Nodes
from flora_secure.engine.flower.wire import ANSWER


class GridTransport(Transport):
    """Carries messages between the server in a ServerApp and the clients in the sites' ClientApps.

    Before each exchange nodes that have connected since are asked who they are, where a client is missing; one that
    says so in time is sent its message still. Patience begins when `exchange` is called, and holds as long as Flower's
    own server can be reached: Flower waits for it without an end.
    """

    def __init__(self, grid: Grid, nodes: Nodes, log: Callable[[str], None]) -> None:
        """A transport over `grid` to `nodes`.

        `log` is told in one line who does not answer, and by which code; never what a node wrote.
        """
        self._grid, self._nodes, self._log = grid, nodes, log
        self._closed = False

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        if self._closed:
            raise RuntimeError("the transport is closed")
        letters = Letters(self._grid, f"query.{ANSWER}", patience, self._log)
        hellos = self._nodes.hellos(min(patience, HELLO_PATIENCE))
        self._nodes.look(hellos)
        clients: dict[int, int] = {}
        left: dict[int, bytes] = {}
        away = set(self._nodes.missing)
        for client, message in outbox.items():
            node = self._nodes.node_of(client)
            if node is None or (client in away and hellos.waiting):
                left[client] = message
            else:
                clients[node] = client
                letters.send(node, message, _name(client))
        return self._replies(letters, hellos, clients, left)

    def close(self) -> None:
        """End the transport; the Grid is Flower's, and stays open."""
        self._closed = True

    def _replies(
        self, letters: Letters, hellos: Letters, clients: dict[int, int], left: dict[int, bytes]
    ) -> Iterator[tuple[int, bytes]]:
        """Replies by client. `clients`: whose letter a node has; `left`: messages for clients whose node is unknown."""
        while letters.waiting or (left and hellos.waiting):
            last, began = letters.late, time.monotonic()
            for client, node in self._nodes.heard(hellos):
                if client in left:
                    clients[node] = client
                    letters.send(node, left.pop(client), _name(client))
            for node, reply in letters.collect():
                yield clients[node], reply
            if hellos.late:
                self._nodes.give_up(hellos)
            if last:
                letters.give_up()
            if letters.waiting or (left and hellos.waiting):
                letters.rest(began)
        for client in left:
            self._log(f"{_name(client)}: no node of Flower is known to be this client")


def _name(client: int) -> str:
    return f"client {client}"
