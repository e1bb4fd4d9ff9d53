"""The adapter in the precision that clients train from: little-endian float16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flora_secure.errors import DivergedError


def to_wire(adapter: NDArray[np.float64]) -> bytes:
    """The trained values as little-endian float16, which is what the clients train from."""
    largest = float(np.abs(adapter).max(initial=0.0))
    if not largest <= 65504.0:  # float16's largest value; also true for NaN
        raise DivergedError(
            f"the adapter's largest value is {largest:.3g}, beyond float16's 65504: training diverged; "
            "lower server_step or local_rate"
        )
    return adapter.astype("<f2").tobytes()


def from_wire(message: bytes, dimension: int) -> NDArray[np.float32]:
    """Read `to_wire`'s bytes: float32 (dimension,). Raises `ValueError` on any other length."""
    if len(message) != 2 * dimension:
        raise ValueError(f"an adapter of {dimension} values takes {2 * dimension} bytes, got {len(message)}")
    return np.frombuffer(message, "<f2").astype(np.float32)
