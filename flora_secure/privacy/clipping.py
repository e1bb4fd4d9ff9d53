"""Clipping a client's update to an L2 ball: what bounds the sensitivity of the sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


class NonFiniteUpdateError(ValueError):
    """An update holds NaN or infinity: the client drops out of the round; zeros instead would carry full weight."""


def clip(update: ArrayLike, norm: float) -> tuple[NDArray[np.float64], float]:
    """Scale `update` down, if need be, so that its L2 norm is at most `norm`.

    Args:
        update: (d,) real numbers, d >= 1, any float dtype, all finite.
        norm: the clip norm c, between 1e-100 and 1e100, in the units of the update.

    Returns:
        The clipped update, (d,) float64, always a fresh array, and the L2 norm that the update had before (float64).
        In exact arithmetic the clipped norm is at most c·(1 − 2^-51), so that even the product with a grid scale s,
        rounded to float64, has norm at most s·c.

    Raises:
        NonFiniteUpdateError: a coordinate is NaN or infinite.
        ValueError: the shape is not (d,), d = 0, or the norm is out of range.

    Source: Abadi et al. 2016 (1607.00133), algorithm 1. The margin: Higham, Accuracy and Stability of Numerical
    Algorithms, section 4.2.
    """
    x = np.asarray(update)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"an update is a vector (d,) with d >= 1, got shape {x.shape}")
    clipped, norms = clip_rows(x[None], norm)
    return clipped[0], float(norms[0])


def clip_rows(updates: ArrayLike, norm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`clip` of every row of (m, d): the same float64, row by row, and the norms (m,) that the rows had before.

    Raises as `clip`; NonFiniteUpdateError for the first row that is not finite.
    """
    x = np.array(updates, dtype=np.float64)
    if not 1e-100 <= norm <= 1e100:
        raise ValueError(f"the clip norm must lie between 1e-100 and 1e100, got {norm!r}")
    peak, size = np.maximum(x.max(axis=1), -x.min(axis=1)), x.shape[1]
    if not np.isfinite(peak).all():
        bad = size - int(np.count_nonzero(np.isfinite(x[np.flatnonzero(~np.isfinite(peak))[0]])))
        raise NonFiniteUpdateError(
            f"{bad} of {size} coordinates of the update are NaN or infinite: leave this client out of the round"
        )
    # squares can neither overflow nor, where they matter, underflow
    unit = np.where((peak == 0) | ((peak >= 1e-100) & (peak <= 1e100)), 1.0, peak)
    y = x if (unit == 1.0).all() else x / unit[:, None]
    # row by row, so that a row's sum does not depend on its neighbours; np.dot wakes threads for microseconds' work
    length = np.sqrt([np.einsum("i,i", row, row) for row in y])
    raw_norm = unit * length
    # A sum of d squares errs by at most (d + 2)·2^-53 of itself in any order of summation, so half of this margin is
    # enough on every machine, and the other half pays for the product with s.
    target = norm * (1.0 - (size + 16) * 2.0**-53)
    long = raw_norm > target
    factor = np.divide(target, length, out=np.ones_like(length), where=long)
    np.multiply(y, factor[:, None], out=x, where=long[:, None])
    return x, raw_norm
