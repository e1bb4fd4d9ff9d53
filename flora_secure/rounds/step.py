"""The server's step from one state to the next, which whoever has the released sum can take.

The server takes it, and so does every client that follows it, from the same bytes and with this code: their states are
equal bit for bit on any machine with IEEE 754 arithmetic whose subnormal numbers are not flushed to zero. Integers are
read exactly; what follows are sums, differences, products, quotients and one square root of float64, each rounded
correctly, in an order that the code fixes: element by element in NumPy's loops, of which every one rounds its own
result, and the rotation's additions one pass after the other. There is no product of matrices, no reduction, whose
order a library may choose, and no function such as exp, which libraries round differently. The next clip norm, which
takes one, is the server's alone: clients are told it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flora_protocols import unpack
from flora_secure.planning.rules import TrainedValues
from flora_secure.privacy.encoding import read_sum
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rotation import Rotation
from flora_secure.rounds.optimiser import MomentumAverage, ServerState


@dataclass(frozen=True, kw_only=True)
class ReleasedSum:
    """A round's sum, and the numbers of that round that the step needs beside it. All of it is released.

    Attributes:
        round: whose sum it is.
        clip_norm, scale: of that round's plan.
        contributions: about so many updates or gradients are in it.
        packed: the survivors' uploads added up modulo 2^b, plan.length values of b bits; with adaptive clipping the
            coordinates of the count are among them.
    """

    round: int
    clip_norm: float
    scale: float
    contributions: float
    packed: bytes = field(repr=False)


@dataclass(frozen=True)
class ServerStep:
    """What the steps of a run have in common.

    Attributes:
        optimiser: of the server.
        trained: which values train in which round.
        plan: of any round of the run; ring, dimension, rotation and count are those of all of them.
        rotation_seed: of the run.
    """

    optimiser: MomentumAverage
    trained: TrainedValues
    plan: NoisePlan
    rotation_seed: int

    def after(self, state: ServerState, released: ReleasedSum) -> ServerState:
        """The state after the round of that sum, from the one in which it began."""
        plan = self.plan
        rotation = Rotation(plan.dimension, self.rotation_seed, released.round) if plan.rotated else None
        total = unpack(released.packed, plan.length, plan.bits)
        assert total is not None  # packed by the server, or checked where it was read
        estimate = read_sum(total.astype(np.uint32), plan, released.scale, rotation)
        span = self.trained.span(released.round)
        part = state.part(span)
        moved = self.optimiser.apply(part, estimate[: len(part.adapter)], released.contributions, released.clip_norm)
        return state.with_part(span, moved)
