"""From what stays constant to embeddings, for each tower: the part of a model that an adapter changes, as a function.

Whatever lies below the lowest adapted matrix gives the same in every round, so it is computed once. What is left of a
tower is one of three things: nothing (`Fixed`), its last matrix (`Projected`), or all of it
(`Through`). Each is a function of constant inputs and the adapter's factors, so that `torch.func` can take
gradients of it for many clients at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.transformer import TextTransformer
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from flora_secure.data.files.decoding import decode
from flora_secure.data.images import EncodedImages, Images
from flora_secure.model.clip import Clip, joined
from flora_secure.model.factors import Factors, blocks
from flora_secure.model.image_views import ImageViews
from flora_secure.model.matrices import Matrix, TextProjection


class Inputs(Protocol):
    """Inputs of a `towers.Tower`."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """Those at `indices`, (n, …)."""
        ...


@dataclass(frozen=True, eq=False)
class Held:
    """Rows of a tensor."""

    rows: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """The rows (m, …) at the int64 (m,) `indices`, on the device that holds them."""
        return self.rows[torch.from_numpy(indices).to(self.rows.device)]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images for an image tower that trains, float32 (n, views, 3, height, width). Encoded ones
    are decoded each time, since the pixels of all rarely fit in memory."""

    clip: Clip
    images: Images = field(repr=False)
    views: ImageViews

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """The views of the images at the int64 (m,) `indices`, float32 (m, views, 3, height, width), decoded now."""
        if isinstance(self.images, EncodedImages):
            chosen = self.images.at(indices)
            parts = list(decode(chosen, self.clip.shape, max(1, len(indices))))
            pixels = self.clip.pixels(np.concatenate(parts))
        else:
            pixels = self.clip.pixels(self.images[indices])
        return torch.stack(self.views.of(pixels), dim=1)


Function = Callable[[Tensor], Tensor]


Indices = NDArray[np.int64]


def parts_of(indices: Indices, size: int) -> list[Indices]:
    """The indices in parts of at most `size`, in order."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def pullback(function: Function, at: Tensor) -> tuple[Tensor, Function]:
    """The value at `at`, and Jᵀ as a function: cotangents of the value → gradients."""
    found = torch.func.vjp(function, at)
    back = cast(Callable[[Tensor], tuple[Tensor]], found[1])
    return cast(Tensor, found[0]), lambda cotangent: back(cotangent)[0]


def pushforward(function: Function, at: Tensor, direction: Tensor) -> Tensor:
    """The Jacobian of `function` at `at`, times `direction`: of the shape of its value."""
    return cast(Tensor, torch.func.jvp(function, (at,), (direction,))[1])


_ACTIVATIONS = 1 << 27  # float32 values of a tower's activations that may be in memory at a time: 512 MB


@dataclass(frozen=True)
class Placed:
    """Where the adapter sits: `ΔW_m = scale · gains[m] · A_m B_m`. The gains make a trained value mean the same
    wherever it sits (`gains`); `scale` is LoRA's alpha ÷ rank."""

    matrices: tuple[Matrix, ...]
    gains: tuple[float, ...]
    scale: float = 1.0

    def of_tower(self, tower: str) -> list[int]:
        """Positions of that tower's matrices."""
        return [place for place, matrix in enumerate(self.matrices) if matrix.tower == tower]

    def factors(self, factors: Factors) -> list[tuple[Tensor, Tensor]]:
        """The factors A and B of each matrix, scaled so that their product is `ΔW_m`."""
        found = zip(self.gains, blocks(self.matrices, factors), strict=True)
        return [(self.scale * gain * a, b) for gain, (a, b) in found]

    def to_model(self, factors: Factors) -> Factors:
        """Factors in the model's own units, all but the scale."""
        found = zip(self.gains, blocks(self.matrices, factors), strict=True)
        return Factors(a=torch.cat([gain * a for gain, (a, _) in found]), b=factors.b)


class Tower(Protocol):
    """A part of a model, as a function."""

    @property
    def rows(self) -> int:
        """Inputs whose activations fit in memory together."""
        ...

    def __call__(self, inputs: Tensor, factors: Factors) -> Tensor:
        """Unit-norm embeddings (n, embed) of `inputs` (n, …)."""
        ...


