"""Placements: the matrices of a CLIP that LoRA may sit on, and their sizes. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model's towers. ``layers`` and ``mlp`` (hidden units of a block) are the text tower's; those of the
    image tower, ``visual_layers`` blocks of ``visual_width``, are ``None`` where it is no plain transformer.
    ``visual_pooled``: input width of its last matrix, ``None`` where it has none onto the embedding."""

    width: int
    embed: int
    layers: int
    mlp: int
    visual_pooled: int | None
    visual_width: int | None
    visual_layers: int | None


@dataclass(frozen=True)
class Placement:
    """``rank``: the default, ``None`` for one a class. ``trainable``: whether ``simulate`` can train it."""

    name: str
    rank: int | None
    trainable: bool = False

    def matrices(self, model: Shapes) -> list[tuple[int, int]] | None:
        """(inputs, outputs) of each adapted matrix; ``None`` where the model lacks them."""
        text = (model.width, model.embed)
        image = None if model.visual_pooled is None else (model.visual_pooled, model.embed)
        match self.name:
            case "text-projection":
                return [text]
            case "text-attention":  # query and value, of each block
                return [(model.width, model.width)] * (2 * model.layers)
            case "text-attention-full":  # query, key, value and output
                return [(model.width, model.width)] * (4 * model.layers)
            case "text-mlp":
                return [(model.width, model.mlp), (model.mlp, model.width)] * model.layers
            case "visual-projection":
                return None if image is None else [image]
            case "both-projections":
                return None if image is None else [text, image]
            case _:  # visual-attention: query and value
                if model.visual_width is None or model.visual_layers is None:
                    return None
                return [(model.visual_width, model.visual_width)] * (2 * model.visual_layers)


PLACEMENTS = {
    placement.name: placement
    for placement in (
        Placement("text-projection", None, trainable=True),
        Placement("text-attention", 4),
        Placement("text-attention-full", 4),
        Placement("text-mlp", 4),
        Placement("visual-projection", 4),
        Placement("both-projections", 4),
        Placement("visual-attention", 4),
    )
}
