"""What happened in a round, as the ledger and an auditor need it, apart from how it is counted."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np


@functools.lru_cache(maxsize=4096)
def aliasing_exponent(sigma_local: float, honest: int) -> float:
    """η: a sum of `honest` rounded Gaussians has a mass function within e^{±η} of a post-processed Gaussian's.

    Args:
        sigma_local: standard deviation of each share, grid units, > 0.
        honest: number of shares, >= 1.

    Returns:
        η = 5·Σ_{k=1}^{honest−1} exp(−2π²σ²·k/(k+1)) for each coordinate; 0 for one share; infinity where the bound
        does not apply (σ < 0.41).

    Source: docs/privacy/rounded-gaussian.md, theorem 2.
    """
    if honest == 1:
        return 0.0
    if math.exp(-((math.pi * sigma_local) ** 2)) > 0.2:  # the proof needs the largest term below 1/5
        return math.inf
    k = np.arange(1, honest)
    return 5.0 * float(np.sum(np.exp(-2.0 * (math.pi * sigma_local) ** 2 * (k / (k + 1.0)))))


def require_whole(name: str, value: int, least: int) -> None:
    """Raises ValueError unless `value` is a whole number of at least `least`: half a round has no cost."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class RoundEvent:
    """One released sum.

    Attributes:
        round: number of the round, from 1.
        survivors: clients whose uploads are in the sum.
        colluders: clients assumed to tell the server their noise; counted as if all of them had survived.
        sigma_local: standard deviation of each upload's noise, grid units; 0 when there is no noise.
        scale: s, grid units for one unit of the update.
        clip_norm: c, units of the update.
        dimension: d, coordinates of an upload.
        participants: the clients charged for this round, at least those whose uploads are in the sum; None for every
            client there is (full participation). The server knows them: against it nothing is amplified.
        sampling_rate: q, the probability with which the protected unit entered its client's upload, by a coin that
            only the client saw. 1 for unit `client`; the Poisson rate of the examples for unit `example`.
        population: number of clients of which the survivors are a uniformly random subset, given how many they are:
            what an outsider, who does not know the cohort, may call sampling. None where that is not so (full
            participation, minimum separation, clients left out for their budget, drop-outs that depend on who).
        count_scale: grid units for one unit of the centred bit of adaptive clipping (±½), which travels in the same
            upload; 0 without it.
    """

    round: int
    survivors: int
    colluders: int
    sigma_local: float
    scale: float
    clip_norm: float
    dimension: int
    participants: frozenset[int] | None = None
    sampling_rate: float = 1.0
    population: int | None = None
    count_scale: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("round", 1), ("dimension", 1), ("survivors", 0), ("colluders", 0)):
            require_whole(name, getattr(self, name), least)
        if self.population is not None:
            require_whole("population", self.population, 1)
        if self.honest < 1:
            raise ValueError(
                f"round {self.round}: {self.survivors} survivors less {self.colluders} colluders leave nobody's noise"
            )
        if not (0 <= self.sigma_local < math.inf and 0 < self.scale < math.inf and 0 < self.clip_norm < math.inf):
            raise ValueError(f"noise must be >= 0, scale and clip norm > 0, all finite: {self}")
        if not 0 < self.sampling_rate <= 1 or not 0 <= self.count_scale < math.inf:
            raise ValueError(f"sampling_rate must be in (0, 1], count_scale finite and >= 0: {self}")
        if self.participants is not None and len(self.participants) < self.survivors:
            raise ValueError(f"round {self.round}: {self.survivors} survivors, {len(self.participants)} participants")
        if self.population is not None and self.population < self.survivors:
            raise ValueError(f"round {self.round}: {self.survivors} survivors in a population of {self.population}")

    @property
    def honest(self) -> int:
        """How many survivors there are whose noise the server does not know."""
        return self.survivors - self.colluders

    @property
    def sensitivity(self) -> float:
        """How far one whole contribution moves the sum, grid units (L2): s·c, and half the bit's scale beside it."""
        return math.hypot(self.scale * self.clip_norm, self.count_scale / 2)

    @property
    def noise_multiplier(self) -> float:
        """The noise multiplier z: standard deviation of the sum's unknown noise ÷ its sensitivity; 0 is no privacy."""
        return self.sigma_local * math.sqrt(self.honest) / self.sensitivity

    @property
    def noise_multiplier_local(self) -> float:
        """The same for one upload by itself, the server and all other clients colluding."""
        return self.sigma_local / self.sensitivity

    @property
    def aliasing_slack(self) -> float:
        """κ = d·η: the release's density is within e^{±κ} of a post-processed Gaussian mechanism."""
        return 0.0 if self.sigma_local == 0 else self.dimension * aliasing_exponent(self.sigma_local, self.honest)


def event_fields(source: object) -> dict[str, Any]:
    """The fields of a round's event that `source`, a plan or a record, has under the same names, with its values.

    So a new field of the event needs no line where plans and records make events, nor where a record is made of a plan.
    """
    return {name: getattr(source, name) for name in _NAMES if hasattr(source, name)}


_NAMES = tuple(field.name for field in dataclasses.fields(RoundEvent))
