"""The adapter of the text projection fitted to labelled images in one place: nobody's budget, no rounds.

What public labels give a run before its first round (`flora_secure.server.warm_start`), and what those who need no
federation would do (`flora_secure.engine.competitors`).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.model.factors import Factors
from flora_secure.model.head import Head

RATE, STEPS = 0.02, 100  # of Adam, over all images at once; chosen on public data alone, docs/learning.md
PENALTY = 3e-4  # of |B|², beside the cross-entropy in nats


def fitted(head: Head, factors: Factors, features: Tensor, labels: Tensor, steps: int = STEPS) -> Factors:
    """`factors` with B after so many steps of Adam (Kingma, Ba 2014, arXiv 1412.6980) on the mean cross-entropy.

    Args:
        head: the frozen part, whose logit scale the loss has.
        factors: where the fit begins; A stays.
        features: float32 (n, embed) of unit norm.
        labels: int64 (n,), places among the head's classes.
        steps: 0 or more, each over all images.

    No randomness. Without images `factors` come back as they are.
    """
    if len(features) == 0:
        return factors
    b = factors.b.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([b], lr=RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        logits = head.logits(features, dataclasses.replace(factors, b=b))
        loss = F.cross_entropy(logits, labels) + PENALTY * b.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return dataclasses.replace(factors, b=b.detach())
