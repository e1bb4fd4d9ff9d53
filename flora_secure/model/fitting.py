"""The adapter of the text projection fitted to labelled images in one place: nobody's budget, no rounds.

What public labels give a run before its first round (`flora_secure.server.warm_start`), and what those who need no
federation would do (`flora_secure.engine.competitors`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.model.devices import batch_map
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


# Of a fit after which nothing follows: Adam's rate falls to 0 in a straight line, and the penalty is that of
# |s (B - B')|² of one of n images, s the scale of the adapter and B' where the fit begins. Chosen on public data alone,
# docs/learning.md: a penalty that is the same for ten images and for ten thousand forgets, of ten, what was known.
RATE_APART, STEPS_APART, PENALTY_APART = 0.05, 200, 1.0
_TOGETHER = 1 << 11  # images that are fitted as one batch, padding among them: they stay in a processor's cache
_LOGITS = 1 << 24  # in memory at a time: 64 MiB


def fitted_to_the_end(
    head: Head, factors: Factors, features: Tensor, labels: Tensor, steps: int = STEPS_APART
) -> Factors:
    """`factors` with the B that suits these images best, few or many, since no rounds follow that would go on from it.

    `factors`, `features` float32 (n, embed), `labels` int64 (n,) and `steps` as in `fitted`; no randomness.
    """
    if len(features) == 0:
        return factors
    ((_, b),) = fitted_apart(head, factors, features, labels, [torch.arange(len(features))], steps)
    return dataclasses.replace(factors, b=b[0])


def fitted_apart(
    head: Head, factors: Factors, features: Tensor, labels: Tensor, parts: Sequence[Tensor], steps: int = STEPS_APART
) -> Iterator[tuple[list[int], Tensor]]:
    """`fitted_to_the_end` to each of the `parts`, int64 indices of images, by themselves; all begin at `factors`.

    Yields which parts, and the B of each of them, float32 (m, r, embed), some parts at a time and in no order. Raises
    ValueError for a part without images.
    """
    sizes = [len(part) for part in parts]
    if min(sizes, default=1) == 0:
        raise ValueError(f"part {sizes.index(0)} has no images to be fitted to")

    def fit(members: list[int]) -> Tensor:
        longest = max(sizes[member] for member in members)
        where = torch.zeros(len(members), longest, dtype=torch.int64)
        weight = torch.zeros(len(members), longest)
        for row, member in enumerate(members):
            where[row, : sizes[member]] = parts[member]
            weight[row, : sizes[member]] = 1 / sizes[member]
        where, weight = where.to(features.device), weight.to(features.device)
        return _fit(head, factors, features[where], labels[where], weight, steps)

    groups = _groups(sizes)
    yield from zip(groups, batch_map(fit, groups, features.device), strict=True)


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Places of parts of similar sizes, the longest first, as many as fit together when filled up to the longest."""
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
    found = []
    while order:
        count = max(1, _TOGETHER // sizes[order[0]])
        found.append(order[:count])
        order = order[count:]
    return found


def _fit(head: Head, factors: Factors, features: Tensor, labels: Tensor, weight: Tensor, steps: int) -> Tensor:
    """B (m, r, embed) of m fits at once, which touch each other nowhere: Adam goes by single values, and the losses add
    up. Features (m, n, embed), labels and weights (m, n); weights are 1/n_i, and 0 on padding."""
    read, constant = head.prompts @ factors.a, head.constant
    penalty = (PENALTY_APART * weight.amax(dim=1))[:, None, None]
    # s B, whose length is that of what moves, whatever the scale s
    b = (head.scale * factors.b).expand(len(features), -1, -1).clone()
    begin = b.clone()
    optimiser = torch.optim.Adam([b], lr=RATE_APART)
    rows = max(1, _LOGITS // (len(features) * len(constant)))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE_APART * (1 - step / steps)
        value = constant + read @ b  # (m, C, e)
        norm = value.norm(dim=-1, keepdim=True)
        t = value / norm
        g_t = torch.zeros_like(t)
        for start in range(0, features.shape[1], rows):
            some = slice(start, start + rows)
            probability = torch.softmax((head.logit_scale * t) @ features[:, some].mT, dim=1)  # (m, C, n)
            own = labels[:, None, some]
            probability.scatter_add_(1, own, -torch.ones_like(own, dtype=probability.dtype))
            g_t += head.logit_scale * (probability * weight[:, None, some]) @ features[:, some]
        # t = V/|V|: only the part of the gradient that is orthogonal to t moves V
        g_value = (g_t - t * (t * g_t).sum(-1, keepdim=True)) / norm
        b.grad = read.mT @ g_value + 2 * penalty * (b - begin)
        optimiser.step()
    return b / head.scale
