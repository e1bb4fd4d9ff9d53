"""What the clients of a cohort send off in a round: their contributions clipped, rotated, on the grid, with their
shares of the noise. Which of them vanish before that is drawn from the seed of the experiment."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flora_secure.planning.config import RunConfig
from flora_secure.privacy.adaptive_clip import within
from flora_secure.privacy.clipping import NonFiniteUpdateError
from flora_secure.privacy.encoding import encode
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rotation import Rotation
from flora_secure.privacy.rounded_gaussian import RoundedGaussian

if TYPE_CHECKING:
    from flora_secure.client.contribution import Contributions


@dataclass(frozen=True)
class Uploads:
    """``vectors``: uint32 (plan.length,) of each client that stayed. ``contributions``: updates or gradients in them;
    ``clipped``: how many of these were longer than the clip norm."""

    vectors: dict[int, NDArray[np.uint32]]
    contributions: int
    clipped: int


def uploads_of(
    config: RunConfig,
    number: int,
    plan: NoisePlan,
    cohort: Sequence[int],
    given: Contributions,
    vanishing: Collection[int],
) -> Uploads:
    """Of the clients of round ``number`` that do not vanish; row i of ``given`` is that of ``cohort[i]``.

    A client whose contribution is not finite leaves the round: zeros in its place would carry full weight.
    """
    vectors, contributions, clipped, spread = {}, 0, 0, rotation(config, plan, number)
    for row, client in enumerate(cohort):
        if client in vanishing:
            continue
        vector = given.vectors[row]
        sampler = RoundedGaussian(_noise_key(config, number, client)) if plan.noisy else None
        below = None if config.privacy.adaptive_clip is None else within(vector, plan.clip_norm)
        try:
            vectors[client] = encode(vector, plan, sampler, spread, below=below)
        except NonFiniteUpdateError:
            continue
        contributions += int(given.counts[row])
        clipped += int(given.clipped[row])
    return Uploads(vectors, contributions, clipped)


def rotation(config: RunConfig, plan: NoisePlan, number: int) -> Rotation | None:
    """That of round ``number``, if the plan has one; the server takes it back."""
    return Rotation(plan.dimension, config.seed, number) if plan.rotated else None


def vanishing_of(config: RunConfig, number: int, cohort: Sequence[int]) -> set[int]:
    """The clients of round ``number`` that vanish after sharing keys."""
    count = math.floor(config.aggregation.dropout * len(cohort))
    rng = np.random.default_rng([config.seed, 1, number])
    return {cohort[place] for place in rng.choice(len(cohort), count, replace=False).tolist()}


def _noise_key(config: RunConfig, number: int, client: int) -> bytes | None:
    """``None`` means fresh from the OS; simulation noise derives the key from the seed instead."""
    if not config.privacy.simulation_noise:
        return None
    return hashlib.sha256(f"flora-secure simulation noise {config.seed} {number} {client}".encode()).digest()
