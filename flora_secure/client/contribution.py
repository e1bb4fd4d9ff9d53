"""What clients give before the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flora_secure.planning.rules import TrainedValues
from flora_secure.rounds.invitation import Invitation


@dataclass(frozen=True)
class Contributions:
    """What some clients give to a round, a row a client.

    Attributes:
        vectors: float64 (m, d), directions of descent, d as the round's plan has it.
        counts: int64 (m,), of the updates (unit `client`) or gradients (unit `example`) in each row.
        clipped: int64 (m,), how many of these were longer than the clip norm.
    """

    vectors: NDArray[np.float64]
    counts: NDArray[np.int64]
    clipped: NDArray[np.int64]


class Trainer(Protocol):
    """From images to contributions. It knows its clients' private images, and no test images.

    A deployed client's trainer holds the images of that one; the simulation's holds those of all, and trains a round's
    cohort as one batch. A row of a batch equals a batch of one, up to the rounding of float32.
    """

    @property
    def trained(self) -> TrainedValues:
        """Which values it trains, and how many: an invitation to train others is refused."""
        ...

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """What `members` give to the round: a row each, in their order.

        `broadcast`: the adapter that the round trains from, as `rounds.float16.to_wire` writes it. `members`: numbers
        of the enrolment, all of them clients of this trainer.
        """
        ...
