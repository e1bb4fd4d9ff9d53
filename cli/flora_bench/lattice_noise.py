"""Noise that lives on the integers, for comparison: the discrete Gaussian and Skellam, each added *after* rounding.

Updates are rounded stochastically first, and again until the rounded vector is short enough (Kairouz, Liu and Steinke
2102.06387, theorem 1); the noise follows by inversion of a table of the distribution function. The table holds 256
binary digits. A draw's 64 digits decide it unless they coincide with the leading digits of a table entry, then 192 more
are compared. What lies beyond both ends weighs less than 2^-255 altogether.
"""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Callable
from typing import ClassVar

import mpmath
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import ArrayLike, NDArray

KEY_BYTES = 32
_DIGITS = 256
_ATTEMPTS = 1000


class LatticeNoise:
    """What both mechanisms share. Same key, same draws, on every platform.

    Args:
        key: 32 secret bytes for one upload, or None for fresh ones from the operating system.
        rounded_norm: the L2 norm that a rounded vector must not exceed, grid units; rounding is repeated until it does.
    """

    __slots__ = ("_key", "_rounded_norm", "_used")
    name: ClassVar[str]

    def __init__(self, key: bytes | None, rounded_norm: float) -> None:
        if key is None:
            key = secrets.token_bytes(KEY_BYTES)
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise ValueError(f"a noise key is {KEY_BYTES} bytes")
        if not rounded_norm > 0:
            raise ValueError(f"the norm of rounded vectors must be > 0, got {rounded_norm!r}")
        self._key = key
        self._rounded_norm = rounded_norm
        self._used = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<secret key>)"

    def sample(self, y: ArrayLike, sigma: float) -> NDArray[np.int64]:
        """Stochastically rounded y plus independent noise of standard deviation sigma on every coordinate; once only.

        Args:
            y: (d,) finite floats, grid units.
            sigma: grid units, in [0.1, 1e5].

        Returns:
            (d,) int64.

        Raises:
            ValueError: sigma out of range, y not finite, or no rounding of y short enough in 1,000 attempts: y is
                longer than `rounded_norm` was computed for.
            RuntimeError: a second call; it would repeat the noise.
        """
        centre = np.ascontiguousarray(y, dtype=np.float64)
        if not 0.1 <= sigma <= 1e5:
            raise ValueError(f"sigma must be between 0.1 and 1e5 grid units, got {sigma!r}")
        if not np.all(np.isfinite(centre)):
            raise ValueError("y holds NaN or infinity")
        if self._used:
            raise RuntimeError("this key's noise is used up: one key, one upload")
        self._used = True
        return self._round(centre) + self._noise(centre.size, sigma).reshape(centre.shape)

    def _round(self, y: NDArray[np.float64]) -> NDArray[np.int64]:
        stream, floor = self._stream(1), np.floor(y)
        rest, low = y - floor, floor.astype(np.int64)
        for _ in range(_ATTEMPTS):
            uniform = (_words(stream, y.size) >> np.uint64(11)).astype(np.float64) * 2.0**-53
            rounded = low + (uniform < rest.reshape(-1)).reshape(y.shape)
            # integers: the comparison is exact as long as the squares stay below 2^53
            if float(np.sum(rounded.astype(np.float64) ** 2)) <= self._rounded_norm**2:
                return rounded
        raise ValueError(f"no rounding has a norm of at most {self._rounded_norm:g} in {_ATTEMPTS} attempts")

    def _noise(self, count: int, sigma: float) -> NDArray[np.int64]:
        reach, wide, narrow = self._table(sigma)
        words, more = _words(self._stream(0), count), self._stream(2)
        index = np.searchsorted(narrow, words, side="left")  # entries certainly below the draw
        undecided = narrow[np.minimum(index, narrow.size - 1)] == words
        for i in np.flatnonzero(undecided):
            digits = int(words[i]) << (_DIGITS - 64) | int.from_bytes(more.update(bytes(_DIGITS // 8 - 8)), "big")
            j = int(index[i])
            while j < len(wide) and wide[j] <= digits:
                j += 1
            index[i] = j
        return index - reach

    def _stream(self, number: int) -> CipherContext:
        return Cipher(algorithms.AES(self._key), modes.CTR(number.to_bytes(8, "big") + bytes(8))).encryptor()

    @classmethod
    def _table(cls, sigma: float) -> tuple[int, list[int], NDArray[np.uint64]]:
        return _cumulated(cls.masses, sigma)

    @classmethod
    def masses(cls, sigma: float) -> list[mpmath.mpf]:
        """P(0), P(1), … up to a constant, to 320 digits, until they are negligible; the distribution is symmetric."""
        raise NotImplementedError


class DiscreteGaussian(LatticeNoise):
    """P(k) ∝ exp(−k²/(2σ²)) (Canonne, Kamath and Steinke 2004.00010)."""

    __slots__ = ()
    name = "discrete Gaussian"

    @classmethod
    def masses(cls, sigma: float) -> list[mpmath.mpf]:
        ctx = _context()
        ratio = ctx.exp(-1 / (2 * ctx.mpf(sigma) ** 2))
        step, square, found = ratio, ratio * ratio, [ctx.one]
        while found[-1] > ctx.ldexp(1, -_DIGITS - 32):
            found.append(found[-1] * step)
            step *= square
        return found


class Skellam(LatticeNoise):
    """The difference of two Poisson variables of mean σ²/2 each: P(k) = e^{−σ²}·I_k(σ²) (Agarwal et al. 2110.04995)."""

    __slots__ = ()
    name = "Skellam"

    @classmethod
    def masses(cls, sigma: float) -> list[mpmath.mpf]:
        ctx = _context()
        variance = ctx.mpf(sigma) ** 2
        # Chernoff: −ln P(X >= k) >= k·asinh(k/σ²) − √(k² + σ⁴) + σ²; 225 is 2^-324
        last, v = 1, sigma**2
        while last * math.asinh(last / v) - math.hypot(last, v) + v < 225:
            last += 1 + last // 50
        # Backwards by Miller's recurrence I_{k−1} = I_{k+1} + (2k/σ²)·I_k, from twice as far
        found = [ctx.zero] * (2 * last + 2)
        found[-2] = ctx.one
        for k in range(2 * last, 0, -1):
            found[k - 1] = found[k + 1] + 2 * k / variance * found[k]
        return [mass / found[0] for mass in found[: last + 1]]


@functools.lru_cache(maxsize=16)
def _cumulated(
    distribution: Callable[[float], list[mpmath.mpf]], sigma: float
) -> tuple[int, list[int], NDArray[np.uint64]]:
    """Reach K and the distribution function at −K … K − 1, ⌊F·2^256⌋ whole and its leading 64 digits."""
    ctx, masses = _context(), distribution(sigma)
    unit = ctx.ldexp(1, _DIGITS) / (2 * ctx.fsum(masses) - masses[0])
    wide, total = [], ctx.zero
    reach = len(masses) - 1
    for k in range(-reach, reach):
        total += masses[abs(k)] * unit
        wide.append(min(int(total), (1 << _DIGITS) - 1))
    return reach, wide, np.array([w >> (_DIGITS - 64) for w in wide], dtype=np.uint64)


def _context() -> mpmath.MPContext:
    ctx = mpmath.MPContext()
    ctx.prec = _DIGITS + 64
    return ctx


def _words(stream: CipherContext, count: int) -> NDArray[np.uint64]:
    return np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8").astype(np.uint64, copy=False)
