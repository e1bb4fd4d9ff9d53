"""Forgetting: what an adapter does to the zero-shot ability on classes that nobody trained.

Among the unseen classes alone, as base-to-new generalisation is measured (Zhou et al. 2022, arXiv 2203.05557, section
4.1), and among all of them, where trained classes draw images to themselves: generalised zero-shot learning (Xian et
al. 2018, arXiv 1707.00600, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hits:
    """How many test images have their own class nearest. ``among_unseen``: images of unseen classes, with those classes
    alone to choose from; ``unseen_among_all`` and ``seen_among_all``: with all classes, of either kind of image."""

    among_unseen: int
    unseen_among_all: int
    seen_among_all: int


@torch.no_grad()
def hits(
    seen: tuple[Tensor, Tensor], seen_labels: Tensor, unseen: tuple[Tensor, Tensor], unseen_labels: Tensor
) -> Hits:
    """Count right answers.

    Args:
        seen, unseen: embeddings float32 (classes, e) of the classes and (n, e) of their test images.
        seen_labels, unseen_labels: int64 (n,), the class of each image among its own kind.

    Ties count as wrong, so that a model that gives everything one embedding, or NaN, is right nowhere (but where there
    is one class to choose from).
    """
    classes = torch.cat([seen[0], unseen[0]])
    # one product for both questions: who is right among all is right among fewer, however it was rounded
    cosines, own = unseen[1] @ classes.T, unseen_labels + len(seen[0])
    return Hits(
        among_unseen=_right(cosines[:, len(seen[0]) :], unseen_labels),
        unseen_among_all=_right(cosines, own),
        seen_among_all=_right(seen[1] @ classes.T, seen_labels),
    )


def _right(cosines: Tensor, labels: Tensor) -> int:
    own = cosines.gather(1, labels[:, None])
    others = cosines.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
    return int((own > others).sum())
