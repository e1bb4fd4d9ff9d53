"""A CLIP of two small transformers, whose towers have every matrix that a placement may adapt, and its relatives."""

from typing import Any

import torch
from open_clip.model import CustomTextCLIP

from flora_secure.planning.placements import PLACEMENTS, Placement, Shapes

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 3},
}
# SigLIP's text tower: it looks ahead, is read at its last place, and ends in a matrix and a bias
_SIGLIP_TEXT = {
    "no_causal_mask": True,
    "pool_type": "last",
    "proj_bias": True,
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
SIGLIP = {**CONFIG, "init_logit_bias": -10, "text_cfg": {**CONFIG["text_cfg"], **_SIGLIP_TEXT}}
# CoCa's text tower: it is read at a token of its own, and that one does not look at what fills a text up
COCA = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "embed_cls": True}}
SHAPES = Shapes(width=32, embed=24, layers=3, mlp=128, visual_pooled=16, visual_width=16, visual_layers=2)


def small_clip(config: dict[str, Any] = CONFIG) -> CustomTextCLIP:
    """With weights as torch draws them: seed torch first."""
    model = CustomTextCLIP(**config).float().eval().requires_grad_(False)
    if isinstance(model.text.text_projection, torch.nn.Linear):
        torch.nn.init.normal_(model.text.text_projection.bias)  # open_clip starts it from 0
    return model


def placements_and_lasts() -> list[tuple[Placement, int | None]]:
    """Every placement, on all blocks of a tower and, where it sits in blocks, on the last one."""
    return [(p, last) for p in PLACEMENTS.values() for last in ((None, 1) if p.blocks else (None,))]
