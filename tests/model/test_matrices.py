"""Every placement on a real model: which matrices it adapts, and what peft makes of the adapter that is saved."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from open_clip.model import CustomTextCLIP
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small_clip import COCA, CONFIG, SHAPES, SIGLIP, placements_and_lasts, small_clip
from torch import Tensor

from flora_secure.errors import AdapterError
from flora_secure.model.factors import Factors, blocks, fresh_factors
from flora_secure.model.matrices import Matrix, TextProjection, matrices_of, visual_unprojected
from flora_secure.model.peft_format import merge, output_added, read_adapter, save_adapter
from flora_secure.planning.placements import PLACEMENTS

EVERY = pytest.mark.parametrize(
    ("placement", "last"), placements_and_lasts(), ids=lambda part: getattr(part, "name", str(part))
)


@pytest.fixture(params=[CONFIG, SIGLIP, COCA], ids=["clip", "siglip", "coca"])
def model(request: pytest.FixtureRequest) -> CustomTextCLIP:
    torch.manual_seed(0)
    return small_clip(request.param)


def drawn(matrices: tuple[Matrix, ...], rank: int = 3) -> Factors:
    generator = torch.Generator().manual_seed(1)
    factors = fresh_factors(matrices, rank, generator)
    return Factors(a=factors.a, b=torch.randn(factors.b.shape, generator=generator))


def by_hand(model: CustomTextCLIP, matrices: tuple[Matrix, ...], factors: Factors, scale: float) -> CustomTextCLIP:
    """A copy of the model whose stored weights have the adapters' products added, place by place."""
    changed = deepcopy(model)
    for matrix, (a, b) in zip(matrices, blocks(matrices, factors), strict=True):
        weight = dict(changed.named_parameters())[f"{matrix.tower}.{matrix.parameter}"].data
        product = scale * a @ b
        if matrix.row is not None:
            weight[matrix.row : matrix.row + matrix.outputs] += product.T
        else:
            weight += product.T if matrix.transposed else product
    return changed


def outputs(model: torch.nn.Module) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, 49, (5, 8), generator=generator)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    return model.encode_text(tokens), model.encode_image(images)


@EVERY
def test_its_matrices_have_the_sizes_that_plan_counts(model, placement, last) -> None:
    found = [(matrix.inputs, matrix.outputs) for matrix in matrices_of(model, placement, last)]
    assert found == placement.matrices(SHAPES, last)


@EVERY
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_saved_adapter_loads_with_peft_and_gives_the_same_embeddings(model, placement, last, scale, tmp_path) -> None:
    matrices = matrices_of(model, placement, last)
    factors = drawn(matrices)
    expected, before = outputs(by_hand(model, matrices, factors, scale)), outputs(model)
    moved = [not torch.allclose(new, old, atol=1e-3) for new, old in zip(expected, before, strict=True)]
    assert moved == [any(m.tower == tower for m in matrices) for tower in ("text", "visual")]

    weights = {name: value.clone() for name, value in model.state_dict().items()}
    save_adapter(model, matrices, factors, tmp_path, scale)
    assert dict.fromkeys(weights).keys() == model.state_dict().keys()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())

    loaded = PeftModel.from_pretrained(model, str(tmp_path))
    if all(matrix.parameter != "text_projection.weight" for matrix in matrices):  # that one has to be merged first
        torch.testing.assert_close(outputs(loaded), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs(loaded.merge_and_unload()), expected, rtol=1e-4, atol=1e-5)


@EVERY
def test_a_saved_adapter_is_read_back_and_merged(model, placement, last, tmp_path) -> None:
    matrices = matrices_of(model, placement, last)
    factors = drawn(matrices)
    save_adapter(model, matrices, factors, tmp_path, 0.5)
    found = read_adapter(tmp_path, matrices, factors.rank, output_added())
    assert torch.equal(found.a, factors.a)
    assert torch.equal(found.b, factors.b)
    expected = outputs(by_hand(model, matrices, factors, 0.5))
    merge(model, matrices, found, 0.5)
    torch.testing.assert_close(outputs(model), expected, rtol=1e-5, atol=1e-6)


