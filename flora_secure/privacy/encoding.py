"""Between float updates and the ring Z_{2^b}: clip, rotate, scale, noise, round, reduce; and back for the sum.

Sums are read as integers in [−2^(b−1), 2^(b−1)). That they stay there is proven by the plan (`calibration`), up to its
`overflow_probability`; a sum outside wraps around unseen, which costs accuracy and never privacy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flora_secure.privacy.clipping import clip_rows

if TYPE_CHECKING:
    from flora_secure.privacy.noise_plan import NoisePlan
    from flora_secure.privacy.rotation import Rotation


class Sampler(Protocol):
    """Noise that is rounded once, after it is added; those of `privacy.rounded_gaussian` are."""

    def sample(self, y: ArrayLike, sigma: float) -> NDArray[np.int64]:
        """Returns int64 of y's shape: ⌊y + σ·G + ½⌋ for each coordinate, in grid units, G standard normal."""
        ...


def encode(
    update: ArrayLike,
    plan: NoisePlan,
    sampler: Sampler | None,
    rotation: Rotation | None = None,
    *,
    below: bool | None = None,
) -> NDArray[np.uint32]:
    """One client's upload before masking.

    Args:
        update: (d,) finite floats, d = plan.dimension.
        plan: the round's.
        sampler: with a key of its own for this upload; None if, and only if, the plan has no noise.
        rotation: the round's, the same for all clients, if and only if the plan is `rotated`.
        below: adaptive clipping's bit, whether the update's norm was at most the clip norm; if and only if the plan
            counts.

    Returns:
        (plan.length,) uint32, below 2^b: ⌊s·R·clip(update) + σ_loc·G + ½⌋ mod 2^b, then the bit's coordinates.

    Raises:
        NonFiniteUpdateError: NaN or infinity in the update; the client must not take part in this round.
        ValueError: wrong shape, or a sampler, rotation or bit where the plan wants none or the other way round.
    """
    if np.shape(update) != (plan.dimension,):
        raise ValueError(f"the plan is for updates of shape ({plan.dimension},), got {np.shape(update)}")
    bits = None if below is None else np.array([below])
    return _rounded(_on_grid(np.asarray(update)[None], plan, rotation, bits)[0], plan, sampler)


def encode_rows(
    updates: ArrayLike,
    plan: NoisePlan,
    sampler: Sampler | None,
    rotation: Rotation | None = None,
    *,
    below: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint32]:
    """`encode` of many clients' updates (m, d): uint32 (m, plan.length), every row what it would be by itself.

    `sampler`: with a key for each row, such as `privacy.rounded_gaussian.RowsOfNoise`. `below`: (m,). Raises as
    `encode`, for the first update that is not finite.
    """
    if np.ndim(updates) != 2 or np.shape(updates)[1] != plan.dimension:
        raise ValueError(f"the plan is for updates of shape (m, {plan.dimension}), got {np.shape(updates)}")
    return _rounded(_on_grid(updates, plan, rotation, below), plan, sampler)


