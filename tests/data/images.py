"""Small image files for tests, in the encodings that people have."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A smooth uint8 (height, width, 3) picture, so that JPEG keeps it."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return np.asarray(Image.fromarray(corners).resize(size[::-1], Image.Resampling.BILINEAR))


def encoded(seed: int, kind: str = "JPEG", size: tuple[int, int] = (24, 32)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(seed, size)).save(stream, kind)
    return stream.getvalue()


def write(path: Path, seed: int, kind: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(seed, kind))
    return path


def die_at_150(number: int) -> int:
    """What a worker does that is killed in the middle of its work; nothing heavy is imported for it."""
    if number == 150:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
