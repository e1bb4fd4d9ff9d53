"""ML-KEM-768's encapsulation with chosen randomness (FIPS 203, algorithms 14 and 17), which `cryptography` does not
offer: so that the test vectors are the same at every call. Not for secrets: nothing here runs in constant time."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Poly = NDArray[np.int64]
Q, N, K = 3329, 256, 3
_ROOTS = [pow(17, 2 * int(f"{at:07b}"[::-1], 2) + 1, Q) for at in range(N // 2)]  # of the factors x^2 - root
_POWERS = np.array([[pow(root, power, Q) for power in range(N // 2)] for root in _ROOTS])
_INVERSE = np.array([[pow(root, -power, Q) for root in _ROOTS] for power in range(N // 2)]) * 3303 % Q


def encapsulate(public: bytes, message: bytes) -> tuple[bytes, bytes]:
    """The secret and the ciphertext, for the key `public` of 1184 bytes, that follow from 32 random bytes `message`."""
    grown = hashlib.sha3_512(message + hashlib.sha3_256(public).digest()).digest()
    secret, random = grown[:32], grown[32:]
    keys = [_unpacked(public[384 * at : 384 * (at + 1)], 12) for at in range(K)]
    seed = public[384 * K :]
    small = [_small(random, at) for at in range(2 * K + 1)]
    hidden = [_to_ntt(poly) for poly in small[:K]]
    parts = []
    for column in range(K):
        row = [_matrix(seed, row, column) for row in range(K)]
        parts.append((_from_ntt(_inner(row, hidden)) + small[K + column]) % Q)
    carried = _unpacked(message, 1) * ((Q + 1) // 2)
    last = (_from_ntt(_inner(keys, hidden)) + small[2 * K] + carried) % Q
    return secret, b"".join(_compressed(part, 10) for part in parts) + _compressed(last, 4)


def _to_ntt(poly: Poly) -> Poly:
    """What `poly` is modulo each x^2 - root, (128, 2)."""
    return _POWERS @ poly.reshape(-1, 2) % Q


def _from_ntt(residues: Poly) -> Poly:
    return (_INVERSE @ residues % Q).reshape(-1)


def _inner(one: list[Poly], other: list[Poly]) -> Poly:
    """The sum of products, all of them as residues."""
    roots, total = np.array(_ROOTS), np.zeros((N // 2, 2), np.int64)
    for a, b in zip(one, other, strict=True):
        a, b = a.reshape(-1, 2), b.reshape(-1, 2)
        total[:, 0] += (a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] % Q * roots) % Q
        total[:, 1] += (a[:, 0] * b[:, 1] + a[:, 1] * b[:, 0]) % Q
    return total % Q


def _matrix(seed: bytes, row: int, column: int) -> Poly:
    """An element of the public matrix's transpose, as residues; algorithm 7."""
    stream, found = hashlib.shake_128(seed + bytes((column, row))).digest(3 * 560), list[int]()
    for at in range(0, len(stream), 3):
        low, middle, high = stream[at : at + 3]
        found += [d for d in (low + 256 * (middle % 16), middle // 16 + 16 * high) if d < Q]
    return np.array(found[:N])


def _small(random: bytes, number: int) -> Poly:
    """Algorithm 8 with eta = 2, of the pseudorandom function's block of this number."""
    bits = _unpacked(hashlib.shake_256(random + bytes((number,))).digest(128), 1).reshape(-1, 4)
    return bits[:, 0] + bits[:, 1] - bits[:, 2] - bits[:, 3]


def _unpacked(raw: bytes, width: int) -> Poly:
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").reshape(-1, width)
    return bits.astype(np.int64) @ (1 << np.arange(width))


def _compressed(poly: Poly, width: int) -> bytes:
    values = (2 * (poly << width) + Q) // (2 * Q) % (1 << width)
    bits = (values[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()
