"""The Merkle tree of RFC 9162, section 2.1 (that of RFC 6962): leaves and inner nodes are hashed apart from each other,
so that no inner node passes for a leaf."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256 of an entry as a leaf, 32 bytes."""
    return hashlib.sha256(b"\0" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """The tree over leaves of 32 bytes, in their order; with all its levels, so that many paths cost little."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """Hash upwards. The last node of a level without a partner goes up as it is, which is the RFC's division at
        the largest power of two."""
        level = list(leaves)
        self._levels = [level]
        while len(level) > 1:
            pairs = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
            level = pairs + level[len(level) & ~1 :]
            self._levels.append(level)

    @property
    def root(self) -> bytes:
        """The hash of all leaves, 32 bytes; of none it is that of no bytes."""
        top = self._levels[-1]
        return top[0] if top else hashlib.sha256(b"").digest()

    def path(self, place: int) -> list[bytes]:
        """The hashes, from the bottom up, that lead from the leaf at `place` to the root (RFC 9162, 2.1.3.1). Raises
        IndexError where there is no such leaf."""
        if not 0 <= place < len(self._levels[0]):
            raise IndexError(f"no leaf {place} of {len(self._levels[0])}")
        found = []
        for level in self._levels[:-1]:
            if place ^ 1 < len(level):
                found.append(level[place ^ 1])
            place >>= 1
        return found


def leads(leaf: bytes, place: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` shows that `leaf` is at `place` of the tree of so many leaves (RFC 9162, 2.1.3.2)."""
    if not 0 <= place < size:
        return False
    last, found = size - 1, leaf
    for beside in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = _node(beside, found)
            while not place & 1 and place:  # levels on which this node had no partner
                place, last = place >> 1, last >> 1
        else:
            found = _node(found, beside)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root
