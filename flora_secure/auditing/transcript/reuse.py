"""T-06: bytes that must differ, over all sessions and rounds: pieces of 16 bytes that are random where all is well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.transcript.notes import Notes

_SHOWN = 8


class Reuse:
    """Collects pieces of 16 uniform bytes, each folded to 64 bits; two of m by chance: less often than m²/2^65."""

    def __init__(self) -> None:
        self._pieces: list[tuple[NDArray[np.uint64], str]] = []

    def take(self, pieces: NDArray[np.uint8], where: str) -> None:
        """Pieces, uint8 (m, 16), and what they are."""
        halves: NDArray[np.uint64] = np.ascontiguousarray(pieces).view(np.uint64)
        # rotated, so that pieces whose halves have changed places are not taken for one another
        folded: NDArray[np.uint64] = (
            halves[:, 0] ^ np.left_shift(halves[:, 1], np.uint64(23)) ^ np.right_shift(halves[:, 1], np.uint64(41))
        )
        self._pieces.append((folded, where))

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return sum(len(pieces) for pieces, _ in self._pieces)

    @property
    def chance(self) -> float:
        """How often two of them would agree by chance, at most."""
        return self.count**2 / 2.0**65

    def judge(self, notes: Notes) -> None:
        """T-06: every piece that comes twice."""
        if not self._pieces:
            return
        joined = np.sort(np.concatenate([pieces for pieces, _ in self._pieces]))
        again = np.unique(joined[1:][joined[1:] == joined[:-1]])
        for piece in again[:_SHOWN]:
            places = [
                (where, int((pieces == piece).sum())) for pieces, where in self._pieces if (pieces == piece).any()
            ]
            times = sum(count for _, count in places)
            named = list(dict.fromkeys(where for where, _ in places))[:2]
            notes.problem("T-06", named[0], f"16 bytes come {times} times: {' and '.join(named)}")
        if len(again) > _SHOWN:
            notes.problem("T-06", "", f"{len(again):,} pieces of 16 bytes come more than once")
