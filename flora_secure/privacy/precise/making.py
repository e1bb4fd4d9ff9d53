"""How the table of the tail quantile is made, in multiple precision, each cell with its error bound checked.

    python -m flora_secure.privacy.precise.making

writes the package's file anew.
"""

from __future__ import annotations

import io
from statistics import NormalDist

import mpmath
import numpy as np
from numpy.typing import NDArray

from flora_secure.privacy.precise.tail_table import CELL_BITS, FILE, OCTAVES, X_ERROR


def made_table() -> NDArray[np.float64]:
    """The table, see `tail_table`. Raises AssertionError where a cell's error would be above `X_ERROR`."""
    ctx = mpmath.MPContext()
    ctx.prec = 100
    half = 2.0 ** -(CELL_BITS + 1)
    rows = []
    # One cell beyond the last octave: the largest word rounds up to p = 1/2 exactly.
    for cell in range((OCTAVES << CELL_BITS) + 1):
        exponent, place = divmod(cell, 1 << CELL_BITS)
        octave = 2.0 ** (exponent - 1 - OCTAVES)
        low = octave * (1 + place * 2 * half)
        p = low + octave * half
        # One Newton step in multiple precision from a double correct to 2^-40 leaves an error below 2^-70.
        guess = ctx.mpf(-NormalDist().inv_cdf(p))
        step = (ctx.ncdf(-guess) - p) / ctx.npdf(guess)
        x = guess + step
        density = octave / ctx.npdf(x)  # the chain rule's 2^e goes with each 1/φ
        rows.append(
            (
                x,
                -density,
                x * density**2 / 2,
                -(1 + 2 * x**2) * density**3 / 6,
                (7 * x + 6 * x**3) * density**4 / 24,
            )
        )
        edge = NormalDist().inv_cdf(low)
        fifth = (7 + 46 * edge**2 + 24 * edge**4) * (octave / NormalDist().pdf(edge)) ** 5
        remainder = 1.001 * fifth / 120 * half**5
        # Rounded coefficients and Horner's rule: |x| < 5.2 and the other terms below 0.1, well under 2^-48.
        # The word: p is known to 1/word + 2^-53, and p/φ(x) <= √(π/2).
        word = 1.26 * (2.0**-53 + 2.0**-64 / min(low, 0.5))
        if abs(step) > 2.0**-40 or remainder + 2.0**-48 + word > X_ERROR:
            raise AssertionError(f"cell {cell}: error {remainder + word:.3g} exceeds the bound {X_ERROR:.3g}")
    return np.array([[float(a) for a in row] for row in rows]).T.copy()


def npy_bytes(table: NDArray[np.float64]) -> bytes:
    """The table as the package's file has it."""
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=False)
    return stream.getvalue()


if __name__ == "__main__":
    FILE.write_bytes(npy_bytes(made_table()))
