"""The limit that masking runs against: the fastest AES-256 keystream of the installed ``cryptography``."""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .measure import Trial, cpu_medians

_TAG = 16


def keystream_seconds(size: int, repeats: int) -> float:
    """CPU seconds for ``size`` bytes of one key's keystream: the best of AES-CTR and AES-GCM of zeros, written over the
    same 128 KiB or 256 KiB again and again, nothing added to anything."""
    return min(cpu_medians(repeats, *trials(size)))


def trials(size: int) -> list[Trial]:
    """The candidates for the fastest, to be timed beside something else."""
    kinds = [_ctr, _gcm] if hasattr(AESGCM, "encrypt_into") else [_ctr]
    return [_blocks(kind, block, size) for kind in kinds for block in (1 << 17, 1 << 18)]


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
