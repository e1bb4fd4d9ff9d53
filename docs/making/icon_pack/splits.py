"""Who holds which image: public sets, clients, test images of the same studios, and studios that no client is of."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icon_pack.package import PUBLIC, Icon

LEAST = 8  # private images of a client
TEST_SHARE = 4  # one drawing in so many of a set is a test image, with all its variants
UNSEEN_AUTHORS = 26
MOST_SETS = 2  # of an author who may be unseen, so that most clients stay
NEAR = 4  # an image is near another where their distance is less than 1 in so many of the larger one's norm


@dataclass(frozen=True, eq=False)
class Pieces:
    """Places in the list of icons, int64, of each piece. `unseen_test`: those of `private` and `test` that test
    `unseen_authors`, who are no client's then. `dropped`: how many are left out, by reason."""

    public: NDArray[np.int64]
    private: NDArray[np.int64]
    test: NDArray[np.int64]
    unseen_test: NDArray[np.int64]
    unseen_authors: tuple[str, ...]
    dropped: dict[str, int]


def split(icons: list[Icon], images: np.ndarray) -> Pieces:
    """The pieces of `icons`, in the order of the package, with `images` uint8 (n, 28, 28)."""
    dropped = Counter[str]()
    role = np.array([_role(icon) for icon in icons])  # 0 public, 1 private, 2 test
    for same in _equal(images, role):
        if len({icons[place].label for place in same}) > 1:
            dropped["equal images of two classes"] += len(same)
            role[same] = -1
        else:
            dropped["equal images, all but one"] += len(same) - 1
            role[same[1:]] = -1
    sets = np.array([icon.of.prefix for icon in icons])
    for prefix in np.unique(sets):
        own = sets == prefix
        if prefix not in PUBLIC and (role[own] == 1).sum() < LEAST:
            dropped[f"of a set with less than {LEAST} private images"] += int((role[own] >= 0).sum())
            role[own] = -1
    authors = np.array([icon.of.author for icon in icons])
    public = {icon.of.author for icon, part in zip(icons, role, strict=True) if part == 0}
    works = Counter(
        author for author, _ in {(i.of.author, i.of.prefix) for i, p in zip(icons, role, strict=True) if p == 1}
    )
    few = [author for author, count in works.items() if count <= MOST_SETS and author not in public]
    unseen_authors = sorted(few, key=lambda name: hashlib.sha256(name.encode()).digest())[:UNSEEN_AUTHORS]
    unseen = np.isin(authors, unseen_authors)

    training, test = np.flatnonzero((role == 0) | (role == 1)), np.flatnonzero(role == 2)
    near = is_near(images[test], images[training])
    dropped["test images near one of training"] = int(near.sum())
    candidates = np.flatnonzero((role >= 1) & unseen)
    away = candidates[~is_near(images[candidates], images[training[~unseen[training]]])]
    return Pieces(
        np.flatnonzero(role == 0),
        np.flatnonzero(role == 1),
        test[~near],
        np.setdiff1d(away, test[near]),
        tuple(sorted(unseen_authors)),
        dict(dropped),
    )


def _role(icon: Icon) -> int:
    if icon.of.prefix in PUBLIC:
        return 0
    about = f"{icon.of.prefix}\n{icon.label}\n{icon.drawing}"
    return 2 if hashlib.sha256(about.encode()).digest()[0] % TEST_SHARE == 0 else 1


def _equal(images: np.ndarray, role: np.ndarray) -> list[list[int]]:
    """Groups of two or more equal images, public ones first in each, then private ones, then those of the test."""
    groups: dict[bytes, list[int]] = {}
    for place in np.argsort(role, kind="stable").tolist():
        groups.setdefault(images[place].tobytes(), []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def is_near(images: np.ndarray, others: np.ndarray) -> NDArray[np.bool_]:
    """Which of `images` uint8 (n, H, W) have one among `others`, or its mirror image, at a distance of less than a
    quarter of the larger one's norm. Whole numbers throughout, so the answer is the same on every machine."""
    found = np.zeros(len(images), bool)
    flat = images.reshape(len(images), -1).astype(np.float64)
    norms = (flat * flat).sum(1)
    for side in (others, others[:, :, ::-1]):
        against = side.reshape(len(side), -1).astype(np.float64)
        against_norms = (against * against).sum(1)
        for start in range(0, len(images), 1024):
            part = slice(start, start + 1024)
            products = flat[part] @ against.T
            distances = norms[part, None] + against_norms - 2 * products
            found[part] |= (distances * NEAR**2 < np.maximum(norms[part, None], against_norms)).any(1)
    return found
