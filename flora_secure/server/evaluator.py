"""What an adapter is worth, on the server's test images. It knows no client's images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from flora_secure.model.factors import Factors
from flora_secure.server.scores import Hits, Ranks, hits, ranks

Embeddings = Callable[[Factors], tuple[Tensor, Tensor]]
"""Under an adapter, the unit-norm embeddings of texts and of images, float32 (·, embed)."""


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Scores adapters on the server's test images.

    Attributes:
        test: embeddings of the classes (or the test captions) and of the test images.
        target: int64 (n,), the class of each test image, or the image of each test caption.
        captioned: whether there are captions in the place of labels.
        unseen: the same of the unseen classes and their test images, with their labels; None where there are none.
    """

    test: Embeddings = field(repr=False)
    target: Tensor = field(repr=False)
    captioned: bool
    unseen: tuple[Embeddings, Tensor] | None = field(default=None, repr=False)

    def predicted(self, factors: Factors) -> Tensor:
        """The class of each test image, int64 (n,); not for captions."""
        texts, images = self.test(factors)
        return (images @ texts.T).argmax(dim=-1)

    def ranks(self, factors: Factors) -> Ranks:
        """Which rank test images and test captions have with each other; not for labels."""
        texts, images = self.test(factors)
        return ranks(images, texts, self.target)

    def hits(self, factors: Factors) -> Hits | None:
        """Right answers where the unseen classes count too; None where there are none."""
        if self.unseen is None:
            return None
        embeddings, labels = self.unseen
        return hits(self.test(factors), self.target, embeddings(factors), labels)

    def accuracy(self, factors: Factors) -> float:
        """Top-1 on the test images, or recall@1 from image to text, as a fraction."""
        if self.captioned:
            return self.ranks(factors).recall(1)[0]
        return float((self.predicted(factors) == self.target).float().mean())
