"""`sums/` in a run folder: what every round released, so that anybody can take the server's steps again.

    initial.npy        float16 (d,), the trained values that round 1 began with
    round-00001.npy    int32 (d',), the sum of the round's uploads read as an integer in [−2^(b−1), 2^(b−1)); with the
                       rotation's padding and the coordinates of adaptive clipping's count

A round without a sum has no file. The log's line has the SHA-256 of its round's file.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flora_secure.boundary.foreign import read_bytes
from flora_secure.errors import ForeignError, RunFolderError, first_line
from flora_secure.privacy.encoding import signed
from flora_secure.rounds.float16 import from_wire

FOLDER, INITIAL = "sums", "initial.npy"
_MOST = 1 << 31  # bytes of a file
_HEADER = 1 << 14  # bytes before an array, at most


def name_of(number: int) -> str:
    """The name of round `number`'s file."""
    return f"round-{number:05d}.npy"


def bytes_of_sum(total: NDArray[np.uint32], bits: int) -> bytes:
    """The file of a released sum, uint32 (d',) of values below 2^`bits`."""
    return _npy(signed(total, bits).astype("<i4"))


def bytes_of_adapter(broadcast: bytes) -> bytes:
    """The file of the trained values, from their float16 on the wire (`flora_secure.rounds.float16`)."""
    return _npy(np.frombuffer(broadcast, "<f2"))


def sum_of(raw: bytes, length: int, bits: int) -> NDArray[np.uint32]:
    """The inverse of `bytes_of_sum`. Raises `RunFolderError`, without the file's name, for other bytes."""
    if not 8 <= bits <= 32:
        raise RunFolderError(f"its round is of a ring of {bits} bits, and 8 to 32 are possible")
    values = _array(raw, "<i4")
    half = 1 << (bits - 1)
    if values.shape != (length,):
        raise RunFolderError(f"it has shape {values.shape}, and its round uploads {length} values")
    if len(values) and not -half <= int(values.min()) <= int(values.max()) < half:
        raise RunFolderError(f"it holds values that are none of a ring of {bits} bits")
    return (values.astype(np.int64) & (2 * half - 1)).astype(np.uint32)


def read_sum(folder: Path, number: int, sha256: str, length: int, bits: int) -> NDArray[np.uint32]:
    """Round `number`'s sum from a folder of sums, whose file the log knows by that hash. Raises `RunFolderError`,
    without the file's name, for another one."""
    raw = read(folder / name_of(number), length)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise RunFolderError(f"its SHA-256 is not that of the log, {sha256:.12}…")
    return sum_of(raw, length, bits)


def adapter_of(raw: bytes) -> NDArray[np.float32]:
    """The inverse of `bytes_of_adapter`: float32 (d,). Raises as `sum_of`."""
    values = _array(raw, "<f2")
    if values.ndim != 1 or not bool(np.isfinite(values).all()):
        raise RunFolderError("it is no list of finite numbers")
    return from_wire(values.tobytes(), len(values))


def read(path: Path, length: int | None) -> bytes:
    """The bytes of a file of `sums/`, of `length` values where that is known. Raises `RunFolderError`, without its
    name, where it cannot be read, or is larger than so many values are."""
    try:
        return read_bytes(path, _MOST if length is None else min(_MOST, 4 * length + _HEADER))
    except ForeignError as error:
        raise RunFolderError(f"it cannot be read: {error}") from None


def _npy(values: ArrayLike) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(values), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _array(raw: bytes, kind: str) -> NDArray[np.generic]:
    stream = io.BytesIO(raw)
    try:
        values: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # numpy raises several kinds for bytes that are not its own
        raise RunFolderError(f"it is no NumPy array: {first_line(error)}") from None
    if values.dtype != np.dtype(kind):
        raise RunFolderError(f"it holds {values.dtype}, not {np.dtype(kind)}")
    if stream.read(1):
        raise RunFolderError("bytes follow its array")
    return values
