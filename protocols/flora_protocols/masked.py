"""Where the server stands once all uploads are in: the masked sum, and whose secrets take the masks off it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flora_protocols.errors import TooFewSurvivors
from flora_protocols.params import SessionParams
from flora_protocols.ring import Lanes


@dataclass(frozen=True, repr=False)
class Masked:
    """The masked sum, and what is needed to unmask it. `publics`: the mask keys of all who shared."""

    params: SessionParams
    session: bytes
    publics: Mapping[int, bytes]
    survivors: tuple[int, ...]
    sum: Lanes

    @cached_property
    def shared(self) -> NDArray[np.bool_]:
        """For every client whether it shared."""
        return self.params.graph.flags(self.publics)

    @cached_property
    def alive(self) -> NDArray[np.bool_]:
        """For every client whether it survived."""
        return self.params.graph.flags(self.survivors)

    @cached_property
    def held(self) -> list[int]:
        """The shares of how many clients each client holds."""
        counts: list[int] = self.shared[self.params.graph.holdings].sum(axis=1).tolist()
        return counts

    def dropped_owners(self, holder: int) -> list[int]:
        """The clients that dropped after sharing and whose shares a client holds, ascending."""
        owners = self.params.graph.holdings[holder]
        dropped: list[int] = owners[(self.shared & ~self.alive)[owners]].tolist()
        return dropped

    def near_survivors(self, dropped: int) -> list[int]:
        """The survivors whose vectors carry a pairwise mask with a dropped client."""
        near = self.params.graph.neighbourhoods[dropped]
        survivors: list[int] = near[self.alive[near]].tolist()
        return survivors

    def needed(self, there: Iterable[int]) -> list[int]:
        """The clients whose secret is needed, ascending; TooFewSurvivors if fewer than t of its holders are `there`.

        A dropped client's mask secret gives the pairwise masks of its surviving neighbours; with direct reveal, those
        of them who are there give the keys themselves.
        """
        graph, threshold = self.params.graph, self.params.threshold
        here = graph.flags(there)
        silent = self.alive & ~here if self.params.direct_reveal else self.alive  # survivors who tell no keys
        needed = self.shared & (self.alive | silent[graph.neighbourhoods].any(axis=1))
        holders = here[graph.holdings].sum(axis=1)
        short = np.flatnonzero(needed & (holders < threshold))
        if len(short):
            raise TooFewSurvivors(f"holders of client {short[0]}'s shares", int(holders[short[0]]), threshold)
        owners: list[int] = np.flatnonzero(needed).tolist()
        return owners
