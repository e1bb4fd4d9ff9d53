"""Masks: the AES-256 keystream of a 32-byte key, added to a vector, in place or a tile at a time.

The stream is cut into tiles of 128 KiB. Tile number i is the AES-256-CTR keystream whose first counter block is
i as 12 big-endian bytes followed by 00 00 00 02. That is also what AES-256-GCM (NIST SP 800-38D) makes of zeros under
the nonce i, tag dropped, so whichever of the two the machine runs faster may be used; both give the same bytes.

Tiles stay in the cache while every mask is added to them: that is worth a factor of four for long vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from flora_protocols.ring import Lanes

try:
    from numpy._core._multiarray_umath import __cpu_features__ as _processor  # type: ignore[import-not-found]
except ImportError:  # numpy does not promise it
    _processor = {}

TILE = 1 << 17
_SHORT = 1 << 15  # where GCM's rate is the lower one, up to here its cheap set-up wins, and beyond it CTR
_GROUP = 256  # streams open at once: bounds the memory of a server that removes many masks
_TAG = 16
_ZEROS = memoryview(bytes(TILE))
_FIRST = bytes(12)  # number of the first tile

_Fill = Callable[[bytes, memoryview, None, memoryview], object]
"""As `AESGCM.encrypt_into`: takes a tile's number as 12 bytes, zeros of the tile's length, no associated data, and a
buffer 16 bytes longer, to whose front it writes."""


def _by_ctr(key: bytes) -> _Fill:
    encryptor = Cipher(algorithms.AES(key), modes.CTR(_FIRST + b"\0\0\0\2")).encryptor()
    untouched = True

    def fill(tile: bytes, zeros: memoryview, _: None, out: memoryview) -> None:
        nonlocal untouched
        if not untouched or tile != _FIRST:
            encryptor.reset_nonce(tile + b"\0\0\0\2")
        untouched = False
        encryptor.update_into(zeros, out[:-_TAG])

    return fill


def _by_gcm(key: bytes) -> _Fill:
    return AESGCM(key).encrypt_into


def _gcm_works() -> bool:
    """Whether this build's GCM writes in place and gives CTR's bytes, also at odd lengths."""
    if not hasattr(AESGCM, "encrypt_into"):
        return False
    for size in (1, 15, 17, 4099):
        ours, theirs = bytearray(size + _TAG), bytearray(size + _TAG)
        _by_gcm(bytes(range(32)))(b"tile number!", _ZEROS[:size], None, memoryview(ours))
        _by_ctr(bytes(range(32)))(b"tile number!", _ZEROS[:size], None, memoryview(theirs))
        if ours[:size] != theirs[:size]:
            return False
    return True


def _gcm_is_fast() -> bool:
    """Whether GCM makes a long stream in less time than CTR. OpenSSL 4 makes 10 to 15 GB/s by GCM and 7 to 8 by CTR,
    but 3 GB/s and 6 on an x86 processor without AVX-512; OpenSSL 3 makes 5 to 6 by GCM."""
    # where numpy does not say, as on processors of another kind, the release decides
    return backend.openssl_version_number() >= 0x4000_0000 and _processor.get("AVX512_ICL", True)


_SHORT_STREAM = _by_gcm if _gcm_works() else _by_ctr
_LONG_STREAM = _SHORT_STREAM if _gcm_is_fast() else _by_ctr


def keystream(key: bytes, size: int) -> bytes:
    """The first `size` bytes of the stream of a 32-byte key."""
    fill, found = _opener(size)(key), memoryview(bytearray(size + _TAG))
    for tile, start in enumerate(range(0, size, TILE)):
        length = min(TILE, size - start)
        fill(tile.to_bytes(12, "big"), _ZEROS[:length], None, found[start : start + length + _TAG])
    return bytes(found[:size])


def apply_masks(values: Lanes, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    """Add the masks of the keys `plus` to `values` (d,) and subtract those of `minus`, in place, wrapping."""
    opened, scratch = _opener(values.nbytes), _scratch(values.nbytes)
    signed = [*((np.add, key) for key in plus), *((np.subtract, key) for key in minus)]
    for first in range(0, len(signed), _GROUP):
        streams = [(combine, opened(key)) for combine, key in signed[first : first + _GROUP]]
        for tile, start in enumerate(range(0, len(values), TILE // values.itemsize)):
            _mask(values[start : start + TILE // values.itemsize], tile, streams, scratch)


def masked_tiles(
    vector: NDArray[np.uint32], dtype: np.dtype[Any], plus: Sequence[bytes], minus: Sequence[bytes]
) -> Iterator[Lanes]:
    """`vector` (d,) as lanes of `dtype`, masked as by `apply_masks`, a tile at a time.

    A tile is valid until the next is asked for. The vector is left as it is, and no second one is made: for long
    vectors that takes as long as a mask. All streams are open at once, some 2 kB each.
    """
    size = len(vector) * dtype.itemsize
    opened, scratch = _opener(size), _scratch(size)
    streams = [*((np.add, opened(key)) for key in plus), *((np.subtract, opened(key)) for key in minus)]
    step = TILE // dtype.itemsize
    values = np.empty(min(len(vector), step), dtype)
    for tile, start in enumerate(range(0, len(vector), step)):
        part = values[: len(vector) - start]
        np.copyto(part, vector[start : start + step], casting="unsafe")
        _mask(part, tile, streams, scratch)
        yield part


def _opener(size: int) -> Callable[[bytes], _Fill]:
    """What opens the stream of a key for a vector of so many bytes."""
    return _SHORT_STREAM if size <= _SHORT else _LONG_STREAM


def _scratch(size: int) -> memoryview:
    return memoryview(bytearray(min(size, TILE) + _TAG))


def _mask(part: Lanes, tile: int, streams: Iterable[tuple[np.ufunc, _Fill]], scratch: memoryview) -> None:
    """Tile number `tile` of the `streams` combined with `part`, in place."""
    out, zeros, number = scratch[: part.nbytes + _TAG], _ZEROS[: part.nbytes], tile.to_bytes(12, "big")
    mask = np.frombuffer(out, part.dtype, len(part))
    for combine, fill in streams:
        fill(number, zeros, None, out)
        combine(part, mask, part)
