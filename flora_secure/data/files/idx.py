"""IDX files, as MNIST and its kin come (http://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from flora_secure.boundary.foreign import read_bytes
from flora_secure.errors import DataError, ForeignError

_UINT8 = 0x08
_MOST_BYTES = 256 << 20  # of a file, and of what is in it; 60,000 images of 28 × 28 have 47 MB


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array stored in `path`, plain or gzip-compressed (told by its first bytes, not by its name).

    Raises DataError when the file cannot be read, is no IDX file of unsigned bytes with that many dimensions, or its
    length is not what the header promises.
    """
    header = 4 + 4 * dimensions
    try:
        raw = read_bytes(path, _MOST_BYTES)
        stream = gzip.GzipFile(fileobj=io.BytesIO(raw)) if raw[:2] == b"\x1f\x8b" else io.BytesIO(raw)
        raw = stream.read(header)
        # what is packed may be a thousand times as long as the file: no more is unpacked than the header promises
        promised = math.prod(struct.unpack(f">{dimensions}I", raw[4:])) if len(raw) == header else 0
        if promised <= _MOST_BYTES:
            raw += stream.read(promised + 1)
    except (ForeignError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    if len(raw) < header:
        raise DataError(f"{path} is cut short: {len(raw)} bytes, the IDX header alone takes {header}")
    magic = struct.unpack(">I", raw[:4])[0]
    if magic != (_UINT8 << 8 | dimensions):
        wanted = _UINT8 << 8 | dimensions
        raise DataError(
            f"{path} is no IDX file of {dimensions}-dimensional bytes: magic {magic:#010x}, not {wanted:#010x}"
        )
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    if promised > _MOST_BYTES:
        raise DataError(f"{path} promises {promised:,} bytes {shape}, and {_MOST_BYTES:,} are the most that are read")
    if len(raw) - header != promised:
        held = f"{len(raw) - header}" if len(raw) - header < promised else "more"
        raise DataError(f"{path} holds {held} bytes of data, its header promises {promised} {shape}")
    try:
        return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
    except ValueError:  # a side of none beside sides that no array has
        raise DataError(f"{path} promises an array {shape}, which there cannot be") from None
