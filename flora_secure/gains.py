"""How far a trained value moves the embeddings, so that learning rate, clip norm and noise mean the same anywhere.

On the text projection with the prompts' basis a trained value is in units of a class embedding's length (`local.Head`).
Elsewhere the units follow from the tower's Jacobian J with respect to B, at the fresh adapter, on public inputs: the
tower's matrices get the gain at which the mean square of J's columns is 1, as it is there. Then noise of a given size in
all values turns the embeddings by the same angle wherever the adapter sits. A gradient step follows the directions in
which they turn fastest, so that J's largest singular value, by power iteration, says how long it may be.

One gain a tower: with one for each matrix, those that hardly matter (the first block's query) get gains of thousands,
and what is a step for the others throws them far out of the range where the Jacobian holds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import jvp, vjp

from flora_secure.adapters import Factors
from flora_secure.towers import Projected, Through

PROBES, ITERATIONS = 8, 12


def tower_gain(tower: Projected | Through, places: list[int], inputs: Tensor, factors: Factors, classes: int) -> float:
    """The gain of the matrices at ``places``, those of ``tower``, whose gains must be 1.

    ``inputs`` (n, …) stand for ``classes`` embeddings, whatever their number: what counts is the mean over them.
    """
    generator = torch.Generator().manual_seed(0)
    value, back = vjp(lambda b: tower(inputs, replace(factors, b=b)), factors.b)
    weight, square = (classes / len(inputs)) ** 0.5, 0.0
    for _ in range(PROBES):  # the mean of |Jᵀu|² over normal u is J's squared Frobenius norm
        (found,) = back(weight * torch.randn(value.shape, generator=generator).to(value.device))
        square += float(found.square().sum()) / PROBES
    size = factors.rank * sum(tower.placed.matrices[place].outputs for place in places)
    return float((size / square) ** 0.5)


def steepness(tower: Projected | Through, inputs: Tensor, factors: Factors, classes: int) -> float:
    """J's largest singular value, squared: 1 on the text projection with the prompts' basis, where all are 1."""

    def outputs(b: Tensor) -> Tensor:
        return (classes / len(inputs)) ** 0.5 * tower(inputs, replace(factors, b=b))

    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(factors.b.shape, generator=generator).to(factors.b.device)
    _, back = vjp(outputs, factors.b)
    found = 0.0
    for _ in range(ITERATIONS):
        direction = direction / direction.norm()
        _, moved = jvp(outputs, (factors.b,), (direction,))
        (direction,) = back(moved)
        found = float(direction.norm())
    return found
