"""A data set: the clients' images, a public slice and test images that never overlap.

Images have labels or captions. One with captions is a list of pairs: an image with five captions stands in it five
times, and its examples are the pairs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flora_secure.data.class_names import has_one_place
from flora_secure.data.images import EncodedImages, Images, content, image_digests, images_at
from flora_secure.data.notes import Skipped


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 (n, H, W) or (n, H, W, 3), or encoded; labels int64 (n,), and their positions, int64 (n,), in the
    original called `origin`. `captions`: one for each of the n, whose labels are then all 0. `sources`: of public
    images, int64 (n,): which of them are of one hand, such as a house style, and so more alike than others; None where
    nobody says it."""

    images: Images
    labels: np.ndarray
    origin: str
    indices: np.ndarray
    captions: tuple[str, ...] | None = field(default=None, repr=False)
    sources: NDArray[np.int64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.captions is not None and len(self.captions) != len(self.images):
            raise ValueError(f"{len(self.captions)} captions for {len(self.images)} images: one for each is needed")

    def __len__(self) -> int:
        return len(self.images)

    def at(self, places: NDArray[np.int64]) -> Split:
        """The part of this split at the int64 (m,) `places`, in that order; places may repeat."""
        captions = None if self.captions is None else tuple(self.captions[i] for i in places.tolist())
        images, labels, indices = images_at(self.images, places), self.labels[places], self.indices[places]
        sources = None if self.sources is None else self.sources[places]
        return Split(images, labels, self.origin, indices, captions, sources)

    def digests(self) -> set[bytes]:
        """What tells images apart by content, wherever they were stored: SHA-256 of pixels or encoded bytes."""
        return set(image_digests(self.images))

    @cached_property
    def distinct(self) -> tuple[Images, NDArray[np.int64]]:
        """Every image once, by content, in the order in which it first comes up, and which of them each of the n is,
        int64 (n,): the images that are embedded, and the image that each caption belongs to."""
        first: dict[bytes, int] = {}
        which = np.array([first.setdefault(key, len(first)) for key in image_digests(self.images)], np.int64)
        _, places = np.unique(which, return_index=True)
        return images_at(self.images, places.astype(np.int64)), which

    def name(self, place: int) -> str:
        """The name by which people are told of the image at `place`: its path, or its number in `origin`."""
        if isinstance(self.images, EncodedImages):
            return self.images.files[place].name
        return f"{self.origin}[{self.indices[place]}]"


@dataclass(frozen=True, eq=False)
class Owners:
    """Whose each private image is: `of` int64 (n,), an index into `names`, the clients that the data set itself has.
    `of_test`: the same of the test images, -1 for nobody's; None where the data set does not say it."""

    names: tuple[str, ...]
    of: NDArray[np.int64] = field(repr=False)
    of_test: NDArray[np.int64] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Unseen:
    """Classes that nothing of a run trains on, and their test images, labelled by places in `class_names`."""

    class_names: tuple[str, ...]
    test: Split = field(repr=False)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three splits, the class names in the order of the labels, and prompt templates with `{}` for a name; neither
    names nor templates where it is captioned.

    `mirror`: a mirror image shows the same class (clothes do, digits do not). `owners`: whose the private images are,
    where the data set says so. `skipped`: what it holds beside, and why it is not used. `warnings`: lines
    about what was guessed or looks wrong. `read`: how much its files hold, before anything is left out. `unseen`:
    classes that were set apart (`flora_secure.data.federation.set_apart`), of which nothing is in the rest.
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
    warnings: tuple[str, ...] = ()
    unseen: Unseen | None = None
    read: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for templates that have no place for the name, or braces beside it."""
        if bad := [template for template in self.templates if not has_one_place(template)]:
            raise ValueError(f"prompt template {bad[0]!r} needs one {{}} for the class's name")

    @property
    def captioned(self) -> bool:
        """Whether the images have captions in the place of labels."""
        return self.private.captions is not None

    @cached_property
    def data_hash(self) -> str:
        """What an interrupted run knows its data by. It says whether an image is among the clients', so it stands in
        the run's `state/` alone, which nobody is given.

        SHA-256, hexadecimal, over shapes, images (pixels or the hashes of encoded files) and labels of the three
        splits, the class names, and the captions and the unseen classes where there are any."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        splits = [self.private, self.public, self.test]
        if self.unseen is not None:
            digest.update(f"\nunseen {json.dumps(self.unseen.class_names)}".encode())
            splits.append(self.unseen.test)
        for split in splits:
            line, data = content(split.images)
            digest.update(f"\n{line}\n".encode())
            digest.update(data)
            digest.update(np.ascontiguousarray(split.labels.astype("<i8")).data)
            if split.captions is not None:
                digest.update(f"\ncaptions {json.dumps(split.captions)}".encode())
        return digest.hexdigest()
