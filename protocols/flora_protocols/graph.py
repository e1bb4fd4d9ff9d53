"""Who shares masks with whom: the complete graph (Bonawitz et al. CCS'17) or a Harary graph (Bell et al. CCS'20).

The Harary graph places the clients on a circle in an order drawn from a public seed and joins each to the k/2 next on
either side. The seed binds n, k, the session's number and the identities, and nothing else that a server could grind.
Holders of a client's shares: in the complete graph everybody including the client itself, as in CCS'17, so that any
t clients can finish; in the Harary graph its k neighbours, as in CCS'20.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Members = range | tuple[int, ...]


class Graph:
    """`clients` nodes, each with `neighbours` neighbours: all others, or an even number. `seed`: 32 bytes."""

    def __init__(self, clients: int, neighbours: int, seed: bytes) -> None:
        self.clients = clients
        self.complete = neighbours == clients - 1
        if not self.complete:
            encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
            # Sorting 64-bit keys shuffles uniformly up to ties, whose probability is below n^2 / 2^65.
            order = np.argsort(np.frombuffer(encryptor.update(bytes(8 * clients)), "<u8"), kind="stable")
            self._order = order.tolist()
            self._place = [0] * clients
            for place, client in enumerate(self._order):
                self._place[client] = place
            self._reach = range(-neighbours // 2, neighbours // 2 + 1)
        self._members: dict[int, Members] = {}  # of the clients asked for so far
        self._holders: dict[int, Members] = {}
        self._derivers: dict[tuple[int, int], Members] = {}  # of client and threshold
        self._derives_from: dict[tuple[int, int], frozenset[int]] = {}  # likewise

    def members(self, index: int) -> Members:
        """A client's neighbours and itself, ascending."""
        if self.complete:
            return range(self.clients)
        if index not in self._members:
            if "neighbourhoods" in vars(self):  # at a server
                near = self.neighbourhoods[index].tolist()
            else:
                place = self._place[index]
                near = sorted([self._order[(place + step) % self.clients] for step in self._reach])
            self._members[index] = tuple(near)
            near.remove(index)
            self._holders[index] = tuple(near)
        return self._members[index]

    def derivers(self, index: int, threshold: int) -> Members:
        """The `threshold` - 1 neighbours of a client that derive their shares of its secrets: those of least index."""
        asked = index, threshold
        if asked not in self._derivers:
            others = [member for member in self.members(index)[:threshold] if member != index]
            self._derivers[asked] = tuple(others[: threshold - 1])
        return self._derivers[asked]

    def derives_from(self, index: int, threshold: int) -> frozenset[int]:
        """The neighbours of whose `derivers` a client is one: those that have fewer than `threshold` - 1 others of
        lesser index than the client. Their neighbourhoods are counted along the circle, and none is made."""
        asked = index, threshold
        if asked not in self._derives_from:
            self._derives_from[asked] = frozenset(self._dealers(index, threshold - 1))
        return self._derives_from[asked]

    def _dealers(self, index: int, most: int) -> Iterable[int]:
        if self.complete:  # a client beyond `most` is one place earlier among the others of who is before it
            return (peer for peer in range(self.clients) if peer != index and index - (peer < index) < most)
        reach, place = self._reach.stop - 1, self._place[index]
        along = np.take(self._order, np.arange(place - 2 * reach, place + 2 * reach + 1), mode="wrap")
        lesser = np.concatenate(([0], np.cumsum(along < index)))
        peers = along[reach : 3 * reach + 1]
        before = lesser[2 * reach + 1 :] - lesser[: 2 * reach + 1] - (peers < index)
        found: list[int] = peers[(before < most) & (peers != index)].tolist()
        return found

    def derives(self, threshold: int) -> NDArray[np.bool_]:
        """For each of `neighbourhoods` whether it is one of the row's client's `derivers`, (n, k + 1)."""
        others = self.neighbourhoods != np.arange(self.clients)[:, None]
        found: NDArray[np.bool_] = others & (np.cumsum(others, axis=1) < threshold)
        return found

    def encapsulates(self, index: int, other: int) -> bool:
        """Whether, of two neighbours, it is `index` that makes the KEM's ciphertext, and `other` whose key it is for.

        It is the one from which the other stands clockwise; of two that face each other, the lower index.
        """
        steps = (self._place_of(other) - self._place_of(index)) % self.clients
        return 2 * steps < self.clients or (2 * steps == self.clients and index < other)

    def _place_of(self, index: int) -> int:
        return index if self.complete else self._place[index]

    @cached_property
    def clockwise(self) -> NDArray[np.bool_]:
        """For each of `neighbourhoods` whether the row's client encapsulates to it, (n, k + 1); not to itself."""
        everybody = np.arange(self.clients)
        place = everybody if self.complete else np.array(self._place)
        near = self.neighbourhoods.astype(np.int64)
        steps = (place[near] - place[:, None]) % self.clients
        facing = (2 * steps == self.clients) & (everybody[:, None] < near)
        found: NDArray[np.bool_] = (steps > 0) & ((2 * steps < self.clients) | facing)
        return found

    @property
    def circle(self) -> Members:
        """All clients in the order of the circle, where neighbours are close; in the complete graph, ascending."""
        return range(self.clients) if self.complete else tuple(self._order)

    @cached_property
    def neighbourhoods(self) -> NDArray[np.uint16]:
        """Row per client: its `members`, uint16 (n, k + 1). For a server, which asks about everybody."""
        everybody = np.arange(self.clients, dtype=np.uint16)
        if self.complete:
            return np.broadcast_to(everybody, (self.clients, self.clients))
        circle, table = np.array(self._order, np.uint16), np.empty((self.clients, len(self._reach)), np.uint16)
        table[circle] = circle[(np.arange(self.clients)[:, None] + self._reach) % self.clients]
        table.sort(axis=1)
        return table

    @cached_property
    def holdings(self) -> NDArray[np.uint16]:
        """Row per client: its `holders`, hence also whose shares it holds, uint16 (n, number of holders)."""
        if self.complete:
            return self.neighbourhoods
        others = self.neighbourhoods != np.arange(self.clients)[:, None]
        table: NDArray[np.uint16] = self.neighbourhoods[others].reshape(self.clients, -1)
        return table

    def flags(self, chosen: Iterable[int]) -> NDArray[np.bool_]:
        """For every client whether it is in `chosen`, (n,): to be looked up for whole tables at once."""
        there = np.zeros(self.clients, np.bool_)
        there[list(chosen)] = True
        return there

    def holders(self, index: int) -> Members:
        """Who holds shares of a client's secrets, ascending. Symmetric: j holds i's exactly if i holds j's."""
        if self.complete:
            return range(self.clients)
        if index not in self._holders:
            self.members(index)
        return self._holders[index]
