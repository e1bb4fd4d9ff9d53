"""The frozen part of the classifier where LoRA sits on the text projection: all but a few small matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.model.factors import Factors


@dataclass(frozen=True)
class Head:
    """The frozen part of the classifier: `prompts` H (classes, width), `base` W0 (width, embed) and the
    projection's `bias` (embed,) if it has one, float32.

    The model's own A is `gain` times, and its H `unit` times, what they are here, see `normalised`;
    `scale` is LoRA's alpha ÷ rank.
    """

    prompts: Tensor
    base: Tensor
    logit_scale: float
    gain: float = 1.0
    scale: float = 1.0
    bias: Tensor | None = None
    unit: float = 1.0

    @classmethod
    def normalised(
        cls, prompts: Tensor, base: Tensor, logit_scale: float, scale: float = 1.0, bias: Tensor | None = None
    ) -> Head:
        """The head with H and H W0 + bias scaled to unit rows (on average), which changes no class embedding t = V/|V|.

        Learning rates and clip norms then mean the same for every model: B is in units of a class embedding's length.
        """
        size, length = prompts.norm(dim=1).mean(), F.linear(prompts, base.T, bias).norm(dim=1).mean()
        return cls(
            prompts=prompts / size,
            base=base * size / length,
            logit_scale=logit_scale,
            gain=float(length / size),
            scale=scale,
            bias=None if bias is None else bias / length,
            unit=float(size),
        )

    def of_classes(self, prompts: Tensor) -> Head:
        """The head of other classes, whose `prompts` (classes, width) are in the model's own units."""
        return replace(self, prompts=prompts / self.unit)

    @property
    def constant(self) -> Tensor:
        """The part of V (classes, embed) that no adapter changes."""
        return F.linear(self.prompts, self.base.T, self.bias)

    def to_model(self, factors: Factors) -> Factors:
        """Factors in this head's units → factors for the model's own projection."""
        return Factors(a=factors.a * self.gain, b=factors.b)

    def text(self, factors: Factors) -> Tensor:
        """The class embeddings under the adapter, float32 (classes, embed), each of unit norm."""
        value = self.constant + self.scale * (self.prompts @ factors.a) @ factors.b
        return F.normalize(value, dim=-1)

    def logits(self, features: Tensor, factors: Factors) -> Tensor:
        """The scaled cosine similarities, float32 (n, classes), of `features` (n, embed) and the classes."""
        return self.logit_scale * features @ self.text(factors).T
