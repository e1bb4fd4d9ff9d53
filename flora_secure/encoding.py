"""Between float updates and the ring Z_{2^b}: clip, scale, noise, round, reduce; and back for the sum.

Sums are read as integers in [−2^(b−1), 2^(b−1)). That they stay there is proven by the plan (`calibration`), up to its
`overflow_probability`; a sum outside wraps around unseen, which costs accuracy and never privacy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .privacy.clipping import clip

if TYPE_CHECKING:
    from .privacy.plan import NoisePlan


class Sampler(Protocol):
    """Noise that is rounded once, after it is added; `privacy.rounded_gaussian.RoundedGaussian` is one."""

    def sample(self, y: ArrayLike, sigma: float) -> NDArray[np.int64]:
        """⌊y + σ·G + ½⌋ for each coordinate, grid units."""
        ...


def encode(update: ArrayLike, plan: NoisePlan, sampler: Sampler | None) -> NDArray[np.uint32]:
    """One client's upload before masking.

    Args:
        update: (d,) finite floats, d = plan.dimension.
        plan: the run's.
        sampler: with a key of its own for this upload; None if, and only if, the plan has no noise.

    Returns:
        (d,) uint32, below 2^b: ⌊s·clip(update) + σ_loc·G + ½⌋ mod 2^b.

    Raises:
        NonFiniteUpdateError: NaN or infinity in the update; the client must not take part in this round.
        ValueError: wrong shape, or a sampler where the plan wants none or the other way round.
    """
    if np.shape(update) != (plan.dimension,):
        raise ValueError(f"the plan is for updates of shape ({plan.dimension},), got {np.shape(update)}")
    if plan.noisy != (sampler is not None):
        raise ValueError(
            f"the plan's epsilon is {plan.epsilon:g}: " + ("pass a noise sampler" if plan.noisy else "pass no sampler")
        )
    clipped, _ = clip(update, plan.clip_norm)
    clipped *= plan.scale
    if sampler is None:
        integers = np.floor(clipped + 0.5).astype(np.int64)
    else:
        integers = sampler.sample(clipped, plan.sigma_local)
    return (integers & ((1 << plan.bits) - 1)).astype(np.uint32)


def decode(total: NDArray[np.uint32], plan: NoisePlan, survivors: int) -> NDArray[np.float64]:
    """The sum of the survivors' clipped updates, with their noise, from the sum of their uploads mod 2^b.

    Args:
        total: (d,) uint32, below 2^b.
        plan: the run's.
        survivors: uploads in the sum, plan.survivors_minimum..plan.clients: fewer have too little noise for the budget.

    Returns:
        (d,) float64, units of the update. Its error against the exact sum: noise of standard deviation
        σ_loc·√survivors/s and rounding of √(survivors/12)/s.

    Raises:
        ValueError: wrong shape or dtype, a value not below 2^b, or survivors out of range.
    """
    return _centred(total, plan, survivors) / plan.scale


def overflow_rate(total: NDArray[np.uint32], plan: NoisePlan, survivors: int) -> float:
    """Estimate, from above, of the fraction of coordinates that have wrapped in this sum. 0 without noise.

    It counts coordinates within one standard deviation of the noise on either side of the ring's cut. As long as the
    noiseless sum lies inside the ring, a Gaussian leaves at least as much mass in that band as beyond the cut.
    Arguments and errors as for `decode`.
    """
    values = _centred(total, plan, survivors)
    band = plan.sigma_local * survivors**0.5
    return float(np.mean(np.abs(values) > 2 ** (plan.bits - 1) - band)) if plan.noisy else 0.0


def _centred(total: NDArray[np.uint32], plan: NoisePlan, survivors: int) -> NDArray[np.int64]:
    if total.dtype != np.uint32 or total.shape != (plan.dimension,):
        raise ValueError(f"a sum is uint32 of shape ({plan.dimension},), got {total.dtype} of shape {total.shape}")
    if not plan.survivors_minimum <= survivors <= plan.clients:
        raise ValueError(
            f"{survivors} survivors; the plan holds for {plan.survivors_minimum} to {plan.clients}: abort the round"
        )
    largest = int(total.max())
    if largest >= 1 << plan.bits:
        raise ValueError(f"the sum holds {largest}, not below 2^{plan.bits}: it was not reduced, or packed otherwise")
    values = total.astype(np.int64)
    values[values >= 1 << (plan.bits - 1)] -= 1 << plan.bits
    return values
