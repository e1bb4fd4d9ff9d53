"""Every placement on a real model: which matrices it adapts, and what peft makes of the adapter that is saved."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from open_clip.model import CustomTextCLIP
from peft import PeftModel
from small_clip import COCA, CONFIG, SHAPES, SIGLIP, placements_and_lasts, small_clip
from torch import Tensor

from flora_secure.errors import AdapterError
from flora_secure.model.factors import Factors, blocks, fresh_factors
from flora_secure.model.matrices import Matrix, TextProjection, matrices_of, visual_unprojected
from flora_secure.model.peft_format import save_adapter
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
