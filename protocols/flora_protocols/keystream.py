"""Masks: the AES-256 keystream of a 32-byte key, added to a vector in place.

The stream is cut into tiles of 128 KiB. Tile number i is the AES-256-CTR keystream whose first counter block is
i as 12 big-endian bytes followed by 00 00 00 02. That is also what AES-256-GCM (NIST SP 800-38D) makes of zeros under
the nonce i, tag dropped, so whichever of the two the machine runs faster may be used; both give the same bytes.

Tiles stay in the cache while every mask is added to them: that is worth a factor of four for long vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .ring import Lanes

TILE = 1 << 17
_SHORT = 1 << 15  # up to here GCM's cheap set-up wins, beyond it CTR's rate
_GROUP = 256  # streams open at once: bounds the memory of a server that removes many masks
_TAG = 16
_ZEROS = memoryview(bytes(TILE))

_Fill = Callable[[bytes, memoryview, memoryview], object]
"""Takes a tile's number as 12 bytes, zeros of its length, and a buffer 16 bytes longer, to whose front it writes."""


def _by_ctr(key: bytes) -> _Fill:
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def fill(tile: bytes, zeros: memoryview, out: memoryview) -> None:
        encryptor.reset_nonce(tile + b"\0\0\0\2")
        encryptor.update_into(zeros, out[:-_TAG])

    return fill


def _by_gcm(key: bytes) -> _Fill:
    encrypt_into = AESGCM(key).encrypt_into

    def fill(tile: bytes, zeros: memoryview, out: memoryview) -> None:
        encrypt_into(tile, zeros, None, out)

    return fill


def _gcm_works() -> bool:
    """Whether this build's GCM writes in place and gives CTR's bytes, also at odd lengths."""
    if not hasattr(AESGCM, "encrypt_into"):
        return False
    for size in (1, 15, 17, 4099):
        ours, theirs = bytearray(size + _TAG), bytearray(size + _TAG)
        _by_gcm(bytes(range(32)))(b"tile number!", _ZEROS[:size], memoryview(ours))
        _by_ctr(bytes(range(32)))(b"tile number!", _ZEROS[:size], memoryview(theirs))
        if ours[:size] != theirs[:size]:
            return False
    return True


_SHORT_STREAM = _by_gcm if _gcm_works() else _by_ctr


def apply_masks(values: Lanes, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    """Add the masks of the keys ``plus`` to ``values`` (d,) and subtract those of ``minus``, in place, wrapping."""
    opened = _SHORT_STREAM if values.nbytes <= _SHORT else _by_ctr
    scratch = memoryview(bytearray(min(values.nbytes, TILE) + _TAG))
    step = TILE // values.itemsize
    for keys, combine in ((plus, np.add), (minus, np.subtract)):
        for first in range(0, len(keys), _GROUP):
            streams = [opened(key) for key in keys[first : first + _GROUP]]
            for tile, start in enumerate(range(0, len(values), step)):
                part = values[start : start + step]
                out, zeros = scratch[: part.nbytes + _TAG], _ZEROS[: part.nbytes]
                mask, number = np.frombuffer(out, values.dtype, len(part)), tile.to_bytes(12, "big")
                for fill in streams:
                    fill(number, zeros, out)
                    combine(part, mask, out=part)
