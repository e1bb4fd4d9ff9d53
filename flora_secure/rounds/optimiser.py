"""The server's step: averaging with server momentum, a pure step from one state to the next.

FedAvgM (Hsu, Qi, Brown 2019, arXiv 1909.06335): the mean update in units of the clip norm is accumulated with momentum
and applied with a step that is independent of the clip norm, and fitted to the run's noise unless one is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_secure.planning.config import RunConfig
from flora_secure.planning.protection import Unit
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.float16 import from_wire, to_wire

# chosen on public data alone: docs/studies/choose_defaults.py
TURN = 0.65
SERVER_STEP: dict[Unit, float] = {"client": 1.0, "example": 10.0}  # the longest


def quiet_step(noise: float, rounds: int, momentum: float, width: float, most: float, turn: float = TURN) -> float:
    """The server step at which a run's noise moves each class embedding by `turn`, and no more than `most`.

    After `rounds` rounds of FedAvgM, noise of standard deviation `noise` in every coordinate of the mean (in units of
    the clip norm) has moved each coordinate by step · noise · √rounds ÷ (1 - `momentum`), and so a class embedding, of
    unit length and `width` coordinates, by √width times as much. A longer step drowns the signal, a shorter one leaves
    the clients unheard. Nothing in it is private.
    """
    if noise == 0:
        return most
    return min(most, turn * (1 - momentum) / (noise * math.sqrt(rounds * width)))


@dataclass(frozen=True)
class ServerState:
    """What the server keeps between two rounds.

    Attributes:
        adapter: float64 (d,), the trained values.
        momentum: float64 (d,), the running sum of mean updates, in units of the clip norm; zeros where the optimiser
            has no momentum, and nothing of it stays.
    """

    adapter: NDArray[np.float64]
    momentum: NDArray[np.float64]

    @classmethod
    def initial(cls, adapter: NDArray[np.float32]) -> ServerState:
        """The state before the first round: the adapter as given, float32 (d,), rounded to float16, and no momentum.

        So the clients' copy of it takes two bytes a value and is exact. Raises DivergedError beyond float16's range.
        """
        rounded = from_wire(to_wire(adapter.astype(np.float64)), len(adapter))
        return cls(rounded.astype(np.float64), np.zeros(adapter.shape, np.float64))

    def part(self, span: slice) -> ServerState:
        """The state of some coordinates, as views of this one's arrays."""
        return ServerState(self.adapter[span], self.momentum[span])

    def with_part(self, span: slice, part: ServerState) -> ServerState:
        """This state with those coordinates replaced; the others, and their momentum, rest."""
        adapter, momentum = self.adapter.copy(), self.momentum.copy()
        adapter[span], momentum[span] = part.adapter, part.momentum
        return ServerState(adapter, momentum)


@dataclass(frozen=True)
class MomentumAverage:
    """FedAvgM, the server optimiser.

    Attributes:
        step: what the momentum of the mean contributions, divided by the clip norm, is multiplied by.
        momentum: how much of the momentum stays from one round to the next, at least 0 and below 1.
    """

    step: float
    momentum: float

    def apply(
        self, state: ServerState, total: NDArray[np.float64], contributions: float, clip_norm: float
    ) -> ServerState:
        """The state after one round.

        `total` (d,) is the noisy sum of about so many `contributions` (updates, or gradients with their sign turned),
        each clipped to `clip_norm`.
        """
        mean = total / (contributions * clip_norm)
        momentum = self.momentum * state.momentum + mean
        kept = momentum if self.momentum else np.zeros_like(momentum)
        return ServerState(state.adapter + self.step * momentum, kept)


def noise_in_mean(config: RunConfig, plan: NoisePlan, expected: Callable[[int], float]) -> float:
    """Standard deviation of the noise in every coordinate of a round's mean when everybody stays, in units of the clip
    norm. `expected` tells how many contributions the sum of so many uploads holds."""
    clients = min(max(config.cohort_size, plan.smallest_cohort), plan.clients)
    noise = plan.for_cohort(clients).sigma_local / (plan.scale * plan.clip_norm) * math.sqrt(clients)
    return noise / expected(clients)


def server_optimiser(
    config: RunConfig, plan: NoisePlan, expected: Callable[[int], float], width: float
) -> MomentumAverage:
    """The server optimiser of a run: as configured, its step fitted to the run's noise unless one is given.

    `expected`: see `noise_in_mean`, which a fitted step takes; `width` is the number of coordinates of a class
    embedding.
    """
    training, step = config.training, config.training.server_step
    if step is None:
        noise, most = noise_in_mean(config, plan, expected), SERVER_STEP[config.privacy.unit]
        step = quiet_step(noise, plan.rounds, training.server_momentum, width, most)
    return MomentumAverage(step, training.server_momentum)
