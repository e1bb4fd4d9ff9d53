"""Where the server stands once all uploads of a round are in: the masked sum, and whose secrets unmask it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flora_protocols.errors import TooFewSurvivors
from flora_protocols.params import SessionParams
from flora_protocols.ring import Lanes


@dataclass(frozen=True, repr=False)
class Masked:
    """The masked sum, and what is needed to unmask it.

    `scope`: the round id. `invited`: who shared masks in the round. `complaints`: who holds no shares of whom.
    """

    params: SessionParams
    scope: bytes
    invited: tuple[int, ...]
    complaints: Mapping[int, frozenset[int]]
    survivors: tuple[int, ...]
    sum: Lanes

    @cached_property
    def here(self) -> NDArray[np.bool_]:
        """For every client whether it is in the round."""
        return self.params.graph.flags(self.invited)

    @cached_property
    def alive(self) -> NDArray[np.bool_]:
        """For every client whether it survived."""
        return self.params.graph.flags(self.survivors)

    def owners(self, holders: Sequence[int]) -> NDArray[np.uint16]:
        """Whose shares these `holders`, ascending, reveal: one holder's owners, ascending, after another's."""
        owned = self.params.graph.holdings[list(holders)]
        return owned[self._held(holders, owned)]

    def holdings(self, holders: Sequence[int]) -> list[int]:
        """The number of owners whose shares each of these `holders` reveals."""
        counts: list[int] = self._held(holders, self.params.graph.holdings[list(holders)]).sum(axis=1).tolist()
        return counts

    def _held(self, holders: Sequence[int], owned: NDArray[np.uint16]) -> NDArray[np.bool_]:
        held = self.here[owned]
        for row, holder in enumerate(holders):
            if holder in self.complaints:
                held[row] &= ~np.isin(owned[row], list(self.complaints[holder]))
        return held

    @cached_property
    def gone(self) -> list[int]:
        """The clients of the round that did not survive, ascending."""
        found: list[int] = np.flatnonzero(self.here & ~self.alive).tolist()
        return found

    def gone_near(self, clients: Sequence[int]) -> list[list[int]]:
        """The neighbours of each of these survivors that were in the round and did not survive, ascending."""
        near = self.params.graph.neighbourhoods[list(clients)]
        gone = (self.here & ~self.alive)[near]
        joined, ends = near[gone].tolist(), np.cumsum(gone.sum(axis=1)).tolist()
        return [joined[first:last] for first, last in zip([0, *ends], ends, strict=False)]

    def needed(self, there: Iterable[int]) -> list[int]:
        """The clients whose secret is needed, ascending; TooFewSurvivors if fewer than t of its holders are `there`.

        Of a survivor it is the seed; of who did not survive, the opener, if it has a surviving neighbour.
        """
        graph, threshold, there = self.params.graph, self.params.threshold, list(there)
        here = graph.flags(there)
        needed = self.here & (self.alive | self.alive[graph.neighbourhoods].any(axis=1))
        holders = here[graph.holdings].sum(axis=1)
        for holder in there:
            for owner in self.complaints.get(holder, ()):
                holders[owner] -= 1
        short = np.flatnonzero(needed & (holders < threshold))
        if len(short):
            raise TooFewSurvivors(f"holders of client {short[0]}'s shares", int(holders[short[0]]), threshold)
        owners: list[int] = np.flatnonzero(needed).tolist()
        return owners
