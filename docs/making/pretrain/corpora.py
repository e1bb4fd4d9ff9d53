"""What the pretraining draws its batches from: images, the views of them, and captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain.captions import attributes, caption, icon_caption
from pretrain.views import augment, restyle


class Corpus(Protocol):
    """Images uint8 (n, 28, 28), int64 places (m,) of a batch, float32 views (m, 1, 28, 28) in 0..1, and captions."""

    images: torch.Tensor

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]: ...

    def views(self, chosen: NDArray[np.int64], rng: torch.Generator) -> torch.Tensor: ...

    def captions(self, chosen: NDArray[np.int64], fine: int, rng: np.random.Generator) -> list[str]: ...


@dataclass
class Pictured:
    """Images with a noun and five measured attributes each: the public slice, and what is rendered."""

    images: torch.Tensor
    nouns: Callable[[int], list[str]]  # by the number of captions that name the class
    levels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.levels = attributes(self.images.numpy())

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Places of different images."""
        return rng.choice(len(self.images), count, replace=False)

    def views(self, chosen: NDArray[np.int64], rng: torch.Generator) -> torch.Tensor:
        """Random views."""
        return augment(self.images[chosen], rng)

    def captions(self, chosen: NDArray[np.int64], fine: int, rng: np.random.Generator) -> list[str]:
        """One caption each."""
        nouns = self.nouns(fine)
        return [caption(nouns[i], self.levels[i], rng) for i in chosen]


@dataclass
class Icons:
    """Icons with a noun each. `known`: which are of the twenty things, of whom `share` of a batch is."""

    images: torch.Tensor
    nouns: list[str]
    known: NDArray[np.bool_]
    share: float

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Places of different images."""
        parts = ((self.known, round(self.share * count)), (~self.known, count - round(self.share * count)))
        return np.concatenate([rng.choice(np.flatnonzero(which), some, replace=False) for which, some in parts])

    def views(self, chosen: NDArray[np.int64], rng: torch.Generator) -> torch.Tensor:
        """Random views in random styles, one in twenty flipped."""
        return restyle(augment(self.images[chosen], rng, flipped=0.05), rng)

    def captions(self, chosen: NDArray[np.int64], fine: int, rng: np.random.Generator) -> list[str]:
        """One caption each."""
        return [icon_caption(self.nouns[i], rng) for i in chosen]
