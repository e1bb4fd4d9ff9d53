"""The adapter before round 1: what images of the public slice teach it, with their labels or without.

With labels it is fitted to them (`flora_secure.model.fitting`). Without, it trains itself: the class embeddings move so
that the frozen model's own predictions on public images carry more information about the
class: the mutual information H(mean prediction) - mean H(prediction) grows (Krause, Perona, Gomes 2010, "Discriminative
clustering by regularized information maximization"; Liang, Hu, Feng 2020, arXiv 2002.08546, section 3.2), under a
quadratic penalty that keeps the adapter near the frozen model. That helps where clusters of images are classes, and
hurts where they are something else; `flora_secure.engine.choices` tells which. No client's image enters, so that it
costs no privacy: where the budget leaves little signal, the clients need not spend it on what public images tell.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora_secure.model.factors import Factors
from flora_secure.model.fitting import fitted
from flora_secure.model.head import Head
from flora_secure.planning.sections import WarmStart

MOST = 2_000  # images; more of them gained nothing. This and those below: docs/learning.md, on public data alone
STEPS, RATE = 100, 0.3  # of the self-training
PENALTY = 0.1  # of |B|², beside the information in nats


def public_sample(count: int) -> NDArray[np.int64]:
    """Which of `count` public images are used, int64: all, or MOST drawn without repeats, the same in every run."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MOST])


def warm_start(kind: WarmStart, head: Head, factors: Factors, features: Tensor, labels: Tensor) -> Factors:
    """`factors` after a warm start of this `kind` on public images; as they are for "none", or without images.

    `features`: float32 (n, embed) of unit norm; `labels`: int64 (n,), which "images" does not read. No randomness.
    """
    if kind == "none":
        return factors
    return fitted(head, factors, features, labels) if kind == "labels" else self_trained(head, factors, features)


def self_trained(head: Head, factors: Factors, features: Tensor, steps: int = STEPS) -> Factors:
    """`factors` after `steps` gradient steps of B; as they are if there are no `features` (n, embed) or steps."""
    if len(features) == 0:
        return factors
    b = factors.b
    for _ in range(steps):
        b = b - RATE * gradient(head, dataclasses.replace(factors, b=b), features)
    return dataclasses.replace(factors, b=b)


def gradient(head: Head, factors: Factors, features: Tensor) -> Tensor:
    """Gradient with respect to B, float32 (r, embed), of PENALTY · |B|² less the mutual information."""
    u = head.scale * head.prompts @ factors.a  # (C, r)
    value = head.constant + u @ factors.b  # (C, e)
    norm = value.norm(dim=-1, keepdim=True)
    t = value / norm
    surprise = torch.log_softmax((head.logit_scale * t) @ features.T, dim=0)  # (C, n)
    p = surprise.exp()
    # d(mean H(p) - H(mean p))/dp is log(mean p) - log p, up to a constant, which softmax's derivative removes
    slope = p.mean(dim=1, keepdim=True).clamp(min=1e-9).log() - surprise
    g_logits = p * (slope - (p * slope).sum(dim=0)) / len(features)
    g_t = head.logit_scale * g_logits @ features
    g_value = (g_t - t * (t * g_t).sum(-1, keepdim=True)) / norm
    found: Tensor = u.T @ g_value + 2 * PENALTY * factors.b
    return found
