"""Unit `example`: a client's upload is the sum of the clipped gradients of examples that it drew by secret coins.

DP-SGD (Abadi et al. 1607.00133, algorithm 1) over a federation: in a round every example enters its client's sum with
probability q, by a coin that nobody but the client sees, and each example's gradient is clipped to norm c by itself.
So one example moves the sum by at most c, whichever client holds it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, vmap

from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.planning.rules import Rule

CHUNK = 64  # examples whose gradients are in memory together, a thread
# Of the clip norm: what float64 may add to the distance between two neighbouring uploads, in the sums, the second clip
# and the rotation. A sum of k terms of norm c errs by less than k²·2^-53·c, so this is enough for MOST examples.
_MARGIN = 2.0**-20
MOST = 1 << 15


@dataclass(frozen=True)
class GradientSums:
    """What clients upload for unit `example`, a row a client.

    Attributes:
        sums: float64 (m, d), of the clipped gradients of the examples drawn.
        drawn: int64 (m,), how many these were.
        clipped: int64 (m,), how many of them were longer than the clip norm.
    """

    sums: NDArray[np.float64]
    drawn: NDArray[np.int64]
    clipped: NDArray[np.int64]


class ClientExamples:
    """Which images each client has, for gradients of single images."""

    def __init__(self, clients: Sequence[NDArray[np.int64]]) -> None:
        """Keep who holds what: `clients[i]` are the indices of client i's images, int64."""
        self.clients = list(clients)

    def draw(self, client: int, rate: float, key: bytes | None) -> NDArray[np.int64]:
        """Indices of the client's examples of a round, each with probability `rate` (never more, at most 2^-64 less).

        `key`: `None` for coins from the operating system; bytes for coins that follow from them, and are no secret.
        """
        own = self.clients[client]
        octets = os.urandom(8 * len(own)) if key is None else hashlib.shake_256(key).digest(8 * len(own))
        if rate == 1:
            return own
        return own[np.frombuffer(octets, "<u8") < np.uint64(int(rate * 2.0**64))]


def gradient_sums(
    gradients: Callable[[Sequence[NDArray[np.int64]]], Iterator[Tensor]],
    chosen: Sequence[NDArray[np.int64]],
    dimension: int,
    clip_norm: float,
) -> GradientSums:
    """For each client i the sum of the gradients of the examples `chosen[i]`, clipped one by one.

    `gradients` takes parts of the indices to float32 (n, `dimension`) for each part, in order; parts are filled up
    to CHUNK, so that no gradient's rounding depends on how many others were drawn. A gradient that is not finite counts
    as 0. Raises `ValueError` for more than MOST examples of a client.
    """
    if (most := max(map(len, chosen))) > MOST:
        raise ValueError(f"{most} examples of one client; the clipping's margin pays for {MOST}")
    owner = np.repeat(np.arange(len(chosen)), [len(indices) for indices in chosen])
    indices = np.concatenate(chosen)
    sums = np.zeros((len(chosen), dimension))
    clipped = np.zeros(len(chosen), np.int64)
    starts = range(0, len(indices), CHUNK)
    parts = [np.resize(indices[start : start + CHUNK], CHUNK) for start in starts]
    for start, found in zip(starts, gradients(parts), strict=True):
        owners = owner[start : start + CHUNK]
        rows, norms = clip_rows(found[: len(owners)].double(), clip_norm * (1 - _MARGIN))
        values = rows.cpu().numpy()
        np.add.at(clipped, owners, (norms > clip_norm).cpu().numpy())
        for client in np.unique(owners):
            sums[client] += values[owners == client].sum(0)
    return GradientSums(sums, np.array([len(indices) for indices in chosen], np.int64), clipped)


def example_gradients(head: Head, rule: Rule, factors: Factors, features: Tensor, labels: Tensor) -> Tensor:
    """Gradient of every example's own cross-entropy with respect to the trained values: float32 (n, d).

    `features` (n, embed), `labels` int64 (n,).
    """

    def loss(vector: Tensor, feature: Tensor, label: Tensor) -> Tensor:
        logits = head.logits(feature[None], factors.with_vector(rule, vector))
        return torch.nn.functional.cross_entropy(logits, label[None])

    gradients: Tensor = vmap(grad(loss), in_dims=(None, 0, 0))(factors.vector(rule), features, labels)
    return gradients


def clip_rows(gradients: Tensor, clip_norm: float) -> tuple[Tensor, Tensor]:
    """Each row of float64 (n, d) scaled down, if need be, to L2 norm `clip_norm`; and the norms (n,) before.

    The clipped norm exceeds `clip_norm` by at most rounding, (d + 4)·2^-53 of it. Rows that are not finite give 0: an
    example that made its client's sum NaN would take all of the client's other examples with it.
    """
    norms = gradients.norm(dim=1)
    shrink = (clip_norm / norms).clamp(max=1.0)
    return torch.where(norms.isfinite()[:, None], gradients * shrink[:, None], 0.0), norms
