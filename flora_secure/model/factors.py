"""LoRA factors: what they are, and their first values.

A matrix W0 takes x to `x @ W0`; its adapter is `ΔW = A @ B` with A (inputs, r) and B (r, outputs) (Hu et al. 2021,
arXiv 2106.09685, section 4.1). All matrices of a placement share one rank, so that two tensors hold their factors: the
As one above the other, the Bs side by side.

Which of them train is a rule (`rules`). On the text projection, `prompt-basis` starts from A = V/S of the singular
value decomposition of the pooled class-prompt features H = U S Vᵀ, so that H A = U is orthonormal; every other rule
from a random A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flora_secure.errors import AdapterError
from flora_secure.model.matrices import Matrix
from flora_secure.planning.rules import Rule, TrainedValues


@dataclass(frozen=True)
class Factors:
    """The LoRA factors of all adapted matrices, float32: `a` (sum of inputs, r) and `b` (r, sum of outputs)."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        """The rank r, that of every matrix."""
        return int(self.a.shape[1])

    def to(self, device: torch.device | str) -> Factors:
        """The same on `device`."""
        return Factors(a=self.a.to(device), b=self.b.to(device))

    def trained(self, rule: Rule) -> TrainedValues:
        """The sizes of these factors, and which of their values `rule` trains."""
        return TrainedValues(rule, self.a.numel(), self.b.numel())

    def dimension(self, rule: Rule) -> int:
        """Number of values that `rule` trains."""
        return self.trained(rule).dimension

    def vector(self, rule: Rule) -> Tensor:
        """The values that `rule` trains as one float32 vector, B first, row by row."""
        parts = [part.reshape(-1) for part, own in ((self.b, rule.trains_b), (self.a, rule.trains_a)) if own]
        return torch.cat(parts)

    def with_vector(self, rule: Rule, vector: Tensor) -> Factors:
        """These factors with the trained values replaced by `vector`; the inverse of `vector`.

        Raises `AdapterError` for a vector of another length.
        """
        if vector.shape != (self.dimension(rule),):
            raise AdapterError(f"update of length {tuple(vector.shape)} for an adapter of {self.dimension(rule)}")
        size = self.b.numel() * rule.trains_b
        return Factors(
            a=vector[size:].reshape(self.a.shape) if rule.trains_a else self.a,
            b=vector[:size].reshape(self.b.shape) if rule.trains_b else self.b,
        )


def initial_factors(rule: Rule, prompts: Tensor, embed: int, rank: int | None, generator: torch.Generator) -> Factors:
    """Factors on the text projection, of an adapter that changes nothing yet (B = 0).

    `prompts`: pooled class-prompt features H, float32 (classes, width), of any scale. `rank` defaults to the number
    of classes, which is all that H can see. Raises `AdapterError` if the rank does not fit.
    """
    classes, width = prompts.shape
    rank = min(classes, width, embed) if rank is None else rank
    if not rule.prompt_basis:
        if rank > min(width, embed):
            raise AdapterError(
                f"`model.rank` {rank} exceeds the projection's own rank {min(width, embed)}; choose a smaller one"
            )
        # rows of H A have unit norm in expectation, whatever the scale of H
        a = torch.randn(width, rank, generator=generator) / (prompts.norm(dim=1).mean() * rank**0.5)
    else:
        # singular directions that the prompts do not span carry no signal, and dividing by their S would be noise
        _, singular, vt = torch.linalg.svd(prompts.double(), full_matrices=False)
        usable = int((singular > singular[0] * 1e-6).sum())
        if rank > usable:
            raise AdapterError(
                f"`model.rank` {rank} exceeds the {usable} directions that the {classes} class prompts span; "
                f"choose {usable} or less, or another `model.rule`, such as ab"
            )
        a = (vt[:rank].T / singular[:rank]).float()
    return Factors(a=a.contiguous(), b=torch.zeros(rank, embed))


def blocks(matrices: Sequence[Matrix], factors: Factors) -> list[tuple[Tensor, Tensor]]:
    """A (inputs, r) and B (r, outputs) of each matrix."""
    a = torch.split(factors.a, [matrix.inputs for matrix in matrices])
    b = torch.split(factors.b, [matrix.outputs for matrix in matrices], dim=1)
    return list(zip(a, b, strict=True))


def fresh_factors(matrices: Sequence[Matrix], rank: int, generator: torch.Generator) -> Factors:
    """Random A, so that inputs of standard deviation 1 give each column about 1/√r, and B = 0.

    Raises `AdapterError` if the rank exceeds that of a matrix.
    """
    most = min(min(matrix.inputs, matrix.outputs) for matrix in matrices)
    if rank > most:
        raise AdapterError(f"`model.rank` {rank} exceeds {most}, the rank of the smallest adapted matrix; choose less")
    parts = [
        torch.randn(matrix.inputs, rank, generator=generator) / (matrix.inputs * rank) ** 0.5 for matrix in matrices
    ]
    return Factors(a=torch.cat(parts), b=torch.zeros(rank, sum(matrix.outputs for matrix in matrices)))
