"""What a server promises to those whose vectors it has summed, and the noise that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flora_secure.errors import ConfigError, InputError, require
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import settled
from flora_secure.planning.noise import plan_noise, refused
from flora_secure.planning.protection import AggregationConfig, PrivacyConfig
from flora_secure.planning.sections import DataConfig, TrainingConfig
from flora_secure.planning.selection import Selection
from flora_secure.privacy.noise_plan import NoisePlan


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a server promises to those whose vectors it has summed.

    Attributes:
        epsilon, delta: of all rounds together; δ None for min(1e-5, 1/clients^1.1).
        rounds: that they pay for.
        clip_norm: L2 norm that a whole upload is clipped to, in units of the vectors.
        dropout_tolerance: fraction of the clients that may be missing from a round.
        corrupt: how many clients may collude with the server: nobody counts on their noise.
    """

    epsilon: float
    rounds: int
    clip_norm: float
    delta: float | None = None
    dropout_tolerance: float = 0.2
    corrupt: int = 1

    def config(self, clients: int) -> RunConfig:
        """The budget among so many clients, as the planners have it; everybody takes part in every round.

        Raises ConfigError for values out of range, which names them as this class does.
        """
        require(
            type(self.corrupt) is int and 0 <= self.corrupt < clients,
            f"corrupt is a whole number of clients, below the {clients} that there are; got {self.corrupt!r}",
        )
        require(self.epsilon != math.inf, "epsilon inf adds no noise, and sums without it protect nobody: set a budget")
        try:
            return settled(
                RunConfig(
                    data=DataConfig(dataset="own:arrays", clients=clients),
                    training=TrainingConfig(rounds=self.rounds),
                    privacy=PrivacyConfig(
                        epsilon=self.epsilon,
                        delta=self.delta,
                        clip_norm=self.clip_norm,
                        dropout_tolerance=self.dropout_tolerance,
                    ),
                    aggregation=AggregationConfig(secagg="malicious-server", corrupt=self.corrupt / clients),
                )
            )
        except InputError as error:
            raise worded(error) from None

    def plan(self, clients: int, dimension: int) -> NoisePlan:
        """The noise of vectors of `dimension` values from so many clients. Raises ConfigError where there is none."""
        config = self.config(clients)
        try:
            return plan_noise(config, Selection.of(config), dimension, images=0)
        except ValueError as error:
            raise worded(refused(error)) from None


def worded(error: InputError) -> ConfigError:
    """An error that names settings as `Budget` does: without their sections."""
    return ConfigError(error.told(lambda key: key.rpartition(".")[2]))
