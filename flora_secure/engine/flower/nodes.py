"""Which node of Flower's is which client of the enrolment."""

from __future__ import annotations

import time
from collections.abc import Callable

from flwr.serverapp import Grid

from flora_secure.engine.flower.letters import Letters
from flora_secure.engine.flower.wire import HELLO, number_unpacked
from flora_secure.errors import ForeignError


def nodes_of(
    grid: Grid,
    clients: int,
    *,
    least: int,
    patience: float,
    grace: float,
    log: Callable[[str], None],
    kind: str = f"query.{HELLO}",
) -> dict[int, int]:
    """Ask every connected node for its number in the enrolment, and give the node of each client that said so.

    Nodes that connect while others are waited for are asked too. It ends when all of the `clients` are known; `grace`
    seconds after `least` are, for those that are about to answer; and after `patience` seconds, with fewer than
    `least` where no more have come, which is for the caller to say. `kind`: the message type that the sites answer.

    A number is what a site claims: of two nodes with one number the first is kept, and `log` is told. What holds a
    site to its number is the identity key in its client, where the profile of the protocol signs.
    """
    letters = Letters(grid, kind, patience, log)
    known: dict[int, int] = {}
    asked: set[int] = set()
    enough_at: float | None = None
    while True:
        last, began = letters.late, time.monotonic()
        for node in grid.get_node_ids():
            if node not in asked:
                asked.add(node)
                letters.send(node, b"", f"node {node}")
        for node, reply in letters.collect():
            try:
                client = number_unpacked(reply, clients)
            except ForeignError as error:
                log(f"node {node}: its number is not read, {error}")
                continue
            if client in known:
                log(f"node {node}: says that it is client {client}, which node {known[client]} is; it is left out")
                continue
            known[client] = node
        if enough_at is None and len(known) >= least:
            enough_at = time.monotonic()
        waited_enough = enough_at is not None and time.monotonic() >= enough_at + grace
        if last:
            letters.give_up()
        if last or len(known) == clients or waited_enough:
            return known
        letters.rest(began)
