"""Which warm start: none, self-training on public images or a fit to their labels, judged by public images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flora_secure.engine.choices.public_folds import LEAST, PublicFolds
from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.planning.sections import WarmStart
from flora_secure.server.warm_start import warm_start


def labelled(labels: Tensor) -> bool:
    """Whether labels, int64 (n,), can judge anything: there are LEAST of them, and they are not all the same, as they
    are where a data set calls every public image by one name."""
    return len(labels) >= LEAST and bool((labels != labels[0]).any())


def candidates(folds: PublicFolds) -> tuple[WarmStart, ...]:
    """The warm starts that these folds can judge, from the least to the most that they interfere.

    A fit to labels of some classes alone would forget the others: "labels" is among them where all classes are left
    whichever fold is held out.
    """
    return ("none", "images", "labels") if folds.everywhere else ("none", "images")


def held_out(
    head: Head, fresh: Factors, features: Tensor, folds: PublicFolds, kinds: Sequence[WarmStart]
) -> Mapping[WarmStart, Tensor]:
    """Which public images each kind of warm start has right, bool (n,), from the images of the other folds.

    `features`: float32 (n, embed) of unit norm, of the images that were cut.
    """
    found = {kind: torch.empty_like(folds.labels, dtype=torch.bool) for kind in kinds}
    for fold in range(folds.count):
        test = folds.fold == fold
        x, y = features[~test], folds.labels[~test]
        for kind, right in found.items():
            started = warm_start(kind, head, fresh, x, y)
            right[test] = head.logits(features[test], started).argmax(1) == folds.labels[test]
    return found
