"""Local training, for each unit that the budget can protect: an update a client, or sums of clipped gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora_secure.client.contribution import Contributions
from flora_secure.client.example_gradients import MOST, ClientExamples, gradient_sums
from flora_secure.errors import ConfigError
from flora_secure.model.factors import Factors
from flora_secure.planning.rules import Rule, TrainedValues
from flora_secure.rounds.float16 import from_wire
from flora_secure.rounds.invitation import Invitation


class Learner(Protocol):
    """Training on one placement: in closed form where there is one, by automatic differentiation elsewhere."""

    def train(self, rule: Rule, factors: Factors, steps: int, rate: float, cohort: Sequence[int]) -> Tensor:
        """Updates after `steps` full-batch gradient steps from `factors`: float32 (m, d), one row for each client."""
        ...

    def example_gradients(self, rule: Rule, factors: Factors, parts: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Gradient of each private image's own loss, float32 (n, d), for each part of indices, in order."""
        ...


@dataclass(frozen=True, eq=False)
class UpdateTrainer:
    """Unit `client`: local training, one update a client; the upload's encoder clips it.

    Attributes:
        learner: of the clients' images.
        rule: which factors train.
        initial: the fresh adapter, whose factors that do not train stay as they are.
        steps, rate: of local training.
    """

    learner: Learner = field(repr=False)
    rule: Rule
    initial: Factors = field(repr=False)
    steps: int
    rate: float

    @property
    def trained(self) -> TrainedValues:
        """Which values it trains, and how many."""
        return self.initial.trained(self.rule)

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """One update of each of `members`, see `contribution.Trainer`."""
        factors, rule = received(self.initial, self.rule, broadcast), self.rule.of_round(invitation.round)
        updates = self.learner.train(rule, factors, self.steps, self.rate, members)
        raw = _filled(updates.double().cpu().numpy(), invitation.plan.dimension)
        long = np.linalg.norm(raw, axis=1) > invitation.plan.clip_norm
        return Contributions(raw, np.ones(len(members), np.int64), long.astype(np.int64))


@dataclass(frozen=True, eq=False)
class ExampleTrainer:
    """Unit `example`: sums of clipped gradients of the examples that secret coins choose (`example_gradients`).

    Attributes:
        learner, rule, initial: as of `UpdateTrainer`.
        clients: `clients[i]` are the indices of client i's images, int64; at most MOST of them, or ConfigError.
        coins: seed of an experiment whose coins are no secret; None draws them from the operating system.
    """

    learner: Learner = field(repr=False)
    rule: Rule
    initial: Factors = field(repr=False)
    clients: Sequence[NDArray[np.int64]] = field(repr=False)
    coins: int | None = None

    def __post_init__(self) -> None:
        most = max(map(len, self.clients))
        if most > MOST:
            raise ConfigError(f"unit example allows {MOST} images a client, one has {most}; set more clients")

    @property
    def trained(self) -> TrainedValues:
        """Which values it trains, and how many."""
        return self.initial.trained(self.rule)

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """One sum of gradients of each of `members`, see `contribution.Trainer`."""
        plan, number = invitation.plan, invitation.round
        factors, rule = received(self.initial, self.rule, broadcast), self.rule.of_round(number)
        examples = ClientExamples(self.clients)
        drawn = [examples.draw(client, plan.sampling_rate, self._coins(number, client)) for client in members]

        def gradients(parts: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
            return self.learner.example_gradients(rule, factors, parts)

        found = gradient_sums(gradients, drawn, factors.dimension(rule), plan.clip_norm)
        return Contributions(-_filled(found.sums, plan.dimension), found.drawn, found.clipped)

    def _coins(self, number: int, client: int) -> bytes | None:
        """None means coins from the OS; with simulation noise they follow from the seed instead."""
        if self.coins is None:
            return None
        return hashlib.sha256(f"flora-secure simulation coins {self.coins} {number} {client}".encode()).digest()


def received(initial: Factors, rule: Rule, broadcast: bytes) -> Factors:
    """The adapter that a broadcast makes of the fresh one, on the device of `initial`.

    Raises ValueError for a broadcast of another length than the trained values have.
    """
    vector = torch.from_numpy(from_wire(broadcast, initial.dimension(rule)))
    return initial.with_vector(rule, vector.to(initial.b.device))


def _filled(rows: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """Rows (m, n) with zeros up to the length of an upload, where a round trains the shorter factor."""
    return np.pad(rows, ((0, 0), (0, dimension - rows.shape[1])))
