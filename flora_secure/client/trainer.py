"""How clients train and what their adapter then gives: one interface, in closed form where there is one.

Only labels on the text projection have a closed form, and any placement has the general way; the simulation cannot tell
them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from flora_secure.client.autograd import General, Indices
from flora_secure.client.closed_form import ClientBatch
from flora_secure.client.control_variate import ControlVariate
from flora_secure.client.example_gradients import example_gradients
from flora_secure.model.clip import Clip
from flora_secure.model.devices import batch_map
from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.model.matrices import matrices_of
from flora_secure.model.peft_format import save_adapter
from flora_secure.model.towers import Inputs, Placed
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.rules import Rule


class Learner(Protocol):
    """Local training on one placement, and what its adapter gives."""

    @property
    def width(self) -> float:
        """Trained values that turn one class embedding."""
        ...

    def train(
        self, rule: Rule, factors: Factors, steps: int, rate: float, cohort: Sequence[int] | None = None
    ) -> Tensor:
        """Updates after ``steps`` full-batch gradient steps: float32 (clients, d), a row for each of ``cohort``."""
        ...

    def example_gradients(self, rule: Rule, factors: Factors, parts: Sequence[Indices]) -> Iterator[Tensor]:
        """Gradient of each private image's own loss, float32 (n, d), for each part of indices, in order."""
        ...

    def test_embeddings(self, factors: Factors) -> tuple[Tensor, Tensor]:
        """Unit-norm embeddings of the classes (or the test captions) and of the test images, under the adapter."""
        ...

    def unseen_embeddings(self, factors: Factors) -> tuple[Tensor, Tensor] | None:
        """:meth:`test_embeddings` of the unseen classes and of their test images; ``None`` where there are none."""
        ...

    def save(self, factors: Factors, folder: Path) -> None:
        """Write the adapter in peft's format."""
        ...


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """Labels on the text projection (`local`). ``variate``: if local training subtracts one. ``unseen``: the head of
    the unseen classes, and the features of their test images."""

    clip: Clip
    head: Head
    batch: ClientBatch = field(repr=False)
    features: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    test_features: Tensor = field(repr=False)
    variate: ControlVariate | None = None
    unseen: tuple[Head, Tensor] | None = field(default=None, repr=False)

    @property
    def width(self) -> float:
        return float(self.head.base.shape[1]) * self.head.scale**2

    def train(
        self, rule: Rule, factors: Factors, steps: int, rate: float, cohort: Sequence[int] | None = None
    ) -> Tensor:
        return self.batch.train(self.head, rule, factors, steps, rate, cohort, self.variate)

    def example_gradients(self, rule: Rule, factors: Factors, parts: Sequence[Indices]) -> Iterator[Tensor]:
        def of(part: Indices) -> Tensor:
            rows = torch.from_numpy(part).to(self.labels.device)
            return example_gradients(self.head, rule, factors, self.features[rows], self.labels[rows])

        return batch_map(of, parts, self.labels.device)

    def test_embeddings(self, factors: Factors) -> tuple[Tensor, Tensor]:
        return self.head.text(factors), self.test_features

    def unseen_embeddings(self, factors: Factors) -> tuple[Tensor, Tensor] | None:
        if self.unseen is None:
            return None
        head, features = self.unseen
        return head.text(factors), features

    def save(self, factors: Factors, folder: Path) -> None:
        matrices = matrices_of(self.clip.model, PLACEMENTS["text-projection"])
        save_adapter(self.clip.model, matrices, self.head.to_model(factors), folder, self.head.scale)


@dataclass(frozen=True, eq=False)
class AnyPlacement:
    """`general`, with its test inputs. ``unseen``: those of the unseen classes, texts and images."""

    clip: Clip
    general: General
    placed: Placed
    test_texts: Inputs = field(repr=False)
    test_images: Inputs = field(repr=False)
    width: float
    unseen: tuple[Inputs, Inputs] | None = field(default=None, repr=False)

    def train(
        self, rule: Rule, factors: Factors, steps: int, rate: float, cohort: Sequence[int] | None = None
    ) -> Tensor:
        return self.general.train(rule, factors, steps, rate, cohort)

    def example_gradients(self, rule: Rule, factors: Factors, parts: Sequence[Indices]) -> Iterator[Tensor]:
        return self.general.example_gradients(rule, factors, parts)

    def test_embeddings(self, factors: Factors) -> tuple[Tensor, Tensor]:
        return self.general.embeddings(factors, self.test_texts, self.test_images)

    def unseen_embeddings(self, factors: Factors) -> tuple[Tensor, Tensor] | None:
        return None if self.unseen is None else self.general.embeddings(factors, *self.unseen)

    def save(self, factors: Factors, folder: Path) -> None:
        save_adapter(self.clip.model, self.placed.matrices, self.placed.to_model(factors), folder, self.placed.scale)
