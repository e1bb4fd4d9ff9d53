"""Images of a split: pixels in one array, or encoded files that are decoded when features are made.

Large photographs of many sizes do not fit one array, and their features are all that a run needs, so such a split holds
where each image lies and the SHA-256 of its bytes.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EncodedFile:
    """An image as it lies on disk: the whole file `path`, or `size` bytes from `offset` of it (a member of a tar).

    `name` is what people are told, relative to the data root.
    """

    name: str
    path: Path
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The bytes of the file, undecoded. Raises `OSError` where they cannot be read."""
        try:
            regular = stat.S_ISREG(self.path.stat().st_mode)
        except ValueError:  # a path that no file can have: it holds a NUL
            regular = False
        if not regular:  # opening a pipe would wait for somebody to write
            raise OSError(errno.EINVAL, "not a regular file")
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read() if self.size is None else stream.read(self.size)


@dataclass(frozen=True)
class HeldImage:
    """An encoded image in memory, `data`. `name` is what people are told."""

    name: str
    data: bytes = field(repr=False)

    def read(self) -> bytes:
        """The bytes as they are held, encoded."""
        return self.data


ImageFile = EncodedFile | HeldImage


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Encoded images in order; `hashes` uint8 (n, 32) holds the SHA-256 of each one's bytes."""

    files: tuple[ImageFile, ...] = field(repr=False)
    hashes: NDArray[np.uint8] = field(repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def at(self, indices: NDArray[np.int64]) -> EncodedImages:
        """The images at the int64 (m,) positions `indices`, in that order, not decoded yet."""
        return EncodedImages(tuple(self.files[i] for i in indices), self.hashes[indices])


Images = np.ndarray | EncodedImages


def images_at(images: Images, indices: NDArray[np.int64]) -> Images:
    """The images at the int64 (m,) positions `indices`, in that order, of an array or of encoded ones."""
    return images.at(indices) if isinstance(images, EncodedImages) else images[indices]


def image_digests(images: Images) -> Iterator[bytes]:
    """What tells images apart by content: SHA-256 of each one's pixels, or of its encoded bytes."""
    if isinstance(images, EncodedImages):
        return (row.tobytes() for row in images.hashes)
    return (hashlib.sha256(image.tobytes()).digest() for image in images)


def content(images: Images) -> tuple[str, memoryview]:
    """What a hash over all images takes in: a line that says what they are, and their bytes (or their hashes)."""
    if isinstance(images, EncodedImages):
        return f"encoded {len(images)}", np.ascontiguousarray(images.hashes).data
    return f"{images.shape}", np.ascontiguousarray(images).data
