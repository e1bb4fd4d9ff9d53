"""What the clients of a cohort upload before the noise, for each unit that the budget can protect."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flora_secure.client.example_gradients import MOST, ClientExamples, gradient_sums
from flora_secure.engine.task import Task
from flora_secure.errors import ConfigError
from flora_secure.model.factors import Factors
from flora_secure.planning.config import RunConfig
from flora_secure.planning.placements import PLACEMENTS


@dataclass(frozen=True)
class Contributions:
    """``vectors``: float64 (m, d), a row a client, directions of descent. ``counts``: int64 (m,), of the updates or
    gradients in each; ``clipped``: int64 (m,), how many of these were longer than the clip norm."""

    vectors: NDArray[np.float64]
    counts: NDArray[np.int64]
    clipped: NDArray[np.int64]


class Unit(Protocol):
    """Whose contribution is clipped to the clip norm c, so that it moves the sum by no more than that."""

    def contribute(self, number: int, factors: Factors, cohort: Sequence[int], clip_norm: float) -> Contributions:
        """The uploads of round ``number`` from the broadcast ``factors``."""
        ...

    def expected(self, survivors: int) -> float:
        """How many updates or gradients are in the sum of so many uploads, on average: what the server divides by."""
        ...


class WholeClient:
    """Unit ``client``: local training, one update a client; the encoder clips it."""

    def __init__(self, config: RunConfig, task: Task) -> None:
        self._task = task
        self._steps = config.training.local_steps
        own = task.rule.local_rate * PLACEMENTS[config.model.placement].rate
        self._rate = config.training.local_rate or own

    def contribute(self, number: int, factors: Factors, cohort: Sequence[int], clip_norm: float) -> Contributions:
        task = self._task
        updates = task.learner.train(task.rule.of_round(number), factors, self._steps, self._rate, cohort)
        raw = _filled(updates.double().cpu().numpy(), task.dimension)
        ones = np.ones(len(cohort), np.int64)
        return Contributions(raw, ones, (np.linalg.norm(raw, axis=1) > clip_norm).astype(np.int64))

    def expected(self, survivors: int) -> float:
        return survivors


class SingleExample:
    """Unit ``example``: sums of clipped gradients of the examples that secret coins choose (`examples`)."""

    def __init__(self, config: RunConfig, task: Task) -> None:
        if task.federation.dataset.captioned:
            raise ConfigError("unit example needs labels: with captions a loss belongs to all of a client's pairs")
        most = max(map(len, task.federation.clients))
        if most > MOST:
            raise ConfigError(f"unit example allows {MOST} images a client, one has {most}; set more clients")
        self._task = task
        self._examples = ClientExamples(task.federation.clients)
        self._rate = config.sampling_rate
        self._seed = config.seed if config.privacy.simulation_noise else None
        images = len(task.federation.dataset.private.labels)
        self._average = self._rate * images / config.data.clients  # examples of a client in a round

    def contribute(self, number: int, factors: Factors, cohort: Sequence[int], clip_norm: float) -> Contributions:
        task = self._task
        rule = task.rule.of_round(number)
        drawn = [self._examples.draw(client, self._rate, self._coins(number, client)) for client in cohort]

        def gradients(parts: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
            return task.learner.example_gradients(rule, factors, parts)

        found = gradient_sums(gradients, drawn, factors.dimension(rule), clip_norm)
        return Contributions(-_filled(found.sums, task.dimension), found.drawn, found.clipped)

    def expected(self, survivors: int) -> float:
        return survivors * self._average

    def _coins(self, number: int, client: int) -> bytes | None:
        """``None`` means coins from the OS; with simulation noise they follow from the seed instead."""
        if self._seed is None:
            return None
        return hashlib.sha256(f"flora-secure simulation coins {self._seed} {number} {client}".encode()).digest()


def _filled(rows: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """Rows (m, n) with zeros up to the length of an upload, where a round trains the shorter factor."""
    return np.pad(rows, ((0, 0), (0, dimension - rows.shape[1])))


def unit_of(config: RunConfig, task: Task) -> Unit:
    """The unit that the configuration protects."""
    return WholeClient(config, task) if config.privacy.unit == "client" else SingleExample(config, task)
