"""What summing a round's vectors gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.uint32]


@dataclass(frozen=True)
class RoundSum:
    """``total``: uint32 (d,), the sum of the survivors' vectors modulo 2^bits. ``recovered``: how many dropped clients'
    pairwise masks had to be removed. CPU seconds: mean of a client, as it would spend them outside a simulation
    (`cohort`); total of the server."""

    total: Vector
    recovered: int
    client_seconds: float
    server_seconds: float
