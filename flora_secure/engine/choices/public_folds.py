"""Public images cut into folds, so that a choice is judged by images that nothing of it has seen.

Where the data set says which public images are of one source, such as a house style, a source lies whole in one fold:
the clients' images are of other sources, and images of one source tell too well what others of it show.

A choice that interferes more has to win: it replaces one that interferes less where, over the images that were held
out, it is right more often by more than twice the standard error of that difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Value = TypeVar("Value")
FOLDS = 3
LEAST = 50  # images; on fewer a lead of several of them is chance
CLEAR = 2.0  # standard errors
_SMALLEST = 0.1  # of the images: folds of whole sources are no smaller


@dataclass(frozen=True, eq=False)
class PublicFolds:
    """Labelled public images, each in one of a few folds, the same in every run on them.

    Attributes:
        labels: int64 (n,).
        classes: how many there are, whether they have images or not.
        fold: int64 (n,), of each image, from 0.
        half: bool (n,), which of two halves of its fold.
    """

    labels: Tensor = field(repr=False)
    classes: int
    fold: Tensor = field(repr=False)
    half: Tensor = field(repr=False)

    @classmethod
    def cut(cls, labels: Tensor, sources: NDArray[np.int64] | None, classes: int) -> PublicFolds:
        """Folds of images with these `labels` and `sources`, int64 (n,) both.

        Where sources are None, where they are too few or too unequal to cut between them, and where such a cut would
        leave out all images of a class, every class is spread over the folds instead.
        """
        known = labels.cpu().numpy()
        if sources is not None:
            folds = cls._of(labels, classes, _whole(sources))
            sizes = torch.bincount(folds.fold)
            if len(sizes) > 1 and int(sizes.min()) >= _SMALLEST * len(known) and folds.everywhere:
                return folds
        return cls._of(labels, classes, _spread(known) % FOLDS)

    @classmethod
    def _of(cls, labels: Tensor, classes: int, fold: NDArray[np.int64]) -> PublicFolds:
        half = _spread(labels.cpu().numpy() * FOLDS + fold) % 2 == 1
        return cls(labels, classes, *(torch.from_numpy(part).to(labels.device) for part in (fold, half)))

    @property
    def count(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1

    @property
    def everywhere(self) -> bool:
        """Whether every class has an image outside of each fold."""
        left = [torch.bincount(self.labels[self.fold != fold], minlength=self.classes) for fold in range(self.count)]
        return all(int(counts.min()) > 0 for counts in left)

    def judging(self, seen: int) -> Tensor:
        """The images, bool (n,), that judge a federation which has seen fold `seen`: half of the others. Its clients
        hold the other half. No image judges twice; of three folds every image judges once."""
        return (self.fold != seen) & (((self.fold - seen) % self.count == 1) == self.half)


def leads(right: Tensor, other: Tensor) -> bool:
    """Whether one choice is clearly better than another that interferes less.

    `right`, `other`: bool (n,), which of the same held-out images each of the two has right.
    """
    lead = right.double() - other.double()
    return float(lead.mean()) > CLEAR * float(lead.std(unbiased=False)) / math.sqrt(len(lead))


def chosen(found: Mapping[Value, Tensor]) -> Value:
    """Which value: `found` holds what each has right, as `leads` takes it, from the least to the most that they
    interfere."""
    best, *others = found
    for value in others:
        if leads(found[value], found[best]):
            best = value
    return best


def share(right: Tensor) -> float:
    """The fraction of images that are right."""
    return float(right.double().mean())


def _spread(kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each image, so that its remainders spread every kind evenly; which image has which is drawn."""
    order = np.random.default_rng(0).permutation(len(kinds))
    order = order[np.argsort(kinds[order], kind="stable")]
    found = np.empty(len(kinds), np.int64)
    found[order] = np.arange(len(kinds))
    return found


def _whole(sources: NDArray[np.int64]) -> NDArray[np.int64]:
    """A fold of each image: whole sources, the largest first, each to the fold with the fewest images so far."""
    names, which, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    filled, of = np.zeros(min(FOLDS, len(names)), np.int64), np.empty(len(names), np.int64)
    for source in np.argsort(-sizes, kind="stable"):
        of[source] = filled.argmin()
        filled[of[source]] += sizes[source]
    return of[which]
