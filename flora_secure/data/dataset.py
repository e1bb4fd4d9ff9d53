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

NAMED = 5


def printable(name: str) -> str:
    """`name` in one line that any terminal and any file in UTF-8 can take."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


@dataclass(frozen=True)
class Skipped:
    """`count` images (clients, classes: `reason` says which) left out for one reason; `names` of the first few."""

    reason: str
    count: int
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        """For people: "skipped 7: empty file (a.jpg, b.jpg, …)"."""
        more = ", …" if self.count > len(self.names) else ""
        return f"skipped {self.count:,}: {self.reason} ({', '.join(self.names)}{more})"


class SkipList:
    """Collects what a data set holds beside what is used, counted by reason, with a few names of each."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Counts one under `reason`, by a `name` for people: what is not printable, or no Unicode, is escaped."""
        self._names.setdefault(reason, []).append(printable(name))

    def told(self) -> str:
        """What a message adds about why so little is left: "; skipped …", or nothing."""
        return "".join(f"; {one.line}" for one in self.summary())

    def summary(self) -> tuple[Skipped, ...]:
        """What was left out, an entry a reason, in the order in which the reasons came up."""
        return tuple(Skipped(reason, len(all_), tuple(all_[:NAMED])) for reason, all_ in self._names.items())


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 (n, H, W) or (n, H, W, 3), or encoded; labels int64 (n,), and their positions, int64 (n,), in the
    original called `origin`. `captions`: one for each of the n, whose labels are then all 0."""

    images: Images
    labels: np.ndarray
    origin: str
    indices: np.ndarray
    captions: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.captions is not None and len(self.captions) != len(self.images):
            raise ValueError(f"{len(self.captions)} captions for {len(self.images)} images: one for each is needed")

    def __len__(self) -> int:
        return len(self.images)

    def at(self, places: NDArray[np.int64]) -> Split:
        """The part of this split at the int64 (m,) `places`, in that order; places may repeat."""
        captions = None if self.captions is None else tuple(self.captions[i] for i in places.tolist())
        return Split(images_at(self.images, places), self.labels[places], self.origin, self.indices[places], captions)

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
    """Whose each private image is: `of` int64 (n,), an index into `names`, the clients that the data set itself has."""

    names: tuple[str, ...]
    of: NDArray[np.int64] = field(repr=False)


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
    where the data set says so. `skipped`: what it holds beside, and why it is not used. `unseen`: classes that were set
    apart (`flora_secure.data.federation.set_apart`), of which nothing is in the rest.
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
    unseen: Unseen | None = None

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
        """SHA-256, hexadecimal, over shapes, images (pixels or the hashes of encoded files) and labels of the three
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
