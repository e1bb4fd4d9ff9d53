"""The server's optimisers: pure steps from one state to the next.

Averaging with server momentum (Hsu, Qi, Brown 2019, arXiv 1909.06335, FedAvgM): the mean update in units of the clip
norm is accumulated with momentum and applied with a step that is independent of the clip norm. FedAdam and FedYogi
(Reddi et al. 2021, arXiv 2003.00295, algorithm 2) divide each coordinate by the root of its running second moment.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

BETA2, TAU = 0.99, 1e-3  # of FedAdam and FedYogi, where none are given
TURN = 0.65  # chosen on public data alone, as the largest steps: docs/studies/choose_defaults.py


def quiet_step(noise: float, rounds: int, momentum: float, width: float, most: float, turn: float = TURN) -> float:
    """The server step at which a run's noise moves each class embedding by ``turn``, and no more than ``most``.

    After ``rounds`` rounds of FedAvgM, noise of standard deviation ``noise`` in every coordinate of the mean (in units
    of the clip norm) has moved each coordinate by step · noise · √rounds ÷ (1 - ``momentum``), and so a class
    embedding, of unit length and ``width`` coordinates, by √width times as much. A longer step drowns the signal, a
    shorter one leaves the clients unheard. Nothing in it is private.
    """
    if noise == 0:
        return most
    return min(most, turn * (1 - momentum) / (noise * math.sqrt(rounds * width)))


@dataclass(frozen=True)
class ServerState:
    """``adapter``, ``momentum`` and ``second_moment``, float64 (d,): the trained values, the running average of updates
    and that of their squares, which only adaptive optimisers use."""

    adapter: NDArray[np.float64]
    momentum: NDArray[np.float64]
    second_moment: NDArray[np.float64]

    @classmethod
    def initial(cls, adapter: NDArray[np.float32]) -> ServerState:
        zeros = np.zeros(adapter.shape, np.float64)
        return cls(adapter.astype(np.float64), zeros, zeros)

    def part(self, span: slice) -> ServerState:
        """The state of some coordinates."""
        return ServerState(self.adapter[span], self.momentum[span], self.second_moment[span])

    def with_part(self, span: slice, part: ServerState) -> ServerState:
        """This state with those coordinates replaced; the others, and their moments, rest."""
        adapter, momentum, second = self.adapter.copy(), self.momentum.copy(), self.second_moment.copy()
        adapter[span], momentum[span], second[span] = part.adapter, part.momentum, part.second_moment
        return ServerState(adapter, momentum, second)


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
        return replace(state, adapter=state.adapter + self.step * momentum, momentum=momentum)


@dataclass(frozen=True)
class AdaptiveAverage(ABC):
    """``step``: what a coordinate moves at most in a round, roughly. ``momentum``: β1, ``decay``: β2, ``floor``: τ.

    Without bias correction, as in the paper; the second moment starts at τ². It sees the square of the noise too, so
    that in a private run every coordinate is divided by about the same: the noise's standard deviation.
    """

    step: float
    momentum: float
    decay: float = BETA2
    floor: float = TAU

    def apply(
        self, state: ServerState, total: NDArray[np.float64], contributions: float, clip_norm: float
    ) -> ServerState:
        """One round, see :meth:`MomentumAverage.apply`."""
        mean = total / (contributions * clip_norm)
        momentum = self.momentum * state.momentum + (1 - self.momentum) * mean
        before = np.where(state.second_moment == 0, self.floor**2, state.second_moment)  # 0 only before the first round
        second = self._second(before, mean**2)
        adapter = state.adapter + self.step * momentum / (np.sqrt(second) + self.floor)
        return ServerState(adapter, momentum, second)

    @abstractmethod
    def _second(self, before: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        """The running second moment after a round whose mean has this ``square``."""


@dataclass(frozen=True)
class AdamAverage(AdaptiveAverage):
    """FedAdam."""

    def _second(self, before: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.decay * before + (1 - self.decay) * square


@dataclass(frozen=True)
class YogiAverage(AdaptiveAverage):
    """FedYogi: the second moment moves by the new square alone, however large it was."""

    def _second(self, before: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        return before - (1 - self.decay) * square * np.sign(before - square)


Optimiser = MomentumAverage | AdaptiveAverage


def adaptive_step(rounds: int, width: float, turn: float = TURN) -> float:
    """The step of an adaptive optimiser at which pure noise moves a class embedding of ``width`` coordinates by about
    ``turn`` in ``rounds`` rounds: it moves each coordinate by step · √rounds, whatever the noise."""
    return turn / math.sqrt(rounds * width)
