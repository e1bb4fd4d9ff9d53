"""The table of the tail quantile x(p) = −Φ⁻¹(p), as it ships with the package.

Making it takes mpmath and 0.2 seconds of CPU, and a client's process may live for one message.

    python -m flora_secure.privacy.precise.making

writes it anew; a test compares the two bit for bit.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

X_ERROR = 2.0**-36  # bound on |float64 x(p) − x(p)| wherever the table is used; `making` verifies it
CELL_BITS = 6  # 64 cells an octave
OCTAVES = 22  # the table covers 2^-23 <= p <= 1/2; rarer words, 1 in 4 million, are refined
FILE = Path(__file__).with_name("tail_table.npy")


@functools.cache
def tail_table() -> NDArray[np.float64]:
    """(5, cells) Taylor coefficients of x(p) in v, where p = 2^e·(m + v), m the cell's middle mantissa, |v| <= 2^-7.

    Raises RuntimeError where the package's file is not what was built.
    """
    table: NDArray[np.float64] = np.load(io.BytesIO(FILE.read_bytes()), allow_pickle=False)
    # one cell beyond the last octave: the largest word rounds up to p = 1/2 exactly
    if table.shape != (5, (OCTAVES << CELL_BITS) + 1) or table.dtype != np.float64:
        raise RuntimeError(f"{FILE.name} of this installation is damaged: install the package anew")
    return table
