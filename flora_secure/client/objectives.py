"""What a client minimises: cross-entropy over class prompts, or contrast between its own images and captions."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


class Objective(Protocol):
    """A client's loss, a scalar. `text` and `images`: unit-norm embeddings; `target` int64 (n,), of each image;
    `weight` float32 (n,), its share of the loss, 0 where an image only fills the batch."""

    shares_text: bool  # every client has the same texts

    def __call__(self, text: Tensor, images: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """The loss; `text` is (classes, embed) where texts are shared, else (n, embed)."""
        ...


class ClassLabels:
    """Cross-entropy of the scaled similarities of images (n, embed) to the classes (C, embed). `target`: labels."""

    shares_text = True

    def __init__(self, logit_scale: float) -> None:
        self.logit_scale = logit_scale

    def __call__(self, text: Tensor, images: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        logits = self.logit_scale * images @ text.T
        return (weight * F.cross_entropy(logits, target, reduction="none")).sum()


class Pairs:
    """CLIP's symmetric contrast (Radford et al. 2021, arXiv 2103.00020, figure 3) within a client's pairs of image and
    caption. `target`: which image it is: another caption of the same image is no negative."""

    shares_text = False

    def __init__(self, logit_scale: float) -> None:
        self.logit_scale = logit_scale

    def __call__(self, text: Tensor, images: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        own = torch.eye(len(target), dtype=torch.bool, device=target.device)
        other = (target[:, None] != target) & (weight > 0)[:, None] & (weight > 0)
        logits = torch.where(own | other, self.logit_scale * images @ text.T, -torch.inf)
        rows = logits.logsumexp(1) + logits.logsumexp(0) - 2 * logits.diagonal()
        return (weight * rows).sum() / 2
