"""A CLIP of two small transformers, whose towers have every matrix that a placement may adapt."""

from open_clip.model import CustomTextCLIP

from flora_secure.placements import PLACEMENTS, Placement, Shapes

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 3},
}
SHAPES = Shapes(width=32, embed=24, layers=3, mlp=128, visual_pooled=16, visual_width=16, visual_layers=2)


def small_clip() -> CustomTextCLIP:
    """With weights as torch draws them: seed torch first."""
    return CustomTextCLIP(**CONFIG).float().eval().requires_grad_(False)


def placements_and_lasts() -> list[tuple[Placement, int | None]]:
    """Every placement, on all blocks of a tower and, where it sits in blocks, on the last one."""
    return [(p, last) for p in PLACEMENTS.values() for last in ((None, 1) if p.blocks else (None,))]
