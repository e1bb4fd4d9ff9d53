"""Adapters in peft's format, which other people's tools read.

peft's LoRA adds `lora_B @ lora_A` (times alpha ÷ rank) to a parameter as it is stored. open_clip stores a projection
as (inputs, outputs), so there our A is peft's `lora_B` and our B its `lora_A`; a `nn.Linear` is stored as (outputs,
inputs), so there our A is `lora_A` transposed. Query, key and value of a `nn.MultiheadAttention` are one parameter,
for which peft has one `lora_A`: ours are stacked in it, at as many times the rank, and each `lora_B` is zero
outside its own rows. peft adapts such a module's output matrix too, ours by zeros where the placement leaves it alone;
today's releases add that matrix's delta twice (https://github.com/huggingface/peft/pull/3774), so what is saved is
divided by what the installed release does, and loads right with it.

Where the text projection is a `nn.Linear`, as SigLIP's, `PeftModel.from_pretrained(…).merge_and_unload()` gives the
adapted model: open_clip asks the projection whether it is one, which peft's wrapper around it, before merging, is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from open_clip.model import CustomTextCLIP
from safetensors import safe_open
from torch import Tensor, nn

from flora_secure.errors import AdapterError, first_line
from flora_secure.model.factors import Factors, blocks
from flora_secure.model.matrices import Matrix

if TYPE_CHECKING:
    from peft import PeftModel


def attach(model: CustomTextCLIP, matrices: Sequence[Matrix], factors: Factors, scale: float = 1.0) -> PeftModel:
    """`model` wrapped by peft (in place) with `scale · A B` on each matrix. No parameter requires a gradient."""
    from peft import LoraConfig, get_peft_model  # which takes as long to import as some runs; only saving needs it

    values = _values(matrices, factors, output_added())
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


def _values(matrices: Sequence[Matrix], factors: Factors, added: float) -> dict[str, Tensor]:
    attention = any(matrix.row is not None for matrix in matrices)
    return _attention(matrices, factors, added) if attention else _single(matrices, factors)


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


def _attention(matrices: Sequence[Matrix], factors: Factors, added: float) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    modules: dict[str, list[tuple[Matrix, Tensor, Tensor]]] = {}
    for matrix, (a, b) in zip(matrices, blocks(matrices, factors), strict=True):
        name = _module(matrix)
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
                out_a[:rank], out_b[:, :rank] = a.T, b.T / added
        values[f"{name}.lora_A"], values[f"{name}.lora_B"] = lora_a, lora_b
        values[f"{name}.base_layer.out_proj.lora_A"], values[f"{name}.base_layer.out_proj.lora_B"] = out_a, out_b
    return values


def _module(matrix: Matrix) -> str:
    """The attention that `matrix` belongs to."""
    return f"{matrix.tower}.{matrix.parameter}".split(".attn.")[0] + ".attn"


@cache
def output_added() -> float:
    """How often the installed peft adds the delta of an attention's output matrix."""
    from peft import LoraConfig, get_peft_model

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
    """Write the adapter in peft's format (`adapter_config.json`, `adapter_model.safetensors`) for
    `PeftModel.from_pretrained(model, folder)`. `model` is left as it was."""
    wrapped = attach(model, matrices, factors, scale)
    try:
        wrapped.save_pretrained(str(folder))
    finally:
        wrapped.unload()
    # peft's own README is an unfilled model-card template; the run folder's report says what the adapter is
    (folder / "README.md").unlink(missing_ok=True)


_HEADER = 1 << 20  # bytes of a safetensors file before its values, and more than any adapter's


