"""A control variate for local training: what a client's class frequencies alone make of its gradient.

Clients that hold different classes pull the class embeddings different ways, and much of that cancels in the sum. It
still fills the clip norm, and so costs signal. What the current model expects of an image of class c is known from
public images without labels: with p the model's own probabilities, D_c = E[(p - e_c) xᵀ | c] weights image x by p_c(x).
A client of n images with class frequencies π subtracts n/(n + HALF) · Σ_c (π_c - 1/C) D_c from its gradient: where
few images make the gradient's own chance error large, there is less to gain. Over clients of one size whose classes
are equally frequent in all these terms add up to nothing, over clients of many sizes nearly so; where the classes are
not, or go with the sizes, training runs roughly as if they were. SCAFFOLD
(Karimireddy et al. 2020, arXiv 1910.06378) takes such a term from clients' earlier gradients, which would cost budget;
this one reads public images, the broadcast adapter and the client's own labels, and the clip comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

HALF = 150  # images of which half is subtracted; chosen on public data alone, docs/learning.md
_MOST = 1 << 24  # values of a table, and of what is held on the way to one


@dataclass(frozen=True, eq=False)
class ControlVariate:
    """The control variate of labels on the text projection, from public images.

    Attributes:
        features: float32 (n, embed) of public images, of unit norm.
        weight: what it is multiplied by, above 0 and at most 1.
    """

    features: Tensor = field(repr=False)
    weight: float

    def at(self, text: Tensor, logit_scale: float, clients: int) -> ClassGradients:
        """What it is under the broadcast adapter, for a round of so many `clients`.

        `text` t: its unit-norm class embeddings (classes, embed).
        """
        probability = torch.softmax(logit_scale * self.features @ text.T, dim=1)
        found = ClassGradients(self.features, probability, self.weight * logit_scale)
        classes, width = text.shape
        return found.tabulated() if classes <= clients and classes**2 * width <= _MOST else found


@dataclass(frozen=True, eq=False)
class ClassGradients:
    """A control variate under one broadcast adapter.

    Attributes:
        features: x (n, embed), of the public images.
        probability: p (n, classes), of each class on them.
        scale: what the result is multiplied by.
        table: D of every class (classes, classes, embed); None where it was not made.
    """

    features: Tensor
    probability: Tensor
    scale: float
    table: Tensor | None = None

    @cached_property
    def _given(self) -> Tensor:
        """The weight of each image in the mean of each class, (n, classes)."""
        return self.probability / self.probability.sum(dim=0).clamp(min=1e-9)

    @cached_property
    def _means(self) -> Tensor:
        """The mean image of each class, (classes, embed)."""
        return self._given.T @ self.features

    def tabulated(self) -> ClassGradients:
        """The same with a table: less work where there are more clients than classes."""
        classes = self.probability.shape[1]
        return replace(self, table=self._mixed(torch.eye(classes, device=self.features.device)))

    def of(self, counts: Tensor) -> Tensor:
        """What clients subtract from their gradient with respect to t, float32 (m, classes, embed).

        `counts`: float32 (m, classes), a client's images of each class; at least one image a client.
        """
        images = counts.sum(dim=1, keepdim=True)
        excess = (counts / images - 1 / counts.shape[1]) * images / (images + HALF)
        mixed = self._mixed(excess) if self.table is None else torch.tensordot(excess, self.table, dims=1)
        return self.scale * mixed

    def _mixed(self, rows: Tensor) -> Tensor:
        """Σ_c rows[:, c] D_c, (m, classes, embed), linear in `rows` (m, classes)."""
        parts = []
        for part in torch.split(rows, max(1, _MOST // max(1, self.probability.numel()))):
            weighted = (part @ self._given.T).unsqueeze(1) * self.probability.T  # (k, C, n)
            parts.append(weighted @ self.features - part.unsqueeze(-1) * self._means)
        return torch.cat(parts)
