"""A CLIP of one block a tower, and LoRA on its text projection: by hand, and through peft."""

import torch
from open_clip.model import CustomTextCLIP
from peft import PeftModel

from flora_secure.model import peft_format
from flora_secure.model.factors import Factors, initial_factors
from flora_secure.model.matrices import matrices_of
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.rules import Rule

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 6, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1},
}
CLASSES = 5


def one_block() -> CustomTextCLIP:
    torch.manual_seed(0)
    return CustomTextCLIP(**CONFIG).eval().requires_grad_(False)


def prompt_tokens() -> torch.Tensor:
    """One prompt a class."""
    return torch.randint(1, 49, (CLASSES, 6), generator=torch.Generator().manual_seed(1))


def pooled(model: CustomTextCLIP, tokens: torch.Tensor) -> torch.Tensor:
    """The text tower's output before its projection."""
    projection = model.text.text_projection
    model.text.text_projection = None
    out = model.encode_text(tokens)
    model.text.text_projection = projection
    return out


def attach(model: CustomTextCLIP, factors: Factors, scale: float = 1.0) -> PeftModel:
    return peft_format.attach(model, matrices_of(model, PLACEMENTS["text-projection"]), factors, scale)


def random_factors(rule: Rule, prompts: torch.Tensor, rank: int | None = None) -> Factors:
    generator = torch.Generator().manual_seed(2)
    factors = initial_factors(rule, prompts, 24, rank, generator)
    return Factors(a=factors.a, b=0.3 * torch.randn(factors.b.shape, generator=generator))
