"""IDX files, as MNIST and its kin come (http://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from flora_secure.errors import DataError

_UINT8 = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array stored in `path`, plain or gzip-compressed (told by its first bytes, not by its name).

    Raises DataError when the file cannot be read, is no IDX file of unsigned bytes with that many dimensions, or its
    length is not what the header promises.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    header = 4 + 4 * dimensions
    if len(raw) < header:
        raise DataError(f"{path} is cut short: {len(raw)} bytes, the IDX header alone takes {header}")
    magic = struct.unpack(">I", raw[:4])[0]
    if magic != (_UINT8 << 8 | dimensions):
        wanted = _UINT8 << 8 | dimensions
        raise DataError(
            f"{path} is no IDX file of {dimensions}-dimensional bytes: magic {magic:#010x}, not {wanted:#010x}"
        )
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise DataError(
            f"{path} holds {len(raw) - header} bytes of data, its header promises {math.prod(shape)} {shape}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
