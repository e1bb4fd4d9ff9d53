"""The messages of a secure sum over Flower's Grid: requests for uploads carry the arrays beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from flwr.app import RecordDict
from flwr.serverapp import Grid

from flora_secure.engine.deployed.transport import Transport
from flora_secure.engine.flower.letters import Letters
from flora_secure.engine.flower.nodes import Nodes
from flora_secure.engine.flower.sums.wire import KIND, without_metrics
from flora_secure.errors import ForeignError
from flora_secure.rounds.opening import is_request

_GRACE = 5.0  # seconds for nodes that are about to answer


class SumTransport(Transport):
    """A way to the sites of one enrolment, whose nodes may come and go.

    Attributes:
        beside: what goes with the request to each client in this round.
        metrics: public ones, of each client that has sent some since `expect`.
        download: bytes of the arrays that have gone beside requests since `expect`.
    """

    def __init__(self, clients: int, log: Callable[[str], None]) -> None:
        """For `clients` that are enrolled; `log` is told who does not answer."""
        self._clients, self._log = clients, log
        self._nodes: dict[int, int] = {}
        self._grid: Grid | None = None
        self.beside: Mapping[int, RecordDict] = {}
        self.metrics: dict[int, dict[str, float]] = {}
        self.download = 0

    def find(self, grid: Grid, members: tuple[int, ...], *, least: int, patience: float) -> dict[int, int]:
        """The node of each of `members` that is connected to `grid`; asks all nodes where a member is missing and a
        node is not known. At least `least` are waited for, for so many seconds."""
        self._grid = grid
        connected = set(grid.get_node_ids())
        self._nodes = {client: node for client, node in self._nodes.items() if node in connected}
        missing = set(members) - self._nodes.keys()
        if missing and (connected - set(self._nodes.values()) or len(self._nodes) < least):
            found = Nodes(grid, members, self._log, kind=KIND)
            found.find(least=least, patience=patience, grace=_GRACE)
            known = {client: found.node_of(client) for client in range(self._clients)}
            self._nodes = {client: node for client, node in known.items() if node is not None}
        return {client: self._nodes[client] for client in members if client in self._nodes}

    def expect(self, beside: Mapping[int, RecordDict]) -> None:
        """Begin a round whose requests carry these records."""
        self.beside, self.metrics, self.download = beside, {}, 0

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        if self._grid is None:
            raise RuntimeError("the transport has no grid yet")
        letters, clients = Letters(self._grid, KIND, patience, self._log), dict[int, int]()
        for client, message in outbox.items():
            node = self._nodes.get(client)
            if node is None:
                self._log(f"client {client}: no node of Flower said that it is this client")
                continue
            beside = self.beside.get(client) if is_request(message) else None
            self.download += 0 if beside is None else _bytes(beside)
            clients[node] = client
            letters.send(node, message, f"client {client}", beside)
        return self._replies(letters, clients)

    def close(self) -> None:
        """End the transport; the Grid is Flower's, and stays open."""
        self._grid = None

    def _replies(self, letters: Letters, clients: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
        while letters.waiting:
            last, began = letters.late, time.monotonic()
            for node, reply in letters.collect():
                client = clients[node]
                try:
                    envelope, metrics = without_metrics(reply)
                except ForeignError as error:
                    self._log(f"client {client}: its reply is not read, {error}")
                    continue
                if metrics:
                    self.metrics[client] = metrics
                yield client, envelope
            if last:
                letters.give_up()
            if letters.waiting:
                letters.rest(began)


def _bytes(records: RecordDict) -> int:
    """What the arrays of records weigh. All else beside a request has some hundred bytes, and is not counted."""
    return sum(len(array.data) for record in records.array_records.values() for array in record.values())