def read_adapter(folder: Path, matrices: Sequence[Matrix], rank: int, added: float) -> Factors:
    """The factors that `save_adapter` wrote to `folder` for these `matrices`, float32, in the model's units.

    `added`: what `output_added` was then. peft's own configuration is not looked at. Nothing is allocated
    before names, types and shapes are known to fit. Raises `AdapterError`, one line, for a file that cannot be
    read or was written for other matrices, and for values that are no numbers.
    """
    file = folder / "adapter_model.safetensors"
    inputs, outputs = (sum(getattr(matrix, side) for matrix in matrices) for side in ("inputs", "outputs"))
    most = min(min(matrix.inputs, matrix.outputs) for matrix in matrices)
    if rank > most:
        raise AdapterError(f"{file}: rank {rank} exceeds {most}, the rank of the smallest adapted matrix")
    nothing = Factors(torch.empty(inputs, rank, device="meta"), torch.empty(rank, outputs, device="meta"))
    expected = _values(matrices, nothing, added)
    parameters = [f"{m.tower}.{m.parameter}" for m in matrices if not m.transposed]
    try:
        if file.stat().st_size > 4 * sum(value.numel() for value in expected.values()) + _HEADER:
            raise AdapterError(f"{file} is larger than an adapter of rank {rank} on this model")
        with safe_open(str(file), "pt") as stream:
            told = list(stream.keys())
            keys = {_plain(key, parameters) if ".lora_" in key else key: key for key in told}
            if wrong := sorted((keys.keys() ^ expected.keys()) | ({*told} - {*keys.values()})):
                raise AdapterError(f"{file} is of another placement or model: {wrong[0]!r:.80} does not fit")
            for name, key in keys.items():
                part = stream.get_slice(key)
                kind, shape = (part.get_dtype(), tuple(part.get_shape())), tuple(expected[name].shape)
                if kind != ("F32", shape):
                    raise AdapterError(f"{file}: {name!r} is {kind[0]} {kind[1]}, and must be F32 {shape}")
            values = {name: stream.get_tensor(key) for name, key in keys.items()}
    except AdapterError:
        raise
    except Exception as error:  # safetensors and the file system each raise their own kinds
        raise AdapterError(f"{file} cannot be read: {first_line(error)}") from None
    if bad := [name for name, value in values.items() if not bool(value.isfinite().all())]:
        raise AdapterError(f"{file} is damaged: {bad[0]!r:.80} holds values that are no finite numbers")
    factors = _factors(matrices, values, rank, added)
    again = _values(matrices, factors, added)
    if beyond := [name for name, value in values.items() if not torch.equal(value, again[name])]:
        raise AdapterError(f"{file}: {beyond[0]!r:.80} has values outside the adapted matrices")
    return factors


def _factors(matrices: Sequence[Matrix], values: dict[str, Tensor], rank: int, added: float) -> Factors:
    """The inverse of `_values`."""
    found, stacked = list[tuple[Tensor, Tensor]](), dict[str, int]()
    attention = any(matrix.row is not None for matrix in matrices)
    for matrix in matrices:
        name = _module(matrix) if attention else f"{matrix.tower}.{matrix.parameter}"
        if not attention and matrix.transposed:
            name = name.removesuffix(".weight")
        if attention and matrix.row is None:
            name += ".base_layer.out_proj"
        first, second = values[f"{name}.lora_A"], values[f"{name}.lora_B"]
        if not attention:
            found.append((first.T, second.T) if matrix.transposed else (second, first))
        elif matrix.row is None:
            found.append((first[:rank].T, second[:, :rank].T * added))
        else:
            place = stacked[name] = stacked.get(name, -1) + 1
            part = slice(place * rank, (place + 1) * rank)
            found.append((first[part].T, second[matrix.row : matrix.row + matrix.outputs, part].T))
    return Factors(a=torch.cat([a for a, _ in found]), b=torch.cat([b for _, b in found], dim=1))


@torch.no_grad()
def merge(model: CustomTextCLIP, matrices: Sequence[Matrix], factors: Factors, scale: float) -> None:
    """Add `scale · A B` to each matrix of `model`, in place."""
    for matrix, (a, b) in zip(matrices, blocks(matrices, factors), strict=True):
        parameter = getattr(model, matrix.tower).get_parameter(matrix.parameter)
        parameter.copy_(matrix.added(parameter, (scale * a @ b).to(parameter)))
