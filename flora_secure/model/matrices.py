"""The adapted matrices of a real model: where each one is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from flora_secure.errors import AdapterError
from flora_secure.planning.placements import Placement


@dataclass(frozen=True)
class Matrix:
    """`parameter` is its name within `tower`, "text" or "visual". `transposed`: stored as (outputs, inputs), as
    `nn.Linear` does. `row`: where it begins in a parameter that holds several, one above the other."""

    tower: str
    parameter: str
    inputs: int
    outputs: int
    transposed: bool = True
    row: int | None = None

    def added(self, stored: Tensor, delta: Tensor) -> Tensor:
        """The stored parameter with `delta` (inputs, outputs) added to this matrix."""
        change = delta.T if self.transposed else delta
        if self.row is None:
            return stored + change
        below = stored.shape[0] - self.row - self.outputs
        return stored + nn.functional.pad(change, (0, 0, self.row, below))


@dataclass(frozen=True, eq=False)
class TextProjection:
    """What a text tower does last: `pooled @ matrix + bias`, `matrix` (width, embed), `bias` (embed,) if any.

    Without a `matrix` there is none, and pooled features are embeddings. `parameter`: the matrix's name within the
    tower, which stores it transposed if it is a `nn.Linear`'s. `identity`: the tower's parameters with which
    `torch.func.functional_call` leaves it out.
    """

    matrix: Tensor | None = None
    bias: Tensor | None = None
    parameter: str = ""
    identity: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, tower: TextTransformer | HFTextEncoder) -> TextProjection:
        """That of open_clip's own text towers, or of one of transformers' that open_clip wraps."""
        own = not isinstance(tower, HFTextEncoder)
        name, projection = ("text_projection", tower.text_projection) if own else ("proj", tower.proj)
        if isinstance(projection, nn.Sequential):  # matrix, GELU, matrix
            name, projection = f"{name}.{len(projection) - 1}", projection[-1]
        if projection is None or isinstance(projection, nn.Identity):
            return cls()
        if isinstance(projection, nn.Linear):
            matrix, eye = projection.weight.detach().T, torch.eye(projection.in_features).to(projection.weight)
            if projection.bias is None:
                return cls(matrix, None, f"{name}.weight", {f"{name}.weight": eye})
            identity = {f"{name}.weight": eye, f"{name}.bias": torch.zeros_like(eye[0])}
            return cls(matrix, projection.bias.detach(), f"{name}.weight", identity)
        matrix = projection.detach()
        return cls(matrix, None, name, {name: torch.eye(len(matrix)).to(matrix)})

    def __call__(self, pooled: Tensor) -> Tensor:
        """Unnormalised embeddings (…, embed) of pooled features (…, width)."""
        return pooled if self.matrix is None else F.linear(pooled, self.matrix.T, self.bias)


def matrices_of(model: CustomTextCLIP, placement: Placement, last: int | None = None) -> tuple[Matrix, ...]:
    """The matrices that `placement` adapts in `model`, in the `last` blocks of the tower or in all of them.

    Raises `AdapterError` where the model has no such matrices.
    """
    match placement.name:
        case "text-projection":
            return (_text_projection(model),)
        case "visual-projection":
            return (_visual_projection(model),)
        case "both-projections":
            return (_text_projection(model), _visual_projection(model))
    tower = "visual" if placement.name == "visual-attention" else "text"
    if tower == "text" and isinstance(model.text, HFTextEncoder):
        raise AdapterError(
            f"`model.placement` {placement.name} knows the blocks of open_clip's own text towers, and this one is "
            "from Hugging Face's transformers; use text-projection, or one of the image tower"
        )
    try:
        blocks = list(getattr(model, tower).transformer.resblocks)
        if last is not None and last > len(blocks):
            raise AdapterError(
                f"`model.last_layers` {last} is more than the {tower} tower's {len(blocks)} blocks; choose at most that"
            )
        first = 0 if last is None else len(blocks) - last
        return tuple(
            matrix
            for number, block in enumerate(blocks[first:], first)
            for matrix in _of_block(placement.name, tower, f"transformer.resblocks.{number}", block)
        )
    except AttributeError:
        raise AdapterError(
            f"the model has no matrices for `model.placement` {placement.name}; use one of the text tower, such as "
            "text-attention"
        ) from None


def _of_block(placement: str, tower: str, name: str, block: Any) -> list[Matrix]:
    if placement == "text-mlp":
        pairs = (("c_fc", block.mlp.c_fc), ("c_proj", block.mlp.c_proj))
        return [
            Matrix(tower, f"{name}.mlp.{part}.weight", linear.in_features, linear.out_features)
            for part, linear in pairs
        ]
    if not isinstance(block.attn, nn.MultiheadAttention):
        raise AdapterError(f"the {tower} tower's attention is no nn.MultiheadAttention; use another `model.placement`")
    width = block.attn.embed_dim
    parts = range(3) if placement == "text-attention-full" else (0, 2)  # of query, key and value
    found = [Matrix(tower, f"{name}.attn.in_proj_weight", width, width, row=part * width) for part in parts]
    if placement == "text-attention-full":
        found.append(Matrix(tower, f"{name}.attn.out_proj.weight", width, width))
    return found


def _text_projection(model: CustomTextCLIP) -> Matrix:
    projection = TextProjection.of(model.text)
    if projection.matrix is None:
        raise AdapterError(
            "the text tower has no projection to adapt; use another `model.placement`, such as text-attention"
        )
    width, embed = projection.matrix.shape
    return Matrix("text", projection.parameter, width, embed, transposed=projection.parameter.endswith(".weight"))


def _visual_projection(model: CustomTextCLIP) -> Matrix:
    """The matrix onto the embedding, if it is the last thing that the image tower does."""
    visual, embed = model.visual, model.text.output_dim
    projection = getattr(visual, "proj", None)
    if isinstance(projection, nn.Parameter):
        return Matrix("visual", "proj", projection.shape[0], projection.shape[1], transposed=False)
    linear = [(name, module) for name, module in visual.named_modules() if isinstance(module, nn.Linear)]
    if hasattr(visual, "trunk") and linear:
        name, last = linear[-1]
        # without a classifier, a trunk ends in what its pooling does, such as SigLIP's attention and a sum
        if last.out_features == embed and (name.startswith("head.") or last is visual.trunk.get_classifier()):
            return Matrix("visual", f"{name}.weight", last.in_features, last.out_features)
    raise AdapterError(
        "the image tower does not end in a matrix onto the embedding; use a `model.placement` in the text tower"
    )


@contextmanager
def visual_unprojected(model: CustomTextCLIP) -> Iterator[None]:
    """While it lasts, the image tower leaves out its last matrix. AdapterError as `matrices_of`."""
    matrix, visual = _visual_projection(model), model.visual
    if not matrix.transposed:
        projection, visual.proj = visual.proj, None
        try:
            yield
        finally:
            visual.proj = projection
        return
    name = matrix.parameter.removesuffix(".weight")
    linear = visual.get_submodule(name)
    visual.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        visual.set_submodule(name, linear)
