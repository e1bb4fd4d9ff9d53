"""Which of many shares are wrong: a Shamir sharing is a Reed-Solomon code, and errors in it can be located.

m shares of threshold t determine their polynomials, and all that lie off them, as long as at most (m - t) / 2 of the
holders are wrong. Beyond that no decoding is unique, and nobody is named. Needed only where a round has met a liar.
Whether those that lie off were not made to look so by others is another question, see `recovery`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flora_protocols.shamir import Field, P, Raw, combine, decode


def misfits(points: Field, shares: Raw, threshold: int) -> NDArray[np.intp] | None:
    """The places of the wrong shares among those of one secret, ascending; None where they cannot be told.

    `points`: int64 (m,), distinct. `shares`: uint8 (m, 17), canonical. At most (m - threshold) / 2 places.
    """
    values, surplus = decode(shares), len(points) - threshold
    syndromes = _syndromes(points, values, surplus)
    wrong = np.zeros(len(points), np.bool_)
    for limb in np.flatnonzero(syndromes.any(0)):
        wrong |= _zeros(_locator(syndromes[:, limb].tolist()), points)
    if not 0 < wrong.sum() <= surplus // 2:
        return None
    # Whatever was located: these are the wrong ones exactly if all the others fit.
    _, sound = combine(points[None, ~wrong], shares[None, None, ~wrong], threshold)
    return np.flatnonzero(wrong) if sound.all() else None


def _syndromes(points: Field, values: Field, count: int) -> Field:
    """(count, limbs): sum of v_i · values_i · x_i^j for j < count, zero for every polynomial of degree < t.

    1 / v_i is the product of x_i - x_k over all k but i.
    """
    products = np.ones(len(points), np.int64)
    for point in points:
        products = products * np.where(points == point, 1, points - point) % P
    rows = np.array([pow(product, -1, P) for product in products.tolist()])[:, None] * values % P
    syndromes = np.empty((count, values.shape[1]), np.int64)
    for power in range(count):
        syndromes[power] = rows.sum(0) % P
        rows = rows * points[:, None] % P
    return syndromes


def _locator(syndromes: list[int]) -> list[int]:
    """The shortest recurrence 1, c_1, .. c_L of a sequence mod p (Massey, IEEE Trans. IT 1969): the product of
    1 - x_i z over the wrong points x_i, where those are few enough."""
    current, previous = [1], [1]
    length, gap, last = 0, 1, 1
    for at in range(len(syndromes)):
        window = syndromes[at - length : at + 1][::-1]
        error = sum(c * s for c, s in zip(current, window, strict=True)) % P
        if not error:
            gap += 1
            continue
        factor = error * pow(last, -1, P) % P
        shifted = [0] * gap + [factor * c for c in previous]
        longer = max(len(current), len(shifted))
        change = [c - s for c, s in zip(_padded(current, longer), _padded(shifted, longer), strict=True)]
        if 2 * length <= at:
            previous, last, gap, length = current, error, 1, at + 1 - length
        else:
            gap += 1
        current = [c % P for c in _padded(change, length + 1)[: length + 1]]
    return current


def _padded(polynomial: list[int], size: int) -> list[int]:
    return polynomial + [0] * (size - len(polynomial))


def _zeros(locator: list[int], points: Field) -> NDArray[np.bool_]:
    """For each point whether the locator vanishes at its inverse."""
    value = np.zeros(len(points), np.int64)
    for coefficient in locator:
        value = (value * points + coefficient) % P
    zeros: NDArray[np.bool_] = value == 0
    return zeros
