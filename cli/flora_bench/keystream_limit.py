"""The limit that masking runs against: the fastest AES-256 keystream of the installed `cryptography`, and the same
with the additions that no masking can do without."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flora_bench.measure import Trial, medians

_TAG = 16


def keystream_seconds(size: int, repeats: int) -> float:
    """CPU seconds for `size` bytes of one key's keystream: the best of AES-CTR and AES-GCM of zeros, written over the
    same 128 KiB or 256 KiB again and again, nothing added to anything."""
    return min(medians(repeats, *trials(size)))


def trials(size: int) -> list[Trial]:
    """The candidates for the fastest, to be timed beside something else."""
    kinds = [_ctr, _gcm] if hasattr(AESGCM, "encrypt_into") else [_ctr]
    return [_blocks(kind, block, size) for kind in kinds for block in (1 << 17, 1 << 18)]


def adding_trials(size: int, streams: int, dtype: np.dtype[Any]) -> list[Trial]:
    """The `trials` of `streams` keystreams of `size` bytes, each block added in place to one that stays in the
    cache, as elements of `dtype`: nothing is derived, opened, checked, copied or sent."""
    kinds = [_ctr, _gcm] if hasattr(AESGCM, "encrypt_into") else [_ctr]
    return [_adding(kind, min(block, size), size, streams, dtype) for kind in kinds for block in (1 << 17, 1 << 18)]


def _adding(
    kind: Callable[[int], Callable[[int], object]], block: int, size: int, streams: int, dtype: np.dtype[Any]
) -> Trial:
    fill = kind(block)
    values, mask = (np.ones(block // dtype.itemsize, dtype) for _ in range(2))

    def act() -> None:
        for start in range(0, size, block):
            length = min(block, size - start)
            part, added = values[: length // dtype.itemsize], mask[: length // dtype.itemsize]
            for _ in range(streams):
                fill(length)
                np.add(part, added, part)

    return lambda: act


def _blocks(kind: Callable[[int], Callable[[int], object]], block: int, size: int) -> Trial:
    block = min(block, size)
    fill = kind(block)

    def act() -> None:
        for _ in range(size // block):
            fill(block)
        fill(size % block)

    return lambda: act


def _ctr(block: int) -> Callable[[int], object]:
    encryptor = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    zeros, out = memoryview(bytes(block)), memoryview(bytearray(block))
    return lambda size: encryptor.update_into(zeros[:size], out[:size])


def _gcm(block: int) -> Callable[[int], object]:
    cipher = AESGCM(os.urandom(32))
    zeros, out = memoryview(bytes(block)), memoryview(bytearray(block + _TAG))
    return lambda size: cipher.encrypt_into(bytes(12), zeros[:size], None, out[: size + _TAG])
