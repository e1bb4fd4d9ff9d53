"""Adapters in peft's format, which other people's tools read.

peft's LoRA adds ``lora_B @ lora_A`` (times alpha ÷ rank) to a parameter as it is stored. open_clip stores a projection
as (inputs, outputs), so there our A is peft's ``lora_B`` and our B its ``lora_A``; a `nn.Linear` is stored as (outputs,
inputs), so there our A is ``lora_A`` transposed. Query, key and value of a `nn.MultiheadAttention` are one parameter,
for which peft has one ``lora_A``: ours are stacked in it, at as many times the rank, and each ``lora_B`` is zero
outside its own rows. peft adapts such a module's output matrix too, ours by zeros where the placement leaves it alone;
today's releases add that matrix's delta twice (https://github.com/huggingface/peft/pull/3774), so what is saved is
divided by what the installed release does, and loads right with it.

Where the text projection is a `nn.Linear`, as SigLIP's, ``PeftModel.from_pretrained(…).merge_and_unload()`` gives the
adapted model: open_clip asks the projection whether it is one, which peft's wrapper around it, before merging, is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from open_clip.model import CustomTextCLIP
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from flora_secure.errors import AdapterError
from flora_secure.model.factors import Factors, blocks
from flora_secure.model.matrices import Matrix


def attach(model: CustomTextCLIP, matrices: Sequence[Matrix], factors: Factors, scale: float = 1.0) -> PeftModel:
    """``model`` wrapped by peft (in place) with ``scale · A B`` on each matrix. No parameter requires a gradient."""
    attention = any(matrix.row is not None for matrix in matrices)
    values = _attention(matrices, factors) if attention else _single(matrices, factors)
    rank = next(iter(values.values())).shape[0]  # of a lora_A
    targets = dict.fromkeys(name.rsplit(".lora_", 1)[0].removesuffix(".base_layer.out_proj") for name in values)
    parameters = [f"{m.tower}.{m.parameter}" for m in matrices if not m.transposed]
    config = LoraConfig(
        r=rank,
        lora_alpha=scale * rank,
        lora_dropout=0.0,
        target_modules=[name for name in targets if name not in parameters],
        target_parameters=parameters,
    )
    wrapped = get_peft_model(model, config)
    own = {name: p for name, p in wrapped.named_parameters() if ".lora_" in name}
    found = {_plain(name, parameters): parameter for name, parameter in own.items()}
    if found.keys() != values.keys():
        raise AdapterError(f"peft placed {len(own)} factors, {len(values)} were expected: is it a CustomTextCLIP?")
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(values[name].to(parameter.device, parameter.dtype))
    return wrapped.requires_grad_(False).eval()


def _plain(name: str, parameters: Sequence[str]) -> str:
    """peft's name of a factor without what wrapping added, but with the parameter's own where it adapts one."""
    short = name.removeprefix("base_model.model.").replace(".default", "").removesuffix(".weight")
    module, factor = short.rsplit(".lora_", 1)
    inside = [p for p in parameters if p.rsplit(".", 1)[0] == module.removesuffix(".base_layer")]
    return f"{inside[0] if inside else module}.lora_{factor}"


def _single(matrices: Sequence[Matrix], factors: Factors) -> dict[str, Tensor]:
    values = {}
    for matrix, (a, b) in zip(matrices, blocks(matrices, factors), strict=True):
        name = f"{matrix.tower}.{matrix.parameter}"
        if matrix.transposed:
            name = name.removesuffix(".weight")
            values[f"{name}.lora_A"], values[f"{name}.lora_B"] = a.T, b.T
        else:
            values[f"{name}.lora_A"], values[f"{name}.lora_B"] = b, a.contiguous()
    return values


def _attention(matrices: Sequence[Matrix], factors: Factors) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    modules: dict[str, list[tuple[Matrix, Tensor, Tensor]]] = {}
    for matrix, (a, b) in zip(matrices, blocks(matrices, factors), strict=True):
        name = f"{matrix.tower}.{matrix.parameter}".split(".attn.")[0] + ".attn"
        modules.setdefault(name, []).append((matrix, a, b))
    for name, members in modules.items():
        stacked = [(matrix.row, a, b) for matrix, a, b in members if matrix.row is not None]
        width, rank = members[0][0].inputs, factors.rank
        lora_a = torch.cat([a.T for _, a, _ in stacked])
        lora_b = lora_a.new_zeros(3 * width, len(lora_a))
        for place, (row, _, b) in enumerate(stacked):
            lora_b[row : row + width, place * rank : (place + 1) * rank] = b.T
        out_a, out_b = torch.zeros_like(lora_a), lora_a.new_zeros(width, len(lora_a))
        for matrix, a, b in members:
            if matrix.row is None:
                out_a[:rank], out_b[:, :rank] = a.T, b.T / _times_added()
        values[f"{name}.lora_A"], values[f"{name}.lora_B"] = lora_a, lora_b
        values[f"{name}.base_layer.out_proj.lora_A"], values[f"{name}.base_layer.out_proj.lora_B"] = out_a, out_b
    return values


@cache
def _times_added() -> float:
    """How often the installed peft adds the delta of an attention's output matrix."""
    module = nn.Sequential(nn.MultiheadAttention(1, 1, bias=False)).requires_grad_(False)
    wrapped = get_peft_model(module, LoraConfig(r=1, lora_alpha=1, target_modules=["0"]))
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:
            parameter.data.fill_(1.0 if "out_proj" in name else 0.0)
    weight = next(p for name, p in wrapped.named_parameters() if name.endswith("out_proj.base_layer.weight"))
    before = float(weight.detach())
    return round(float(wrapped.merge_and_unload()[0].out_proj.weight.detach()) - before, 3)


def save_adapter(
    model: CustomTextCLIP, matrices: Sequence[Matrix], factors: Factors, folder: Path, scale: float = 1.0
) -> None:
    """Write the adapter in peft's format (``adapter_config.json``, ``adapter_model.safetensors``) for
    ``PeftModel.from_pretrained(model, folder)``. ``model`` is left as it was."""
    wrapped = attach(model, matrices, factors, scale)
    try:
        wrapped.save_pretrained(str(folder))
    finally:
        wrapped.unload()
    # peft's own README is an unfilled model-card template; the run folder's report says what the adapter is
    (folder / "README.md").unlink(missing_ok=True)
