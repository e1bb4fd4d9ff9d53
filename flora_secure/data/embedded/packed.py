"""The embedded images: pieces in LZMA, with a manifest of their hashes."""

from __future__ import annotations

import hashlib
import json
import lzma
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flora_secure.errors import DataError

MANIFEST = "manifest.json"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


@dataclass(frozen=True, eq=False)
class Piece:
    """Images uint8 (n, H, W), labels int64 (n,) and their positions, int64 (n,), in the original file `origin`.
    `columns` int64 (k, n): what else the pack says of each image."""

    images: np.ndarray
    labels: np.ndarray
    origin: str
    indices: np.ndarray
    columns: np.ndarray


def pack_piece(images: np.ndarray, labels: np.ndarray, *columns: np.ndarray) -> bytes:
    """The bytes of a piece's file, each of `columns` of values below 256; equal input gives equal bytes with the same
    liblzma."""
    plain = b"".join(part.astype(np.uint8).tobytes() for part in (images, labels, *columns))
    return lzma.compress(plain, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_FILTERS)


def read_pack(folder: Path) -> dict[str, Piece]:
    """All pieces of the pack in `folder`, by name.

    Raises DataError when the manifest or a piece is missing, or a file's SHA-256 is not the manifest's.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / MANIFEST}: {error}; reinstall flora-secure") from None
    entries = manifest["pieces"]
    with ThreadPoolExecutor() as pool:  # hashing and LZMA let other threads run
        return dict(zip(entries, pool.map(lambda entry: _read_piece(folder, entry), entries.values()), strict=True))


def _read_piece(folder: Path, entry: dict[str, Any]) -> Piece:
    path = folder / entry["file"]
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; reinstall flora-secure") from None
    if hashlib.sha256(packed).hexdigest() != entry["sha256"]:
        raise DataError(f"{path} is damaged: its SHA-256 is not the manifest's; reinstall flora-secure")
    start, stop = entry["range"]
    count, (height, width) = stop - start, entry["shape"]
    plain = np.frombuffer(lzma.decompress(packed), np.uint8)
    images = plain[: count * height * width].reshape(count, height, width)
    columns = plain[count * height * width :].reshape(-1, count).astype(np.int64)
    return Piece(images, columns[0], entry["origin"], np.arange(start, stop), columns[1:])
