"""A clip norm that follows a quantile of the updates' norms, estimated privately (Andrew et al. 1905.03871).

Beside its update every client uploads one bit, whether the update was within the clip norm, centred: ±½. The noisy
count of these bits moves the clip norm by a geometric step. The bit shares noise, masks and ring with the update
(`calibrate(count_noise=…)`, `encode(…, below=…)`, `decode_count`), so both are one Gaussian release in the ledger: with
σ_b the noise on the count and z_Δ the update's own noise multiplier, z^-2 = z_Δ^-2 + (2σ_b)^-2. A round's clip norm
follows from earlier releases only, so adaptive composition covers it.

A run with it, each round on `plan.with_clip(c)`, which stretches the grid and leaves everything in grid units as it is:

    plan = calibrate(..., clip_norm=first, count_noise=default_count_noise(clients))
    c = plan.clip_norm
    for every round:
        of_round = plan.with_clip(c)
        uploads = [encode(x, of_round, sampler, rotation, below=within(x, c)) for x in updates]
        event = of_round.event(...)                         # authorise, sum, record as ever
        estimate = decode(total, of_round, survivors, rotation)
        c = rule.next_norm(c, decode_count(total, of_round, survivors), survivors)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flora_secure.privacy.events import require_whole

_LEAST, _MOST = 1e-10, 1e10


@dataclass(frozen=True)
class AdaptiveClip:
    """The rule that moves the clip norm.

    Attributes:
        quantile: γ in (0, 1), of the norms, that the clip norm settles at; ½ is the paper's.
        rate: η_C > 0: a round in which the fraction is off by 1 moves the norm by a factor e^η; 0.2 is the paper's.
    """

    quantile: float = 0.5
    rate: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"the quantile must lie between 0 and 1, got {self.quantile!r}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"the rate must be a finite number > 0, got {self.rate!r}")

    def next_norm(self, clip_norm: float, count: float, survivors: int) -> float:
        """The next round's clip norm: c·exp(−η·(count/survivors − γ)), kept between 1e-10 and 1e10.

        Args:
            clip_norm: c of the round that ended, > 0.
            count: its noisy count of updates within c (`decode_count`); taken as it is, below 0 or above
                `survivors` too, since cutting it off would bias the quantile.
            survivors: uploads in the sum, >= 1.

        Source: Andrew et al. 1905.03871, algorithm 1.
        """
        if not 0 < clip_norm < math.inf or not math.isfinite(count) or survivors < 1:
            raise ValueError(f"clip norm > 0, a finite count and survivors expected: {clip_norm}, {count}, {survivors}")
        # a noisy count can be far out where few survive; a step beyond e^50 would leave the range anyway
        step = max(-50.0, min(50.0, -self.rate * (count / survivors - self.quantile)))
        return min(_MOST, max(_LEAST, clip_norm * math.exp(step)))


def within(update: ArrayLike, clip_norm: float) -> bool:
    """The client's bit: is the update's L2 norm at most the clip norm? NaN is not; `encode` refuses it anyway."""
    return bool(np.linalg.norm(np.asarray(update, dtype=np.float64)) <= clip_norm)


def default_count_noise(clients: int) -> float:
    """σ_b: a twentieth of the clients of a round (Andrew et al., section 3.1)."""
    require_whole("clients", clients, 1)
    return clients / 20
