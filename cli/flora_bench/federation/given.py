"""A federation whose contributions are given: no model, no images, and so no torch. All else is that of a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flora_secure.client.contribution import Contributions
from flora_secure.client.policy import Policy
from flora_secure.engine.deployed.deployable import deployable
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.rules import PROMPT_BASIS, TrainedValues
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.terms import Terms
from flora_secure.server.task import ServerTask

TERMS = Terms({"contributions": "given"})
_MODEL = bytes(32).hex()


def config_of(clients: int, rounds: int, tolerance: float) -> RunConfig:
    """The configuration of so many clients and rounds, of which the fraction `tolerance` may drop out of each."""
    given = {
        "data.dataset": "own:given",
        "training.rounds": rounds,
        "privacy.epsilon": 8.0,
        "privacy.dropout_tolerance": tolerance,
        "aggregation.secagg": "malicious-server",
        "aggregation.corrupt": 0.0 if clients < 20 else 0.05,
    }
    return deployable(override(RunConfig(), given), clients)


def policy_of(config: RunConfig) -> Policy:
    """A site's terms that accept every round of `config`, whatever its own ledger says."""
    return Policy(
        profile="malicious-server",
        least_noise=0.1,
        most_epsilon=1e6,
        delta=1e-5,
        most_rounds=config.training.rounds + 1,
        corrupt=0.0,
    )


def task_of(dimension: int) -> ServerTask:
    """What the server knows of a task with so many values; no adapter of it is worth anything."""
    return ServerTask(
        trained=TrainedValues(PROMPT_BASIS, 0, dimension),
        initial=np.zeros(dimension, np.float32),
        width=1.0,
        images=0,
        model_hash=_MODEL,
        data_hash=_MODEL,
        accuracy=lambda values: 0.0,
    )


@dataclass(frozen=True)
class GivenTraining:
    """A site's `engine.deployed.site.Training` of so many values: each round gives the same row, its own by number."""

    dimension: int
    number: int

    @property
    def trained(self) -> TrainedValues:
        """Rule and sizes: B alone, as the default simulation."""
        return TrainedValues(PROMPT_BASIS, 0, self.dimension)

    @property
    def model_hash(self) -> str:
        """SHA-256 of the frozen model, hex: there is none."""
        return _MODEL

    def terms(self, enrolment: Enrolment) -> Terms:
        """The same for everybody."""
        return TERMS

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """The site's row, see `contribution.Trainer`."""
        row = np.random.default_rng(self.number).normal(0, 0.01, (1, self.dimension))
        return Contributions(row, np.ones(1, np.int64), np.zeros(1, np.int64))

    def save(self, adapter: bytes, folder: Path) -> None:
        """Write the values as they came."""
        (folder / "values").write_bytes(adapter)
