"""The server's optimiser: pure steps from one state to the next.

Averaging with server momentum (Hsu, Qi, Brown 2019, arXiv 1909.06335, FedAvgM): the mean update in units of the clip
norm is accumulated with momentum and applied with a step that is independent of the clip norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_secure.errors import InputError


class DivergedError(InputError):
    """The adapter left the range that the broadcast can carry; the remedy is a smaller server step."""


@dataclass(frozen=True)
class ServerState:
    """``adapter`` and ``momentum``, float64 (d,): the trained values and the running average of updates."""

    adapter: NDArray[np.float64]
    momentum: NDArray[np.float64]

    @classmethod
    def initial(cls, adapter: NDArray[np.float32]) -> ServerState:
        return cls(adapter.astype(np.float64), np.zeros(adapter.shape, np.float64))

    def part(self, span: slice) -> ServerState:
        """The state of some coordinates."""
        return ServerState(self.adapter[span], self.momentum[span])

    def with_part(self, span: slice, part: ServerState) -> ServerState:
        """This state with those coordinates replaced; the others, and their momentum, rest."""
        adapter, momentum = self.adapter.copy(), self.momentum.copy()
        adapter[span], momentum[span] = part.adapter, part.momentum
        return ServerState(adapter, momentum)


@dataclass(frozen=True)
class MomentumAverage:
    """FedAvgM. ``step`` (dimensionless) scales the momentum of mean contributions divided by the clip norm."""

    step: float
    momentum: float

    def apply(
        self, state: ServerState, total: NDArray[np.float64], contributions: float, clip_norm: float
    ) -> ServerState:
        """One round: ``total`` (d,) is the noisy sum of about so many ``contributions`` (updates, or gradients with
        their sign turned), each clipped to ``clip_norm``."""
        mean = total / (contributions * clip_norm)
        momentum = self.momentum * state.momentum + mean
        return ServerState(adapter=state.adapter + self.step * momentum, momentum=momentum)


def to_wire(adapter: NDArray[np.float64]) -> bytes:
    """The trained values as little-endian float16, which is what the clients receive and train from."""
    largest = float(np.abs(adapter).max(initial=0.0))
    if not largest <= 65504.0:  # float16's largest value; also true for NaN
        raise DivergedError(
            f"the adapter's largest value is {largest:.3g}, beyond float16's 65504: training diverged; "
            "lower server_step or local_rate"
        )
    return adapter.astype("<f2").tobytes()


def from_wire(message: bytes, dimension: int) -> NDArray[np.float32]:
    """Read :func:`to_wire`'s bytes: float32 (dimension,). Raises ``ValueError`` on any other length."""
    if len(message) != 2 * dimension:
        raise ValueError(f"an adapter of {dimension} values takes {2 * dimension} bytes, got {len(message)}")
    return np.frombuffer(message, "<f2").astype(np.float32)
