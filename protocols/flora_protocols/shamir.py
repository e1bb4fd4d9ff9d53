"""Shamir's secret sharing (CACM 1979) of 16-byte secrets, many at once, as matrix products.

A secret is eight limbs of 16 bits over the field of p = 2^16 + 1 elements; client i's share is the polynomials' value
at x = i + 1, the *global* roster index, so that one vector of Lagrange coefficients serves every secret that the same
clients hold. All products run in float64 BLAS and are exact: t * p^2 < 2^53 for every t this package allows.

On the wire a share is 17 bytes: the eight limbs mod 2^16, little-endian, and a byte whose bit l says that limb l is
2^16 (and its 16 bits are then zero).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .keys import SECRET, Randomness, draw

P = 65537
LIMBS = SECRET // 2
SHARE = SECRET + LIMBS // 8
_TOP = P - 1

Field = NDArray[np.int64]
Raw = NDArray[np.uint8]


def split(secrets: bytes, points: tuple[int, ...], threshold: int, randomness: Randomness) -> Raw:
    """Shares of several secrets at the given points.

    ``secrets``: m secrets of 16 bytes, joined. ``points``: distinct, in 1 .. p - 1. Returns uint8 of shape
    (len(points), m * 17); any ``threshold`` rows determine the secrets, fewer say nothing about them.
    """
    count = len(secrets) // SECRET
    limbs = np.frombuffer(secrets, "<u2").astype(np.float64)
    coefficients = np.vstack((limbs, _uniform((threshold - 1) * len(limbs), randomness).reshape(-1, len(limbs))))
    values = (_vandermonde(points, threshold) @ coefficients).astype(np.int64) % P
    return encode(values.reshape(len(points), count, LIMBS)).reshape(len(points), count * SHARE)


def combine(points: tuple[int, ...], shares: Raw, threshold: int) -> tuple[Raw, NDArray[np.bool_]]:
    """Secrets from shares.

    ``points``: at least ``threshold`` distinct points. ``shares``: uint8 (m, len(points), 17), canonical. Returns the m
    secrets, uint8 (m, 16), and for each whether the shares beyond the threshold lie on its polynomial.
    """
    values = decode(shares)
    base = values[:, :threshold].transpose(1, 0, 2).reshape(threshold, -1).astype(np.float64)
    matrix = _lagrange(points[:threshold], (0, *points[threshold:]))
    results = (matrix.astype(np.float64) @ base).astype(np.int64) % P
    limbs, *surplus = results.reshape(len(matrix), len(shares), LIMBS)
    sound: NDArray[np.bool_] = np.all(limbs < _TOP, axis=1)
    for row, expected in enumerate(surplus, start=threshold):
        sound &= np.all(values[:, row] == expected, axis=1)
    return np.ascontiguousarray(limbs.astype("<u2")).view(np.uint8), sound


def encode(values: Field) -> Raw:
    """Field elements (..., 8) as shares (..., 17)."""
    top = values == _TOP
    low = np.where(top, 0, values).astype("<u2").view(np.uint8)
    return np.concatenate((low, np.packbits(top, axis=-1, bitorder="little")), axis=-1)


def decode(raw: Raw) -> Field:
    """Canonical shares (..., 17) as field elements (..., 8)."""
    low = np.ascontiguousarray(raw[..., :SECRET]).view("<u2").astype(np.int64)
    top = np.unpackbits(raw[..., SECRET:], axis=-1, bitorder="little")
    return low + _TOP * top.astype(np.int64)


def canonical(raw: Raw) -> bool:
    """Whether every share (..., 17) is the encoding of field elements."""
    return bool((decode(raw) <= _TOP).all())


def canonical_bytes(joined: bytes) -> bool:
    """As ``canonical``, for shares of 17 bytes joined."""
    return canonical(np.frombuffer(joined, np.uint8).reshape(-1, SHARE))


def _uniform(count: int, randomness: Randomness) -> NDArray[np.float64]:
    """``count`` independent, exactly uniform field elements."""
    while True:
        words = np.frombuffer(draw(randomness, 4 * count), "<u4")
        if not (words == 2**32 - 1).any():  # p divides 2^32 - 1: without that one value, the remainder is uniform
            return (words % P).astype(np.float64)


@lru_cache(maxsize=8)
def _vandermonde(points: tuple[int, ...], threshold: int) -> NDArray[np.float64]:
    """Row per point: x^0 .. x^(threshold - 1) mod p."""
    x = np.array(points, np.int64)
    powers = np.ones((threshold, len(points)), np.int64)
    for degree in range(1, threshold):
        powers[degree] = powers[degree - 1] * x % P
    return np.ascontiguousarray(powers.T, np.float64)


def _lagrange(base: tuple[int, ...], targets: tuple[int, ...]) -> Field:
    """Row per target: coefficients that turn values at ``base`` into the value there. No target is in ``base``."""
    x = np.array(base, np.int64)
    gaps = (x[:, None] - x[None, :]) % P
    np.fill_diagonal(gaps, 1)
    distances = (np.array(targets, np.int64)[:, None] - x[None, :]) % P
    denominators = distances * _product(gaps)[None, :] % P
    return _product(distances)[:, None] * _inverse(denominators) % P


def _product(rows: Field) -> Field:
    """The product of each row mod p, by halves."""
    while rows.shape[1] > 1:
        if rows.shape[1] % 2:
            rows = np.column_stack((rows, np.ones(len(rows), np.int64)))
        rows = rows[:, ::2] * rows[:, 1::2] % P
    return rows[:, 0]


def _inverse(values: Field) -> Field:
    """1 / values mod p by Fermat: the exponent p - 2 is sixteen ones."""
    result, power = values, values
    for _ in range(15):
        power = power * power % P
        result = result * power % P
    return result
