"""A data set: the clients' images, a public slice and test images that never overlap."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flora_secure.data.images import Images, content, image_digests
from flora_secure.data.skipped import Skipped


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 (n, H, W) or (n, H, W, 3), or encoded; labels int64 (n,), and their positions, int64 (n,), in the
    original called `origin`."""

    images: Images
    labels: np.ndarray
    origin: str
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def digests(self) -> set[bytes]:
        """What tells images apart by content, wherever they were stored: SHA-256 of pixels or encoded bytes."""
        return image_digests(self.images)


@dataclass(frozen=True, eq=False)
class Owners:
    """Whose each private image is: `of` int64 (n,), an index into `names`, the clients that the data set itself has."""

    names: tuple[str, ...]
    of: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three splits, the class names in the order of the labels, and prompt templates with `{}` for a name.

    `mirror`: a mirror image shows the same class (clothes do, digits do not). `owners`: whose the private images are,
    where the data set says so. `skipped`: what it holds beside, and why it is not used.
    """

    name: str
    private: Split
    public: Split
    test: Split
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    mirror: bool
    owners: Owners | None = None
    skipped: tuple[Skipped, ...] = ()

    @cached_property
    def data_hash(self) -> str:
        """SHA-256, hexadecimal, over shapes, images (pixels or the hashes of encoded files) and labels of the three
        splits and the class names."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for split in (self.private, self.public, self.test):
            line, data = content(split.images)
            digest.update(f"\n{line}\n".encode())
            digest.update(data)
            digest.update(np.ascontiguousarray(split.labels.astype("<i8")).data)
        return digest.hexdigest()
