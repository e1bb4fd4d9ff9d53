"""The server optimiser of a run: as configured, with a step that is fitted to the run's noise unless one is given."""

from __future__ import annotations

import math
from collections.abc import Callable

from flora_secure.planning.config import RunConfig
from flora_secure.planning.protection import Unit
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.optimisers import (
    BETA2,
    TAU,
    AdamAverage,
    MomentumAverage,
    Optimiser,
    YogiAverage,
    adaptive_step,
    quiet_step,
)

SERVER_STEP: dict[Unit, float] = {"client": 1.0, "example": 10.0}  # the most; chosen with what config_sections says


def server_optimiser(config: RunConfig, plan: NoisePlan, expected: Callable[[int], float], width: float) -> Optimiser:
    """The optimiser that ``config`` names.

    ``expected``: contributions in the sum of so many uploads, :meth:`flora_secure.client.contribution.Unit.expected`.
    ``width``: coordinates of a class embedding. A fitted step takes the noise in the mean when everybody stays.
    """
    training, step = config.training, config.training.server_step
    if training.server_optimiser != "momentum":
        kind = {"adam": AdamAverage, "yogi": YogiAverage}[training.server_optimiser]
        return kind(
            adaptive_step(plan.rounds, width) if step is None else step,
            training.server_momentum,
            BETA2 if training.server_beta2 is None else training.server_beta2,
            TAU if training.server_tau is None else training.server_tau,
        )
    if step is None:
        clients = min(max(config.cohort_size, plan.smallest_cohort), plan.clients)
        noise = plan.for_cohort(clients).sigma_local / (plan.scale * plan.clip_norm) * math.sqrt(clients)
        most = SERVER_STEP[config.privacy.unit]
        step = quiet_step(noise / expected(clients), plan.rounds, training.server_momentum, width, most)
    return MomentumAverage(step, training.server_momentum)
