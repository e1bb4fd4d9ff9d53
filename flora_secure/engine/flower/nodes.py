"""Which node of Flower's is which client of the enrolment."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)
from flwr.serverapp import Grid

from flora_secure.engine.flower.letters import Letters
from flora_secure.engine.flower.wire import HELLO, number_unpacked
from flora_secure.errors import ConfigError, ForeignError

HELLO_PATIENCE = 30.0
"""Seconds that a round waits for nodes which have come since to say who they are."""


class Nodes:
    """The node of each client, as far as it is known: looked up anew before every exchange, so that a site which comes
    later, or comes back as another node, is in again.

    A client whose node key is given is the node that has this key, and no other: Flower's server has seen the key
    signed for where it authenticates its nodes. Any other number is what a site claims: of two nodes with one number
    the first is kept as long as it is connected, and `log` is told. What holds a site to its number in the end is the
    identity key in its client.
    """

    def __init__(
        self,
        grid: Grid,
        wanted: Collection[int],
        log: Callable[[str], None],
        keys: Mapping[int, bytes] | None = None,
        known: Mapping[int, int] | None = None,
        kind: str = f"query.{HELLO}",
    ) -> None:
        """Nodes of the clients `wanted`, numbers of the enrolment. `kind`: the message type that the sites answer.

        `keys`: public node keys by the client's number, as `public_key_of` gives them. `known`: nodes by the client's
        number, where they are known before anybody is asked. Raises `ValueError` where one node is two clients.
        """
        self._grid, self._wanted, self._log, self._kind = grid, frozenset(wanted), log, kind
        self._keys = {key: client for client, key in (keys or {}).items()}
        self._held = frozenset(keys or ())  # clients that are held to a key
        self._nodes = dict(known or {})
        if len(set(self._nodes.values())) != len(self._nodes):
            raise ValueError("two clients are one node")
        self._online = set(self._nodes.values())
        self._silent: set[int] = set()  # nodes that did not say who they are in time
        self._strange: set[int] = set()  # nodes that the log was told of

    @property
    def missing(self) -> tuple[int, ...]:
        """The clients without a node that is connected."""
        return tuple(sorted(client for client in self._wanted if self._nodes.get(client) not in self._online))

    def node_of(self, client: int) -> int | None:
        """The client's node; None where none is known."""
        return self._nodes.get(client)

    def find(self, *, least: int, patience: float, grace: float) -> None:
        """Look for the nodes of all clients, those that connect in the meantime among them.

        It ends when all are known; `grace` seconds after `least` are, for those that are about to answer; and after
        `patience` seconds, with fewer than `least` where no more have come, which is for the caller to say.
        """
        hellos = self.hellos(patience)
        enough_at: float | None = None
        while True:
            last, began = hellos.late, time.monotonic()
            self.look(hellos)
            for _ in self.heard(hellos):
                pass
            if enough_at is None and len(self._wanted) - len(self.missing) >= least:
                enough_at = time.monotonic()
            waited_enough = enough_at is not None and time.monotonic() >= enough_at + grace
            if last:
                self.give_up(hellos)
            if last or not self.missing or waited_enough:
                return
            hellos.rest(began)

    def hellos(self, patience: float) -> Letters:
        """Letters that ask nodes for their numbers."""
        return Letters(self._grid, self._kind, patience, self._log)

    def look(self, hellos: Letters) -> None:
        """Find out who is connected and, where a client is missing, ask nodes that are nobody yet for their numbers.

        Each is asked once with these `hellos`, and not at all if it was silent before and has been connected since.

        A node whose key is that of a client needs no asking.
        """
        infos = {info.node_id: info.public_key for info in self._grid.get_nodes()}
        self._online = set(infos)
        self._silent &= self._online
        for node, key in infos.items() if self._keys else ():
            client = self._keys.get(_comparable(key))
            if client in self._wanted:
                self._nodes[client] = node
        missing = set(self.missing)
        nobody = self._online - set(self._nodes.values())
        if missing - self._held:
            for node in sorted(nobody - self._silent - hellos.asked):
                hellos.send(node, b"", f"node {node}")
        elif missing:
            for node in sorted(nobody - self._strange):
                self._log(f"node {node}: its node key is that of no site, it is left out")
            self._strange |= nobody

    def give_up(self, hellos: Letters) -> None:
        """Wait for no more numbers; who was silent is not asked again as long as it is connected."""
        self._silent |= hellos.give_up()

    def heard(self, hellos: Letters) -> Iterator[tuple[int, int]]:
        """Take what nodes have said since, and give (client, node) of those that are taken for a client."""
        for node, reply in hellos.collect():
            try:
                client = number_unpacked(reply, max(self._wanted) + 1)
            except ForeignError as error:
                self._log(f"node {node}: its number is not read, {error}")
                continue
            if self._takes(client, node):
                self._nodes[client] = node
                yield client, node

    def _takes(self, client: int, node: int) -> bool:
        says = f"node {node}: says that it is client {client}"
        if client not in self._wanted:
            self._log(f"{says}, which is revoked; it is left out")
        elif client in self._held:
            self._log(f"{says}, whose node key is another; it is left out")
        elif self._nodes.get(client) in self._online:
            self._log(f"{says}, which node {self._nodes[client]} is; it is left out")
        else:
            return True
        return False


def public_key_of(line: bytes, where: str) -> bytes:
    """A public node key as it is compared, from OpenSSH's line of it. Raises ConfigError naming `where`."""
    try:
        key = load_ssh_public_key(line)
    except Exception as error:  # cryptography's own kinds, and there are several
        raise ConfigError(f"{where} is no public node key: {type(error).__name__}; bring the site's own") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _comparable(pem: bytes) -> bytes:
    """The same of a key as Flower has it; empty where it is none."""
    try:
        return load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception:  # a node without a key, or one that is no key: it is nobody's
        return b""