def rewritten(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    values = load_file(path)
    change(values)
    save_file(values, path)


def _first(values) -> str:
    return min(values)


def _twice(values) -> None:
    name = _first(values)
    values[name.replace(".lora_", ".default.lora_")] = values[name] + 1


DAMAGES = [
    (_twice, "is of another placement or model"),
    (lambda v: v.update(more=torch.zeros(1)), "is of another placement or model: 'more' does not fit"),
    (lambda v: v.pop(_first(v)), "is of another placement or model"),
    (lambda v: v.update({_first(v): v[_first(v)].double()}), r"is F64 .* must be F32|is larger"),
    (lambda v: v.update({_first(v): v[_first(v)][:1].clone()}), "and must be F32"),
    (lambda v: v.update({_first(v): v[_first(v)] * torch.nan}), "holds values that are no finite numbers"),
    (lambda v: v.update(more=torch.zeros(1 << 20)), "is larger than an adapter of rank 3"),
]


@pytest.mark.parametrize(("change", "what"), DAMAGES, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_such_adapter_is_not_read(model: CustomTextCLIP, change, what: str, tmp_path: Path) -> None:
    matrices = matrices_of(model, PLACEMENTS["text-attention-full"])
    save_adapter(model, matrices, drawn(matrices), tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(AdapterError, match=what):
        read_adapter(tmp_path, matrices, 3, output_added())


def test_values_where_no_matrix_is_are_found(model: CustomTextCLIP, tmp_path: Path) -> None:
    """Of query and value alone: peft would add to the keys, and what reads the adapter here would not."""
    matrices = matrices_of(model, PLACEMENTS["text-attention"])
    save_adapter(model, matrices, drawn(matrices), tmp_path)

    def keys_too(values) -> None:
        name = next(name for name in values if name.endswith("lora_B.weight") and "out_proj" not in name)
        values[name][matrices[0].inputs] = 1.0

    rewritten(tmp_path, keys_too)
    with pytest.raises(AdapterError, match="has values outside the adapted matrices"):
        read_adapter(tmp_path, matrices, 3, output_added())


def test_other_files_are_no_adapters(model: CustomTextCLIP, tmp_path: Path) -> None:
    matrices = matrices_of(model, PLACEMENTS["text-mlp"])
    with pytest.raises(AdapterError, match="cannot be read"):
        read_adapter(tmp_path, matrices, 3, 1.0)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(AdapterError, match="cannot be read"):
        read_adapter(tmp_path, matrices, 3, 1.0)
    with pytest.raises(AdapterError, match="rank 33 exceeds 32"):
        read_adapter(tmp_path, matrices, 33, 1.0)


@EVERY
def test_a_fresh_adapter_changes_nothing(model, placement, last) -> None:
    matrices = matrices_of(model, placement, last)
    factors = fresh_factors(matrices, 2, torch.Generator())
    torch.testing.assert_close(outputs(by_hand(model, matrices, factors, 1.0)), outputs(model), rtol=0, atol=0)


def test_without_its_last_matrix_the_image_tower_gives_what_that_reads(model: CustomTextCLIP) -> None:
    _, before = outputs(model)
    with visual_unprojected(model):
        _, pooled = outputs(model)
    torch.testing.assert_close(pooled @ model.visual.proj, before)
    torch.testing.assert_close(outputs(model)[1], before, rtol=0, atol=0)


def test_without_its_projection_the_text_tower_gives_what_that_reads(model: CustomTextCLIP) -> None:
    tokens = torch.randint(1, 49, (5, 8), generator=torch.Generator().manual_seed(2))
    projection, before = TextProjection.of(model.text), model.encode_text(tokens)
    pooled = torch.func.functional_call(model.text, projection.identity, (tokens,))
    assert pooled.shape == (5, 32)
    torch.testing.assert_close(projection(pooled), before)
    model.text.text_projection = None
    torch.testing.assert_close(pooled, model.encode_text(tokens))
    assert TextProjection.of(model.text)(pooled) is pooled
    with pytest.raises(AdapterError, match=r"the text tower has no projection to adapt; use another model\.placement"):
        matrices_of(model, PLACEMENTS["text-projection"])


def test_what_a_model_lacks_is_said(model: CustomTextCLIP) -> None:
    attention = PLACEMENTS["visual-attention"]
    with pytest.raises(AdapterError, match="last_layers 3 is more than the visual tower's 2 blocks"):
        matrices_of(model, attention, 3)
    with pytest.raises(AdapterError, match="rank 17 exceeds 16, the rank of the smallest adapted matrix"):
        fresh_factors(matrices_of(model, attention), 17, torch.Generator())
    model.visual = torch.nn.Linear(2, 2)
    with pytest.raises(
        AdapterError, match=r"no matrices for model\.placement visual-attention; use one of the text tower"
    ):
        matrices_of(model, attention)
    with pytest.raises(AdapterError, match="does not end in a matrix onto the embedding"):
        matrices_of(model, PLACEMENTS["visual-projection"])


def test_a_saved_adapter_is_all_that_is_in_its_folder(model: CustomTextCLIP, tmp_path: Path) -> None:
    matrices = matrices_of(model, PLACEMENTS["text-mlp"])
    save_adapter(model, matrices, drawn(matrices), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
