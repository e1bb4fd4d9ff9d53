"""Placements: the matrices of a CLIP that LoRA may sit on, and their sizes. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model's towers. `layers` and `mlp` (hidden units of a block) are the text tower's; those of the
    image tower, `visual_layers` blocks of `visual_width`, are `None` where it is no plain transformer.
    `visual_pooled`: input width of its last matrix, `None` where it has none onto the embedding. `projected`:
    whether the text tower ends in a matrix onto the embedding."""

    width: int
    embed: int
    layers: int
    mlp: int
    visual_pooled: int | None
    visual_width: int | None
    visual_layers: int | None
    projected: bool = True


@dataclass(frozen=True)
class Placement:
    """`rank`: the default, `None` for one a class. `rule`: the default rule's name. `blocks`: whether it sits
    in the blocks of a tower, so that it can be held to the last of them. `rate`: what a rule's local rate is
    multiplied by; a tenth where images move, since that moves all classes at once and a client's own mix of them too
    far (chosen on public folds: 0.03 and 0.1 alike, 1 circles)."""

    name: str
    rank: int | None = 4
    rule: str = "frozen-a"
    blocks: bool = False
    rate: float = 1.0

    def matrices(self, model: Shapes, last: int | None = None) -> list[tuple[int, int]] | None:
        """(inputs, outputs) of each adapted matrix, of the `last` blocks or all; `None` where the model lacks them.

        ValueError where `last` is more than there are, or the placement sits in no blocks.
        """
        text = (model.width, model.embed) if model.projected else None
        image = None if model.visual_pooled is None else (model.visual_pooled, model.embed)
        layers = model.visual_layers if self.name == "visual-attention" else model.layers
        if last is not None and not self.blocks:
            raise ValueError(f"`model.placement` {self.name} sits in no blocks; leave out `model.last_layers` {last}")
        if last is not None and layers is not None and last > layers:
            raise ValueError(
                f"`model.last_layers` {last} is more than the tower's {layers} blocks; choose at most that"
            )
        count = layers if last is None else last
        match self.name:
            case "text-projection":
                return None if text is None else [text]
            case "visual-projection":
                return None if image is None else [image]
            case "both-projections":
                return None if text is None or image is None else [text, image]
        if count is None:
            return None
        match self.name:
            case "text-attention":  # query and value, of each block
                return [(model.width, model.width)] * (2 * count)
            case "text-attention-full":  # query, key, value and output
                return [(model.width, model.width)] * (4 * count)
            case "text-mlp":
                return [(model.width, model.mlp), (model.mlp, model.width)] * count
            case _:  # visual-attention: query and value
                return None if model.visual_width is None else [(model.visual_width, model.visual_width)] * (2 * count)


PLACEMENTS = {
    placement.name: placement
    for placement in (
        Placement("text-projection", rank=None, rule="prompt-basis"),
        Placement("text-attention", blocks=True),
        Placement("text-attention-full", blocks=True),
        Placement("text-mlp", blocks=True),
        Placement("visual-projection", rate=0.1),
        Placement("both-projections", rate=0.1),
        Placement("visual-attention", blocks=True, rate=0.1),
    )
}

ARRAYS = "arrays"
"""What an invitation calls the place of values that are no adapter on a CLIP: all arrays of a model of the user's."""
