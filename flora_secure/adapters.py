"""LoRA on CLIP's text projection: their first values, and how peft stores them.

open_clip applies the projection from the right, ``text = h @ W0`` with ``W0`` of shape (width, embed), so the adapter
is ``ΔW = A @ B`` with A (width, r) and B (r, embed). peft's LoRA of a parameter is ``ΔW = lora_B @ lora_A``; hence our
A is peft's ``lora_B.weight`` and our B its ``lora_A.weight`` (Hu et al. 2021, arXiv 2106.09685, section 4.1).

Which of them train is a rule (`rules`). ``prompt-basis`` starts from A = V/S of the singular value decomposition of the
pooled class-prompt features H = U S Vᵀ, so that H A = U is orthonormal; every other rule from a random A.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from flora_secure.rules import AdapterError, Rule

if TYPE_CHECKING:
    from open_clip.model import CustomTextCLIP

TARGET = "text.text_projection"


@dataclass(frozen=True)
class Factors:
    """The two LoRA factors, float32: ``a`` (width, r) and ``b`` (r, embed)."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        return int(self.a.shape[1])


def initial_factors(rule: Rule, prompts: Tensor, embed: int, rank: int | None, generator: torch.Generator) -> Factors:
    """Factors of an adapter that changes nothing yet (B = 0).

    ``prompts``: pooled class-prompt features H, float32 (classes, width), of any scale. ``rank`` defaults to the number
    of classes, which is all that H can see. Raises :class:`AdapterError` if the rank does not fit.
    """
    classes, width = prompts.shape
    rank = min(classes, width, embed) if rank is None else rank
    if not rule.prompt_basis:
        if rank > min(width, embed):
            raise AdapterError(
                f"rank {rank} exceeds the projection's own rank {min(width, embed)}; choose a smaller one"
            )
        # rows of H A have unit norm in expectation, whatever the scale of H
        a = torch.randn(width, rank, generator=generator) / (prompts.norm(dim=1).mean() * rank**0.5)
    else:
        # singular directions that the prompts do not span carry no signal, and dividing by their S would be noise
        _, singular, vt = torch.linalg.svd(prompts.double(), full_matrices=False)
        usable = int((singular > singular[0] * 1e-6).sum())
        if rank > usable:
            raise AdapterError(
                f"rank {rank} exceeds the {usable} directions that the {classes} class prompts span; "
                f"choose rank {usable} or less, or another rule, such as --rule ab"
            )
        a = (vt[:rank].T / singular[:rank]).float()
    return Factors(a=a.contiguous(), b=torch.zeros(rank, embed))


def attach(model: CustomTextCLIP, factors: Factors) -> PeftModel:
    """``model`` wrapped by peft (in place) with the adapter's values set. No parameter requires a gradient."""
    config = LoraConfig(
        r=factors.rank, lora_alpha=factors.rank, lora_dropout=0.0, target_modules=[], target_parameters=[TARGET]
    )
    wrapped = get_peft_model(model, config)
    own = {name: p for name, p in wrapped.named_parameters() if "lora_" in name}
    if len(own) != 2:
        raise AdapterError(f"peft placed {len(own)} factors on {TARGET}, expected 2: is the model a CustomTextCLIP?")
    with torch.no_grad():
        for name, parameter in own.items():
            value = factors.b if "lora_A" in name else factors.a
            parameter.copy_(value.to(parameter.device, parameter.dtype))
    return wrapped.requires_grad_(False).eval()


def save_adapter(model: CustomTextCLIP, factors: Factors, folder: Path) -> None:
    """Write ``factors`` in peft's format (``adapter_config.json``, ``adapter_model.safetensors``) for
    ``PeftModel.from_pretrained(model, folder)``. ``model`` is left as it was."""
    wrapped = attach(model, factors)
    try:
        wrapped.save_pretrained(str(folder))
    finally:
        wrapped.unload()
    # peft's own README is an unfilled model-card template; the run folder's report says what the adapter is
    (folder / "README.md").unlink(missing_ok=True)
