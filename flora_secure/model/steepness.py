"""How steeply the embeddings follow a trained value, so that rate, clip norm and server step mean the same anywhere.

On the text projection with the prompts' basis a trained value is in units of a class embedding's length
(`flora_secure.model.head.Head`). Elsewhere that follows from the tower's Jacobian J with respect to B, at the fresh
adapter, on public inputs: the tower's matrices get the gain at which J's largest singular value is 1, as it is there,
so that a gradient step moves the embeddings as far. Noise moves them by J's Frobenius norm, which is much less where J
is steep in few directions.

One gain a tower: with one for each matrix, those that hardly matter (the first block's query) get gains of thousands,
and what is a step for the others throws them far out of the range where the Jacobian holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flora_secure.model.factors import Factors
from flora_secure.model.towers import Projected, Through, pullback, pushforward

PROBES, ITERATIONS = 8, 20


@dataclass(frozen=True)
class Steepness:
    """How far a tower's trained values move its embeddings.

    Attributes:
        gain: what A B is to be multiplied by, so that the largest singular value is 1.
        width: so many values of a text projection move the embeddings as much as the tower's do, for one class.
    """

    gain: float
    width: float


def steepness(tower: Projected | Through, inputs: Tensor, factors: Factors, classes: int) -> Steepness:
    """Measures how steep a tower is whose gains are 1 yet, at `factors`.

    `inputs` (n, …) stand for `classes` embeddings, whatever their number: what counts is the mean over them. The probes
    are drawn from a fixed seed, so that the answer repeats.
    """

    def outputs(b: Tensor) -> Tensor:
        return tower(inputs, replace(factors, b=b)) * math.sqrt(classes / len(inputs))

    generator = torch.Generator().manual_seed(0)
    value, back = pullback(outputs, factors.b)
    square = 0.0
    for _ in range(PROBES):  # the mean of |Jᵀu|² over normal u is J's squared Frobenius norm
        square += float(back(torch.randn(value.shape, generator=generator).to(value.device)).square().sum()) / PROBES
    direction = torch.randn(factors.b.shape, generator=generator).to(value.device)
    steepest = 0.0
    for _ in range(ITERATIONS):
        direction = back(pushforward(outputs, factors.b, direction / direction.norm()))
        steepest = float(direction.norm())
    return Steepness(gain=steepest**-0.5, width=square / steepest / classes)
