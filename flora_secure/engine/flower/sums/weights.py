"""Updates weighted by examples, whose numbers nobody sees: the sum of the weights is one more value of the sum.

A site with n examples has weight w = min(n, most)/most, in (0, 1], and uploads (w·x, w·c_w), x clipped to c. That is
at most √(c² + c_w²) long, so that one site moves the sum by no more; noise and ledger go by that length. The mean is
the first part ÷ (the last value ÷ c_w), both with noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_secure.engine.flower.sums.wire import Settings
from flora_secure.errors import require
from flora_secure.privacy.noise_plan import NoisePlan

_WORST = 0.25  # standard deviation of the sum of weights ÷ its largest value: beyond it the quotient means nothing


@dataclass(frozen=True)
class ByExamples:
    """How updates are weighted.

    Attributes:
        most: examples from which on a site weighs 1; more count no more. It must not be chosen by looking at the data.
        norm: c_w > 0, by how much a weight of 1 is long in the upload, in units of the update. Small: the sum of
            weights is noisy; large: the update's noise grows as √(c² + c_w²)/c. About c is a good start.
        key: name of the number of examples in the app's metrics. It does not leave the site.
    """

    most: int
    norm: float
    key: str = "num-examples"

    def __post_init__(self) -> None:
        require(type(self.most) is int and self.most >= 1, f"most must be a whole number above 0, got {self.most!r}")
        require(0 < self.norm < math.inf, f"norm must be a positive number, got {self.norm}")
        require(bool(self.key), "key must name a metric of the app, such as num-examples")

    def settings(self, kept: tuple[str, ...]) -> Settings:
        """What sites are told, beside the names of arrays that are `kept`."""
        return Settings(kept, self.key, self.most, float(self.norm))

    def deviation(self, plan: NoisePlan) -> float:
        """Standard deviation of the noise in the sum of weights, where everybody survives."""
        return plan.sigma_local * math.sqrt(plan.clients) / plan.scale / self.norm

    def require_worth(self, plan: NoisePlan) -> None:
        """ConfigError where so few sites, or so small an ε, make the sum of weights too noisy to divide by."""
        noise = self.deviation(plan)
        require(
            noise <= _WORST * plan.clients,
            f"the weights' sum is at most {plan.clients}, and its noise would be {noise:.3g}, where at most "
            f"{_WORST * plan.clients:.3g} make sense; leave them out, or take more sites, a larger epsilon, fewer "
            f"rounds, or a larger norm than {self.norm:g}",
        )

    def mean(
        self, total: NDArray[np.float64], survivors: int, plan: NoisePlan, log: Callable[[str], None]
    ) -> NDArray[np.float64]:
        """The weighted mean, float64 (d,), of a sum float64 (d + 1,) of so many `survivors`.

        A sum of weights that its noise has carried out of [m/10, m], m the survivors, is taken to be at the nearer end,
        and `log` is told: public numbers alone decide, so it costs nothing.
        """
        weight = float(total[-1]) / self.norm
        inside = min(max(weight, survivors / 10), float(survivors))
        if inside != weight:
            log(f"the sum of weights reads {weight:.3g} with its noise of {self.deviation(plan):.2g}: {inside:g} used")
        found: NDArray[np.float64] = total[:-1] / inside
        return found