@dataclass(frozen=True)
class Fixed:
    """No adapter: the inputs are the embeddings."""

    rows: int = 1 << 16

    def __call__(self, inputs: Tensor, factors: Factors) -> Tensor:
        return inputs


@dataclass(frozen=True)
class Projected:
    """An adapter on the last matrix alone. Inputs are what it reads, (n, views, width): the views of an image are
    embedded by themselves and joined, a text is one view. `base` (width, embed)."""

    placed: Placed
    place: int
    base: Tensor = field(repr=False)
    bias: Tensor | None = field(default=None, repr=False)
    rows: int = 1 << 14

    def __call__(self, inputs: Tensor, factors: Factors) -> Tensor:
        a, b = self.placed.factors(factors)[self.place]
        value = inputs @ self.base + (inputs @ a) @ b
        return joined(value if self.bias is None else value + self.bias)


@dataclass(frozen=True, eq=False)
class Through:
    """Adapters inside a tower. Inputs of the text tower are tokens (n, prompts, context), whose pooled outputs are
    averaged before the projection; those of the image tower pixels (n, views, 3, height, width)."""

    placed: Placed
    tower: Any = field(repr=False)  # one of open_clip's
    places: Sequence[int]
    projection: TextProjection | None = field(default=None, repr=False)  # of the text tower
    rows: int = 1

    @classmethod
    def of_text(cls, placed: Placed, tower: Any, tokens: int) -> Through:
        """`tokens`: of each input, all its prompts together."""
        projection, inner = TextProjection.of(tower), tower.transformer
        return cls(placed, tower, placed.of_tower("text"), projection, _rows(tokens, inner.width, inner.layers))

    @classmethod
    def of_images(cls, placed: Placed, tower: Any, views: int) -> Through:
        """The image tower of a plain transformer, which reads so many `views` of each image."""
        tokens = int(tower.positional_embedding.shape[0])
        inner = tower.transformer
        return cls(placed, tower, placed.of_tower("visual"), None, _rows(views * tokens, inner.width, inner.layers))

    def __call__(self, inputs: Tensor, factors: Factors) -> Tensor:
        stored: dict[str, Tensor] = dict(self.tower.named_parameters())
        found, changed = self.placed.factors(factors), dict[str, Tensor]()
        for place in self.places:
            matrix, (a, b) = self.placed.matrices[place], found[place]
            before = changed if matrix.parameter in changed else stored
            changed[matrix.parameter] = matrix.added(before[matrix.parameter], a @ b)
        if self.projection is not None:
            changed |= self.projection.identity
            if (length := inputs.shape[-1]) < self.tower.context_length:  # tokens were cut (`cut`)
                changed["attn_mask"] = self.tower.attn_mask[:length, :length]
        with _plain_attention():
            out: Tensor = functional_call(self.tower, changed, (inputs.flatten(0, 1),))
        out = out.float().view(*inputs.shape[:2], -1)
        return joined(out) if self.projection is None else F.normalize(self.projection(out.mean(1)), dim=-1)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention without its fused kernels, which have no rule for batches of parameters."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def cut(tower: Any, tokens: Tensor) -> Tensor:
    """`tokens` (…, context) without the places at the end that fill up every text, where the tower never looks there:
    with causal attention, pooled at the end of the text."""
    if not isinstance(tower, TextTransformer):
        return tokens
    causal = tower.attn_mask is not None and tower.cls_emb is None and not tower.use_pad_mask
    if not causal or tower.pool_type != "argmax":
        return tokens
    return tokens[..., : int(tokens.argmax(-1).max()) + 1]


def _rows(tokens: int, width: int, layers: int) -> int:
    """A block of a transformer keeps some twenty values a token and unit of width for the gradient."""
    return max(1, _ACTIVATIONS // (20 * tokens * width * layers))


@torch.no_grad()
def embedded(tower: Tower, inputs: Inputs, factors: Factors) -> Tensor:
    """Unit-norm embeddings (n, embed) of all inputs under the adapter."""
    parts = parts_of(np.arange(len(inputs)), tower.rows)
    return torch.cat([tower(inputs.take(part), factors) for part in parts])
