"""What the pretraining is told about an image: nouns, coarse kinds and five attributes measured from the pixels."""

from __future__ import annotations

import numpy as np

# The coarse kind of each Fashion-MNIST class: all that most public captions say.
KINDS = (
    "clothing",
    "clothing",
    "clothing",
    "clothing",
    "clothing",
    "footwear",
    "clothing",
    "footwear",
    "accessory",
    "footwear",
)
_OPENINGS = ("a photo of a", "a", "an image of a", "a picture of a")
_KEEP = 0.3  # probability that a caption mentions an attribute
_WORDS = (
    ("dark", "grey", "bright"),
    ("plain", "", "patterned"),
    ("wide", "", "tall"),
    ("slim", "", "large"),
    ("uneven", "", "symmetric"),
)


def attributes(images: np.ndarray) -> np.ndarray:
    """Five measured attributes of uint8 images (n, 28, 28), int64 (n, 5) of 0, 1, 2: indices into the words above.

    Brightness of the foreground, texture (mean gradient inside it), aspect of its bounding box, share of the picture it
    covers, left-right symmetry. The cut points are fixed numbers near the thirds of the public slice.
    """
    x = images.astype(np.float32) / 255
    mask = x > 0.08
    area = mask.sum((1, 2)).clip(1)
    light = (x * mask).sum((1, 2)) / area
    inside = mask[:, 1:, 1:] & mask[:, :-1, 1:] & mask[:, 1:, :-1]
    slope = abs(np.diff(x, axis=1))[:, :, 1:] + abs(np.diff(x, axis=2))[:, 1:, :]
    texture = (slope * inside).sum((1, 2)) / inside.sum((1, 2)).clip(1)
    aspect = (mask.any(2).sum(1) + 1) / (mask.any(1).sum(1) + 1)
    skew = abs(x - x[:, :, ::-1]).sum((1, 2)) / x.sum((1, 2)).clip(1e-3)
    cuts = ((0.45, 0.68), (0.14, 0.24), (0.8, 1.5), (0.3, 0.55), (0.5, 0.2))
    columns = []
    for value, (low, high) in zip((light, texture, aspect, area / 784, skew), cuts, strict=True):
        sign = 1 if low < high else -1
        columns.append((sign * value > sign * low).astype(np.int64) + (sign * value > sign * high))
    return np.stack(columns, 1)


def caption(noun: str, levels: np.ndarray, rng: np.random.Generator) -> str:
    """One caption: an opening, some of the attributes (each kept with p = 0.3), the noun."""
    words = [w[level] for w, level in zip(_WORDS, levels, strict=True) if rng.random() < _KEEP]
    return " ".join([_OPENINGS[int(rng.integers(len(_OPENINGS)))], *filter(None, words), noun])


def public_nouns(labels: np.ndarray, class_names: tuple[str, ...], fine: int, rng: np.random.Generator) -> list[str]:
    """The noun of each public image: its coarse kind, or its class for `fine` images, equally many of each class."""
    nouns = [KINDS[label] for label in labels]
    for c in range(len(class_names)):
        for i in rng.permutation(np.flatnonzero(labels == c))[: fine // len(class_names)]:
            nouns[i] = class_names[c]
    return nouns


_ICON_OPENINGS = ("an icon of a", "a", "a pictogram of a", "")


def icon_caption(noun: str, rng: np.random.Generator) -> str:
    """One caption of an icon: an opening and the noun, or the noun and what it is."""
    place = int(rng.integers(len(_ICON_OPENINGS) + 1))
    return f"a {noun} icon" if place == len(_ICON_OPENINGS) else f"{_ICON_OPENINGS[place]} {noun}".strip()
