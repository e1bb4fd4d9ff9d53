"""Images that stand in a data set more than once: on two sides of a split, twice on one, or with two labels.

An image is its content, whatever its files are called. Nothing is left out because of it: which copy is right is for
people to say, and public sets are compared as they are. No image is named, since these lines are part of the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.images import EncodedImages, image_digests

_SIDES = {
    ("private", "test"): "accuracy counts what clients train on",
    ("public", "test"): "accuracy counts what the warm start and the control variate see",
    ("private", "public"): "what is public is not protected",
}


def with_overlaps(dataset: Dataset) -> Dataset:
    """The data set, with a warning for each way in which images stand in it more than once."""
    return replace(dataset, warnings=(*dataset.warnings, *_overlaps(dataset)))


def _overlaps(dataset: Dataset) -> Iterator[str]:
    splits = {name: getattr(dataset, name) for name in ("private", "public", "test")}
    digests = {name: [*image_digests(split.images)] for name, split in splits.items()}
    for (one, other), why in _SIDES.items():
        if count := len(set(digests[one]).intersection(digests[other])):
            yield f"{_images(count)} both {one} and {other}: {why}; keep one of the two"
    for name, split in splits.items():
        if copies := len({*zip(digests[name], _files(split), strict=True)}) - len(set(digests[name])):
            budget = ", and a budget for each example counts every copy as another" if name == "private" else ""
            yield f"{copies:,} of {len(split):,} {name} images are copies of others among them{budget}"
    labels: dict[bytes, set[int]] = {}
    for name, split in splits.items():
        for digest, label in zip(digests[name], split.labels.tolist(), strict=True):
            labels.setdefault(digest, set()).add(label)
    if count := sum(len(found) > 1 for found in labels.values()):
        yield f"{_images(count)} given with more than one label each"


def _files(split: Split) -> list[int] | list[str]:
    """What tells copies apart: where each lies. An image with several captions is one file, several times."""
    images = split.images
    if isinstance(images, EncodedImages) and split.captions is not None:
        return [file.name for file in images.files]
    return [*range(len(split))]


def _images(count: int) -> str:
    return f"{count:,} image is" if count == 1 else f"{count:,} images are"
