"""The tail quantile x(p) = −Φ⁻¹(p) to any precision, for the draws that float64 cannot decide."""

from __future__ import annotations

from fractions import Fraction
from statistics import NormalDist
from threading import RLock

import mpmath

# mpmath keeps constants in variables that two threads would write at once: the draws of all threads take turns there
_TURNS = RLock()


def bracket(digits: int, known: int) -> tuple[Fraction, Fraction] | None:
    """Rationals that enclose x(p) for every p in [digits, digits + 1]·2^-known, or None when more digits are needed.

    Certified by evaluating Φ at both ends with 64 bits to spare; how the ends were found does not matter.
    """
    if digits == 0:
        return None
    with _TURNS:
        ctx = mpmath.MPContext()
        ctx.prec = known + 128
        p = ctx.ldexp(digits, -known)
        x = ctx.mpf(-NormalDist().inv_cdf(max(float(p), 1e-300)))
        for _ in range(known.bit_length()):  # Newton doubles the correct digits; one round more than needed
            x += (ctx.ncdf(-x) - p) / ctx.npdf(x)
        radius = ctx.ldexp(1, 66 - known)
        slack = 1 + ctx.ldexp(1, -known - 64)  # mpmath's own error, with 64 bits to spare
        low, high = x - radius, x + radius
        if ctx.ncdf(-low) < ctx.ldexp(digits + 1, -known) * slack or ctx.ncdf(-high) * slack > p:
            return None
        return _exact(low), _exact(high)


def _exact(x: mpmath.mpf) -> Fraction:
    sign, mantissa, exponent, _ = x._mpf_
    numerator = -int(mantissa) if sign else int(mantissa)
    return Fraction(numerator * 2**exponent) if exponent >= 0 else Fraction(numerator, 2**-exponent)