def _on_grid(
    updates: ArrayLike, plan: NoisePlan, rotation: Rotation | None, below: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """What is rounded, in grid units and without its noise: (m, plan.length)."""
    _check_rotation(plan, rotation)
    if (plan.count_coordinates > 0) != (below is not None):
        raise ValueError("pass the bit `below` if and only if the plan counts clipped clients")
    clipped, _ = clip_rows(updates, plan.upload_norm)
    if rotation is not None:
        # a rotation in float64 may lengthen the vector by a rounding error; the margin of the second clip is exact
        clipped, _ = clip_rows(rotation.forward(clipped), plan.upload_norm)
    clipped *= plan.scale
    if below is not None:
        share = plan.count_scale / math.sqrt(plan.count_coordinates)  # by a power of two: exact
        counted = np.where(below, share / 2, -share / 2)[:, None]
        clipped = np.concatenate([clipped, np.repeat(counted, plan.count_coordinates, axis=1)], axis=1)
    return clipped


def _rounded(clipped: NDArray[np.float64], plan: NoisePlan, sampler: Sampler | None) -> NDArray[np.uint32]:
    """With its noise, rounded, and reduced modulo 2^b; of any shape."""
    if plan.noisy != (sampler is not None):
        raise ValueError(
            f"the plan's epsilon is {plan.epsilon:g}: " + ("pass a noise sampler" if plan.noisy else "pass no sampler")
        )
    if sampler is None:
        integers = np.floor(clipped + 0.5).astype(np.int64)
    else:
        integers = sampler.sample(clipped, plan.sigma_local)
    return (integers & ((1 << plan.bits) - 1)).astype(np.uint32)


def decode(
    total: NDArray[np.uint32], plan: NoisePlan, survivors: int, rotation: Rotation | None = None
) -> NDArray[np.float64]:
    """The sum of the survivors' clipped updates, with their noise, from the sum of their uploads mod 2^b.

    Args:
        total: (plan.length,) uint32, below 2^b.
        plan: the round's.
        survivors: uploads in the sum, plan.survivors_minimum..plan.clients: fewer have too little noise for the budget.
        rotation: as for `encode`.

    Returns:
        (d,) float64, units of the update. Its error against the exact sum: noise of standard deviation
        σ_loc·√survivors/s and rounding of √(survivors/12)/s.

    Raises:
        ValueError: wrong shape or dtype, a value not below 2^b, survivors out of range, or a rotation where the plan
            wants none or the other way round.
    """
    _check_rotation(plan, rotation)
    require_sum(total, plan, survivors)
    return read_sum(total, plan, plan.scale, rotation)


def read_sum(
    total: NDArray[np.uint32], plan: NoisePlan, scale: float, rotation: Rotation | None
) -> NDArray[np.float64]:
    """What `decode` gives, of a sum that is known to fit the plan, at the `scale` of its round."""
    values = signed(total, plan.bits)[: plan.length - plan.count_coordinates] / scale
    return values if rotation is None else rotation.inverse(values)


def decode_count(total: NDArray[np.uint32], plan: NoisePlan, survivors: int) -> float:
    """Adaptive clipping's noisy count: survivors whose update was at most the clip norm long. Arguments as `decode`.

    May lie below 0 or above `survivors`; its noise has standard deviation σ_loc·√survivors/count_scale clients.
    """
    if not plan.count_coordinates:
        raise ValueError("this plan has no count: calibrate with count_noise")
    values = _centred(total, plan, survivors)[-plan.count_coordinates :]
    return float(values.sum()) / (plan.count_scale * math.sqrt(plan.count_coordinates)) + survivors / 2


def wrapped(total: NDArray[np.uint32], uploads: Iterable[NDArray[np.uint32]], plan: NoisePlan) -> int:
    """How many coordinates of the sum have wrapped. Only a simulation, which has the uploads, can tell.

    `total` and every upload as `encode` returns them. A single upload is far inside the ring, so the exact sum is that
    of the uploads read as signed integers.
    """
    exact, count, half = np.zeros(total.shape, np.int64), 0, np.uint32(1 << (plan.bits - 1))
    for upload in uploads:
        exact += (upload + half) & np.uint32(2 * int(half) - 1)  # `signed`, but for what is taken off below
        count += 1
    exact -= count * int(half)
    return int(np.count_nonzero(signed(total, plan.bits) != exact))


def overflow_rate(total: NDArray[np.uint32], plan: NoisePlan, survivors: int) -> float:
    """Estimate, from above, of the fraction of coordinates that have wrapped in this sum. 0 without noise.

    It counts coordinates within one standard deviation of the noise on either side of the ring's cut. As long as the
    noiseless sum lies inside the ring, a Gaussian leaves at least as much mass in that band as beyond the cut.
    Arguments and errors as for `decode`.
    """
    values = _centred(total, plan, survivors)
    band = plan.sigma_local * survivors**0.5
    return float(np.mean(np.abs(values) > 2 ** (plan.bits - 1) - band)) if plan.noisy else 0.0


def _check_rotation(plan: NoisePlan, rotation: Rotation | None) -> None:
    if plan.rotated != (rotation is not None):
        raise ValueError("the plan rotates: pass the round's rotation" if plan.rotated else "the plan does not rotate")
    if rotation is not None and rotation.dimension != plan.dimension:
        raise ValueError(f"a rotation of {rotation.dimension} coordinates for updates of {plan.dimension}")


def require_sum(total: NDArray[np.uint32], plan: NoisePlan, survivors: int) -> None:
    """ValueError, as `decode` says, unless `total` can be the sum of so many uploads of the plan."""
    if total.dtype != np.uint32 or total.shape != (plan.length,):
        raise ValueError(f"a sum is uint32 of shape ({plan.length},), got {total.dtype} of shape {total.shape}")
    if not plan.survivors_minimum <= survivors <= plan.clients:
        raise ValueError(
            f"{survivors} survivors; the plan holds for {plan.survivors_minimum} to {plan.clients}: abort the round"
        )
    largest = int(total.max())
    if largest >= 1 << plan.bits:
        raise ValueError(f"the sum holds {largest}, not below 2^{plan.bits}: it was not reduced, or packed otherwise")


def _centred(total: NDArray[np.uint32], plan: NoisePlan, survivors: int) -> NDArray[np.int64]:
    require_sum(total, plan, survivors)
    return signed(total, plan.bits)


def signed(values: NDArray[np.uint32], bits: int) -> NDArray[np.int64]:
    """Ring elements, uint32 below 2^bits of any shape, as integers in [−2^(b−1), 2^(b−1))."""
    half = 1 << (bits - 1)
    return ((values.astype(np.int64) + half) & (2 * half - 1)) - half
