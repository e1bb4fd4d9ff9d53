"""Shamir's secret sharing (CACM 1979) of 16-byte secrets, many at once, as matrix products.

A secret is eight limbs of 16 bits over the field of p = 2^16 + 1 elements; client i's share is the polynomials' value
at x = i + 1, the *global* roster index, so that one vector of Lagrange coefficients serves every secret that the same
clients hold. All products run in float64 BLAS and are exact: t * p^2 < 2^53 for every t this package allows.

On the wire a share is 17 bytes: the eight limbs mod 2^16, little-endian, and a byte whose bit l says that limb l is
2^16 (and its 16 bits are then zero).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flora_protocols.keys import SECRET, Randomness, draw

P = 65537
LIMBS = SECRET // 2
SHARE = SECRET + LIMBS // 8
_TOP = P - 1
_ONES = b"\xff" * 4

Field = NDArray[np.int64]
Raw = NDArray[np.uint8]


def split(secrets: bytes, given: tuple[int, ...], values: Field, points: tuple[int, ...]) -> Raw:
    """Shares of several secrets at some points, where those at others are given.

    `secrets`: m secrets of 16 bytes, joined. `given`: t - 1 distinct points in 1 .. p - 1; `values`: int64
    (t - 1, 8 m), uniform field elements, what the polynomials are there. `points`: others, distinct, too. Returns uint8
    of shape (len(points), m * 17); any t shares determine the secrets, fewer say nothing about them.
    """
    limbs = np.frombuffer(secrets, "<u2")
    known = np.vstack((limbs[None], values)).astype(np.float64)
    matrix = _interpolation((0, *given), points)
    results = (matrix @ known).astype(np.int64) % P
    return encode(results.reshape(len(points), -1, LIMBS)).reshape(len(points), -1)


def combine(points: Field, shares: Raw, threshold: int) -> tuple[Raw, NDArray[np.bool_]]:
    """Secrets from shares: g groups of q secrets each, whose m >= `threshold` shares are at the same m points.

    `points`: int64 (g, m), distinct in a row. `shares`: uint8 (g, q, m, 17), canonical. Returns the secrets, uint8
    (g, q, 16), and for each, (g, q), whether the shares beyond the threshold lie on its polynomial.
    """
    values = decode(shares)
    groups, secrets, _, limbs = values.shape
    base = values[:, :, :threshold].transpose(0, 2, 1, 3).reshape(groups, threshold, secrets * limbs)
    targets = np.concatenate((np.zeros((groups, 1), np.int64), points[:, threshold:]), axis=1)
    matrix = _lagrange(points[:, :threshold], targets)
    results = (matrix @ base.astype(np.float64)).astype(np.int64) % P
    results = results.reshape(groups, -1, secrets, limbs).transpose(0, 2, 1, 3)
    found, expected = results[:, :, 0], results[:, :, 1:]
    sound: NDArray[np.bool_] = (found < _TOP).all(-1) & (values[:, :, threshold:] == expected).all((-1, -2))
    return np.ascontiguousarray(found.astype("<u2")).view(np.uint8), sound


def encode(values: Field) -> Raw:
    """Field elements (..., 8) as shares (..., 17)."""
    raw = np.empty((*values.shape[:-1], SHARE), np.uint8)
    raw[..., :SECRET] = values.astype("<u2").view(np.uint8)  # 2^16 becomes zero
    raw[..., SECRET:] = np.packbits(values == _TOP, axis=-1, bitorder="little")
    return raw


def decode(raw: Raw) -> Field:
    """Canonical shares (..., 17) as field elements (..., 8)."""
    low = np.ascontiguousarray(raw[..., :SECRET]).view("<u2").astype(np.int64)
    top = np.unpackbits(raw[..., SECRET:], axis=-1, bitorder="little")
    return low + _TOP * top.astype(np.int64)


def canonical(raw: Raw) -> bool:
    """Whether every share (..., 17) is the encoding of field elements."""
    # almost always no limb is 2^16, and then nothing else can be wrong
    return not raw[..., SECRET:].any() or bool((decode(raw) <= _TOP).all())


def canonical_bytes(joined: bytes) -> bool:
    """Whether shares of 17 bytes, joined, are all canonical (`canonical`)."""
    return not any(joined[SECRET::SHARE]) or canonical(np.frombuffer(joined, np.uint8).reshape(-1, SHARE))


def uniform(count: int, sources: Iterable[Randomness]) -> Field:
    """Independent, exactly uniform field elements, `count` from each of the `sources`, int64 (sources, count)."""
    rows = []
    for randomness in sources:
        raw = draw(randomness, 4 * count)
        # p divides 2^32 - 1: without that one value, the remainder is uniform. Its bytes hardly ever stand anywhere
        while _ONES in raw and np.frombuffer(raw, "<u4").max() == 2**32 - 1:
            raw = draw(randomness, 4 * count)
        rows.append(raw)
    return np.frombuffer(b"".join(rows), "<u4").reshape(len(rows), count).astype(np.int64) % P


@lru_cache(maxsize=8)
def _interpolation(base: tuple[int, ...], targets: tuple[int, ...]) -> NDArray[np.float64]:
    """The matrix that turns values at `base` into those at `targets`, (targets, base)."""
    matrix: NDArray[np.float64] = _lagrange(np.array([base], np.int64), np.array([targets], np.int64))[0]
    return matrix


def _lagrange(base: Field, targets: Field) -> NDArray[np.float64]:
    """Matrices that turn values at the points `base` (g, t) into those at `targets` (g, r).

    Returns (g, r, t). The points of a row, base and targets, are distinct. Products and quotients are sums and
    differences of logarithms, whose modulus p - 1 is just that of uint16; and a difference d < 0, as an index, finds
    d + p.
    """
    logarithm, power = _logarithms()
    distances = logarithm[targets[:, :, None] - base[:, None, :]]
    gaps = logarithm[base[:, :, None] - base[:, None, :]].sum(2, np.uint16)  # the diagonal, log 0, counts as zero
    quotients: NDArray[np.float64] = power[distances.sum(2, np.uint16)[:, :, None] - distances - gaps[:, None, :]]
    return quotients


@lru_cache(maxsize=1)
def _logarithms() -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Discrete logarithms to base 3, which generates the field's units, of 1 .. p - 1 (0 stands for that of zero); and
    the powers 3^0 .. 3^(p - 2). Only public points are looked up."""
    power = np.ones(_TOP, np.int64)
    for step in range(16):
        half = 1 << step
        power[half : 2 * half] = power[:half] * pow(3, half, P) % P
    logarithm = np.zeros(P, np.uint16)
    logarithm[power] = np.arange(_TOP)
    return logarithm, power.astype(np.float64)
