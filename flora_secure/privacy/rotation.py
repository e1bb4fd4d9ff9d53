"""Randomized Hadamard rotation: spreads any update evenly over the coordinates, with proof (docs/privacy/rotation.md).

R·x = H·D·x/√d': x padded with zeros to d' coordinates, D random signs, H a Hadamard matrix (entries ±1, orthogonal
rows) of order d' = m·2^k, m one of 1, 12 and 20: Paley's matrix of order m ⊗ Sylvester's of order 2^k. R is orthogonal,
so norms, noise and privacy stay as they are; only the ring needs fewer bits. The signs are public, new in every round.
"""

from __future__ import annotations

import functools
import hashlib
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LABEL = b"flora-secure rotation 1"
_PALEY = (12, 20)  # q + 1 for the primes q = 11, 19, both 3 mod 4: at most a third of padding, mostly far less
SMALLEST = (1, *_PALEY)  # orders, of which all others are 2^k times one


def padded(dimension: int) -> int:
    """The rotated length d': the least order m·2^k at hand that is at least `dimension` >= 1."""
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1, got {dimension}")
    return min(m << (-(-dimension // m) - 1).bit_length() for m in SMALLEST)


class Rotation:
    """The rotation of one round.

    Args:
        dimension: d >= 1, coordinates of an update.
        seed: of the run, 0..2^128 − 1, public. The proof takes the round's signs to be independent of its updates:
            nothing else may be derived from them, and a client that suits its update to them can make the sum wrap.
        round_number: >= 1.

    Signs: SHAKE-256 of a label, the seed and the round (16 and 8 bytes, big-endian), least significant bit first; 1 is
    minus. The same on every platform.
    """

    def __init__(self, dimension: int, seed: int, round_number: int) -> None:
        self.dimension = dimension
        self.length = padded(dimension)
        if not 0 <= seed < 1 << 128 or round_number < 1:
            raise ValueError(f"seeds are 0..2^128 − 1 and rounds start at 1, got {seed} and {round_number}")
        message = _LABEL + seed.to_bytes(16, "big") + round_number.to_bytes(8, "big")
        octets = hashlib.shake_256(message).digest(-(-dimension // 8))
        bits = np.unpackbits(np.frombuffer(octets, np.uint8), count=dimension, bitorder="little")
        self._signs = (1.0 - 2.0 * bits) / math.sqrt(self.length)

    def forward(self, update: ArrayLike) -> NDArray[np.float64]:
        """(…, d) → (…, d') float64, each vector by itself. Rounding may lengthen it by some 1e-15 of itself: clip
        afterwards."""
        given = np.asarray(update)
        x = np.zeros((*given.shape[:-1], self.length))
        np.multiply(given, self._signs, out=x[..., : self.dimension])
        return hadamard_transform(x)

    def inverse(self, rotated: ArrayLike) -> NDArray[np.float64]:
        """(d',) → (d,) float64: `inverse(forward(x))` is x up to rounding."""
        x = np.asarray(rotated, dtype=np.float64)
        if x.shape != (self.length,):
            raise ValueError(f"a rotated vector has shape ({self.length},), got {x.shape}")
        return hadamard_transform(x, transpose=True)[: self.dimension] * self._signs


def hadamard_transform(x: NDArray[np.float64], *, transpose: bool = False) -> NDArray[np.float64]:
    """H·x or Hᵀ·x without a scale, for (…, d') float64 with d' an order that `padded` returns.

    Additions and subtractions only, in a fixed order: the same float64 on every platform, alone or among others.
    """
    shape, size = x.shape, x.shape[-1]
    small = next(m for m in SMALLEST if size % m == 0 and (size // m).bit_count() == 1)
    x = _sylvester(x.reshape(-1, size // small))
    if small == 1:
        return x.reshape(shape)
    signs = _paley(small).T if transpose else _paley(small)
    x = x.reshape(-1, small, size // small)
    mixed = np.zeros_like(x)
    for place, row in enumerate(signs.tolist()):
        for other, sign in enumerate(row):
            (np.add if sign > 0 else np.subtract)(mixed[:, place], x[:, other], out=mixed[:, place])
    return mixed.reshape(shape)


def _sylvester(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every row of (m, 2^k) times Sylvester's matrix, S[i, j] = (−1)^popcount(i & j).

    S = (P·(I ⊗ S₂))^k with the permutation P that puts sums first and differences second (Pease, J. ACM 15, 1968): k
    equal passes over long stretches of memory.
    """
    half = x.shape[1] // 2
    here, there = x.copy(), np.empty_like(x)
    for _ in range(half.bit_length()):
        even, odd = here[:, 0::2], here[:, 1::2]
        np.add(even, odd, out=there[:, :half])
        np.subtract(even, odd, out=there[:, half:])
        here, there = there, here
    return here


@functools.cache
def _paley(order: int) -> NDArray[np.int64]:
    """Paley's first construction for a prime q = order − 1, 3 mod 4 (J. Math. Phys. 12, 1933)."""
    q = order - 1
    squares = {i * i % q for i in range(1, q)}
    chi = np.array([0, *(1 if i in squares else -1 for i in range(1, q))])
    found = np.ones((order, order), dtype=np.int64)
    found[1:, 1:] = chi[(np.arange(q)[:, None] - np.arange(q)) % q] + np.eye(q, dtype=np.int64)
    found[1:, 0] = -1
    found[0, 0] = 1
    return found
