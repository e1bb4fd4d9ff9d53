"""Exact draws of the rounded Gaussian q = ⌊y + σ·G + ½⌋, G ~ N(0, 1), from a keyed stream.

The stream gives the binary digits of one uniform U for each draw, and q = ⌊y + σ·Φ⁻¹(U) + ½⌋ exactly, a function of
real numbers. The first 64 digits decide nearly every draw: float64 places y + σ·G within a proven error bar, and where
the bar does not straddle an integer the floor is known. The others are decided with further digits in multiple
precision (Ziv's strategy). So the integers depend neither on the platform nor on how the calls are split.

The float64 part is a Taylor polynomial of degree 4 about the middle of one of 64 cells an octave of the tail
probability p. With x(p) = −Φ⁻¹(p): x⁽ⁿ⁾ = (−1)ⁿ·Pₙ(x)/φ(x)ⁿ, P₁ = 1, Pₙ₊₁ = Pₙ' + n·x·Pₙ. No coefficient of Pₙ is
negative, so |x⁽⁵⁾| is largest at the end of the cell where |x| is, and Lagrange's remainder there bounds the error.
`precise.making` checks that bound for every cell as the table is made, which ships with
the package. Proof and figures: docs/privacy/rounded-gaussian.md.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import ArrayLike, NDArray

from flora_secure.privacy.precise.tail_table import CELL_BITS, OCTAVES, X_ERROR, tail_table

KEY_BYTES = 32
_MIN_WORD = 1 << (64 - 1 - OCTAVES)  # p·2^64 at the table's lower end
_FIRST_CELL = (1023 + 64 - 1 - OCTAVES) << CELL_BITS  # exponent and leading mantissa bits of float64(_MIN_WORD)
_ONE = np.int64(1023 << 52)  # the bits of 1.0
_BLOCK = 1 << 14  # draws a pass: what the passes touch stays in the cache
_EXTRA_BITS = 192


def _tail_quantile(magnitude: NDArray[np.int64]) -> NDArray[np.float64]:
    """x(p) within X_ERROR for every p in [magnitude, magnitude + 1]·2^-64; where magnitude < _MIN_WORD, anything."""
    bits = magnitude.astype(np.float64).view(np.int64)
    cell = (bits >> (52 - CELL_BITS)) - _FIRST_CELL
    v = ((bits & ((1 << (52 - CELL_BITS)) - 1)) | _ONE).view(np.float64)
    v -= 1.0 + 2.0 ** -(CELL_BITS + 1)
    table = tail_table()
    x: NDArray[np.float64] = table[4].take(cell, mode="clip")
    for row in table[3::-1]:
        x *= v
        x += row.take(cell, mode="clip")
    return x


class RoundedGaussian:
    """Rounded Gaussian noise from one key.

    Args:
        key: 32 secret bytes used for nothing else, or None for fresh ones from the operating system. Samplers with the
            same key give the same draws, whose difference would reveal the inputs: one key, one sampler, one upload.

    Source: docs/privacy/rounded-gaussian.md for the randomiser; Ziv, ACM TOMS 17(3), 1991, for refining the undecided
    results; Mironov, CCS 2012, for why a float Gaussian will not do.
    """

    __slots__ = ("_drawn", "_key", "_stream")

    def __init__(self, key: bytes | None = None) -> None:
        if key is None:
            key = secrets.token_bytes(KEY_BYTES)
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise ValueError(f"a noise key is {KEY_BYTES} bytes")
        self._key = key
        self._drawn = 0
        self._stream = self._keystream(0)

    def __repr__(self) -> str:
        return "RoundedGaussian(<secret key>)"

    def sample(self, y: ArrayLike, sigma: float) -> NDArray[np.int64]:
        """The next draws: ⌊y + σ·G + ½⌋ with an independent standard normal G for each coordinate.

        Args:
            y: real numbers in grid units, any shape, taken as exact float64 values.
            sigma: standard deviation in grid units, finite, > 0.

        Returns:
            int64, the shape of y. About 40 ms a million draws.

        Raises:
            ValueError: y is not finite, sigma is not a finite positive number, or they are so large (max|y| above 2^46
                or sigma above 2^32) that float64 decides too few draws.
        """
        centre, bar = _centred(y, sigma)
        flat = centre.reshape(-1)
        result = np.empty(flat.shape, dtype=np.int64)
        for start in range(0, flat.size, _BLOCK):
            part = flat[start : start + _BLOCK]
            _fill([self], part[None], sigma, bar, result[start : start + _BLOCK])
        return result.reshape(centre.shape)

    def _octets(self, draws: int) -> bytes:
        """The first 64 bits of the next draws."""
        self._drawn += draws
        return self._stream.update(bytes(8 * draws))

    def _refine(self, index: int, word: int, y: float, sigma: float) -> int:
        """Draw number `index` from its 64 bits and as many more as it takes."""
        # one draw in some millions: mpmath is imported when it comes
        from fractions import Fraction

        from flora_secure.privacy.precise import quantile

        stream = self._keystream(index + 1)
        digits, known = word >> 1, 64
        while True:
            digits = digits << _EXTRA_BITS | int.from_bytes(stream.update(bytes(_EXTRA_BITS // 8)), "big")
            known += _EXTRA_BITS
            bracket = quantile.bracket(digits, known)
            if bracket is None:
                continue
            low, high = bracket if word & 1 else (-bracket[1], -bracket[0])
            half = Fraction(1, 2)
            floors = {math.floor(Fraction(y) + Fraction(sigma) * x + half) for x in (low, high)}
            if len(floors) == 1:
                return floors.pop()

    def _keystream(self, number: int) -> CipherContext:
        """AES-256-CTR. Stream 0 holds 8 bytes a draw, stream i + 1 the further digits of draw i; 2^64 blocks each."""
        return Cipher(algorithms.AES(self._key), modes.CTR(number.to_bytes(8, "big") + bytes(8))).encryptor()


class RowsOfNoise:
    """Rounded Gaussian noise for many uploads at once, a key each: row i is what `RoundedGaussian(keys[i])` draws.

    Short rows share passes, which is half of the time, and passes are long enough for threads to run side by side.
    """

    __slots__ = ("_rows",)

    def __init__(self, keys: Sequence[bytes | None]) -> None:
        """`keys`: as of `RoundedGaussian`."""
        self._rows = [RoundedGaussian(key) for key in keys]

    def __repr__(self) -> str:
        return f"RowsOfNoise(<{len(self._rows)} secret keys>)"

    def sample(self, y: ArrayLike, sigma: float) -> NDArray[np.int64]:
        """The next draws of every row, see `RoundedGaussian.sample`. `y`: (m, n), a row for each key."""
        centre, bar = _centred(y, sigma)
        if centre.ndim != 2 or len(centre) != len(self._rows):
            raise ValueError(f"{len(self._rows)} noise keys for an array of shape {centre.shape}: a row each")
        length, result = centre.shape[1], np.empty(centre.shape, dtype=np.int64)
        if length > _BLOCK:
            result[...] = [row.sample(values, sigma) for row, values in zip(self._rows, centre, strict=True)]
            return result
        together = max(1, _BLOCK // max(1, length))
        for start in range(0, len(centre), together):
            some = slice(start, start + together)
            _fill(self._rows[some], centre[some], sigma, bar, result[some].reshape(-1))
        return result


def _centred(y: ArrayLike, sigma: float) -> tuple[NDArray[np.float64], float]:
    """`y` as an array, and how near to an integer the float64 result decides nothing. Raises as `sample`."""
    centre = np.ascontiguousarray(y, dtype=np.float64)
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a finite number > 0, got {sigma!r}; without noise, round instead")
    reach = float(max(centre.max(initial=0.0), -centre.min(initial=0.0)))
    if not math.isfinite(reach):
        raise ValueError("y holds NaN or infinity")
    # x is known to X_ERROR, and three float64 operations follow on magnitudes of at most reach + 6σ + 1.
    bar = sigma * X_ERROR + (reach + 6 * sigma + 1) * 2.0**-50
    if bar >= 0.125:
        raise ValueError(f"max|y| = {reach:.3g} and sigma = {sigma:.3g} exceed float64's reach: use a coarser grid")
    return centre, bar


def _fill(
    rows: Sequence[RoundedGaussian], y: NDArray[np.float64], sigma: float, bar: float, out: NDArray[np.int64]
) -> None:
    """One pass: the next draws of each of `rows`, about its row of `y` (rows, n); `out` (rows · n,)."""
    length, y = y.shape[1], y.reshape(-1)
    octets = b"".join([row._octets(length) for row in rows])
    words = np.frombuffer(octets, dtype="<u8").astype(np.uint64, copy=False)
    magnitude = (words >> np.uint64(1)).view(np.int64)  # p·2^64, rounded down; the last bit is G's sign
    x = _tail_quantile(magnitude)
    # The sign bit on top of x: G = −x where it is 0, x where it is 1.
    x.view(np.uint64)[...] ^= (~words) << np.uint64(63)
    x *= sigma
    x += y
    x += 0.5
    floor = np.floor(x)
    out[...] = floor
    x -= floor
    x -= 0.5
    np.abs(x, out=x)
    undecided = x >= 0.5 - bar
    undecided |= magnitude < _MIN_WORD
    for i in np.flatnonzero(undecided).tolist():
        row, place = rows[i // length], i % length
        out[i] = row._refine(row._drawn - length + place, int(words[i]), float(y[i]), sigma)
