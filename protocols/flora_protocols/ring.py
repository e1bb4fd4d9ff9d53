"""Vectors over Z_{2^b}, 8 <= b <= 32, and their packed form on the wire.

Arithmetic is done in *lanes*, the smallest unsigned type that holds b bits: 2^b divides the lane's modulus, so sums may
wrap there and are reduced once, at the end. On the wire, element i occupies bits i*b .. i*b + b - 1 of a little-endian
bit string, ceil(d*b/8) bytes, the padding zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flora_protocols.errors import MisuseError, ParameterError
from flora_protocols.ranges import whole

MIN_BITS, MAX_BITS = 8, 32
_WORD = np.dtype("<u8")
Lanes = NDArray[np.unsignedinteger[Any]]


def lane(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest little-endian unsigned dtype of at least `bits` bits, 8 .. 32 (otherwise ParameterError)."""
    whole("bits", bits, MIN_BITS, MAX_BITS)
    return np.dtype("<u1" if bits <= 8 else "<u2" if bits <= 16 else "<u4")


def packed_bytes(dimension: int, bits: int) -> int:
    """Bytes of `dimension` packed elements."""
    return (dimension * bits + 7) // 8


def require_headroom(clients: int, bound: int, bits: int) -> None:
    """ParameterError unless the sum of `clients` values in [-bound, bound] fits Z_{2^bits} without wrapping."""
    whole("bits", bits, MIN_BITS, MAX_BITS)
    for name, value, least in (("clients", clients, 1), ("bound", bound, 0)):
        whole(name, value, least, 1 << 64)
    if 2 * clients * bound >= 1 << bits:
        need = (2 * clients * bound).bit_length()
        raise ParameterError(
            f"overflow: {clients} clients with |x| <= {bound} sum to at most {clients * bound}, but {bits} bits hold "
            f"|sum| < {1 << (bits - 1)}; use bits >= {need}, or |x| <= {((1 << (bits - 1)) - 1) // clients}, "
            f"or at most {((1 << (bits - 1)) - 1) // max(bound, 1)} clients"
        )


def require_vector(vector: NDArray[np.uint32], dimension: int, bits: int) -> None:
    """MisuseError unless `vector` is a plain array, uint32, shape (dimension,), every element < 2^bits."""
    if not isinstance(vector, np.ndarray) or vector.dtype != np.uint32:
        got = getattr(vector, "dtype", type(vector).__name__)
        raise MisuseError(f"the vector must be a uint32 array, not {got}; round it and reduce it mod 2^{bits} first")
    if isinstance(vector, np.ma.MaskedArray):
        raise MisuseError("the vector must be a plain array, not a masked one; fill it first, as with vector.filled(0)")
    if vector.shape != (dimension,):
        raise MisuseError(f"the vector must have shape ({dimension},), not {vector.shape}; reshape or pad it")
    if bits < 32 and int(vector.max()) >> bits:
        raise MisuseError(f"the vector has elements that do not fit {bits} bits; reduce it mod 2^{bits} first")


def to_lanes(vector: NDArray[np.uint32], dimension: int, bits: int) -> Lanes:
    """A copy of `vector` in lanes; MisuseError as `require_vector`."""
    require_vector(vector, dimension, bits)
    return vector.astype(lane(bits))


def from_lanes(values: Lanes, bits: int) -> NDArray[np.uint32]:
    """Lanes reduced mod 2^bits, as uint32."""
    return values.astype(np.uint32) & np.uint32((1 << bits) - 1)


def pack(values: Lanes, bits: int) -> bytes:
    """`values` (d,), of dtype `lane(bits)`, reduced mod 2^bits and packed: `packed_bytes(d, bits)` bytes."""
    return packed_view(values, bits).tobytes()


def packed_view(values: Lanes, bits: int) -> NDArray[np.uint8]:
    """The bytes that `pack` gives; where a lane has just b bits, no copy but the memory of `values`.

    `values` must then be contiguous.
    """
    if values.dtype != lane(bits):
        raise MisuseError(f"values of {bits} bits have dtype {lane(bits)}, not {values.dtype}; see lane()")
    if bits == 8 * values.itemsize:
        return values.view(np.uint8)
    # Eight elements fill exactly `bits` bytes. Merge neighbours while they fit a 64-bit word, then lay the words out.
    count = (len(values) + 7) // 8
    words = np.zeros(8 * count, _WORD)
    words[: len(values)] = values
    words &= np.uint64((1 << bits) - 1)
    width = bits
    while 2 * width <= 64:
        words = words[::2] | words[1::2] << np.uint64(width)
        width *= 2
    table = words.reshape(count, -1)
    rows = np.zeros((count, (8 * bits + 63) // 64), _WORD)
    for column in range(table.shape[1]):
        at, shift = divmod(column * width, 64)
        rows[:, at] |= table[:, column] << np.uint64(shift)
        if shift + width > 64:
            rows[:, at + 1] |= table[:, column] >> np.uint64(64 - shift)
    return rows.view(np.uint8)[:, :bits].reshape(-1)[: packed_bytes(len(values), bits)]


def unpack(packed: bytes | memoryview, dimension: int, bits: int) -> Lanes | None:
    """The inverse of `pack`: lanes (dimension,), or None if the padding is not zero.

    The lanes may be the memory of `packed` itself.
    MisuseError unless `len(packed) == packed_bytes(dimension, bits)`.
    """
    whole("bits", bits, MIN_BITS, MAX_BITS)
    if len(packed) != packed_bytes(dimension, bits):
        raise MisuseError(f"{len(packed)} bytes; {dimension} values of {bits} bits are {packed_bytes(dimension, bits)}")
    if bits in (8, 16, 32):
        return np.frombuffer(packed, lane(bits))
    tail = dimension * bits % 8
    if tail and packed[-1] >> tail:
        return None
    count = (dimension + 7) // 8
    rows = np.zeros((count, (8 * bits + 63) // 64), _WORD)
    padded = np.frombuffer(bytes(packed).ljust(count * bits, b"\0"), np.uint8)
    rows.view(np.uint8)[:, :bits] = padded.reshape(count, bits)
    width = bits
    while 2 * width <= 64:
        width *= 2
    words = np.empty((count, 8 * bits // width), _WORD)
    for column in range(words.shape[1]):
        at, shift = divmod(column * width, 64)
        words[:, column] = rows[:, at] >> np.uint64(shift)
        if shift + width > 64:
            words[:, column] |= rows[:, at + 1] << np.uint64(64 - shift)
    values = words.reshape(-1)
    while width > bits:
        width //= 2
        halves = np.empty((len(values), 2), _WORD)
        halves[:, 0] = values
        halves[:, 1] = values >> np.uint64(width)
        values = halves.reshape(-1) & np.uint64((1 << width) - 1)
    return values[:dimension].astype(lane(bits))
