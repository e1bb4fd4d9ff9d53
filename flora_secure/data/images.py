"""Images of a split: pixels in one array, or encoded files that are decoded when features are made.

Large photographs of many sizes do not fit one array, and their features are all that a run needs, so such a split holds
where each image lies and the SHA-256 of its bytes.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flora_secure.boundary.foreign import read_bytes
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.errors import ForeignError

MOST_BYTES = 512 << 20  # of an encoded image; 100 million pixels of 32 bits fit in


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
            size = self.path.stat().st_size if self.size is None else self.size
            if size > MOST_BYTES:
                raise OSError(errno.EFBIG, f"more than {MOST_BYTES >> 20} MiB")
            return read_bytes(self.path, MOST_BYTES, start=self.offset, length=self.size)
        except ValueError:  # a path that no file can have: it holds a NUL
            raise OSError(errno.EINVAL, "no file can have such a name") from None
        except ForeignError as error:
            raise OSError(errno.EINVAL, str(error)) from None


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
    """Encoded images in order; `hashes` uint8 (n, 32) holds the SHA-256 of each one's bytes, `rendering` how their
    values are shown."""

    files: tuple[ImageFile, ...] = field(repr=False)
    hashes: NDArray[np.uint8] = field(repr=False)
    rendering: Rendering = PLAIN

    def __len__(self) -> int:
        return len(self.files)

    def at(self, indices: NDArray[np.int64]) -> EncodedImages:
        """The images at the int64 (m,) positions `indices`, in that order, not decoded yet."""
        return EncodedImages(tuple(self.files[i] for i in indices), self.hashes[indices], self.rendering)


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
        shown = "" if images.rendering == PLAIN else f" {images.rendering}"
        return f"encoded {len(images)}{shown}", np.ascontiguousarray(images.hashes).data
    return f"{images.shape}", np.ascontiguousarray(images).data
