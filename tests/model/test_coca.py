"""CoCa's contrastive half: the embeddings that the whole model gives, without its decoder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from federations import FEW, finish, prepare, small
from measure_architectures import measure
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP
from peft import PeftModel
from small_clip import CONFIG
from torch.nn import functional as F  # noqa: N812

from flora_secure.data.federation import Federation, load_federation
from flora_secure.model.clip import ModelError, class_prompts, joined
from flora_secure.model.loading import load_clip
from flora_secure.planning.architectures import architecture
from flora_secure.records.forecast import forecast

TEXT = {"context_length": 12, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 2}
PARTS = {
    **CONFIG,
    "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    "custom_text": True,
}
POOLED = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 5}
# coca_base pools by its class token, the others by attention
CONFIGS = {
    name: {**PARTS, "vision_cfg": {**CONFIG["vision_cfg"], **pool, "output_tokens": True}}
    for name, pool in (("token-coca", {}), ("attention-coca", POOLED))
}
TEXTS = ["a photo of a coat", "a bag", "an image of a dark ankle boot"]


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("models")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def whole(name: str) -> CoCa:
    """With weights of its own, in evaluation mode."""
    torch.manual_seed(3)
    model = open_clip.create_model(name).eval()
    assert isinstance(model, CoCa)
    return model


def test_the_half_gives_the_whole_models_embeddings(name: str, tmp_path: Path) -> None:
    model = whole(name)
    torch.save(model.state_dict(), tmp_path / "coca.pt")
    clip = load_clip(name, tmp_path / "coca.pt")
    assert type(clip.model) is CustomTextCLIP
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    with torch.no_grad():
        texts, seen = model.encode_text(clip.tokenizer(TEXTS)), model.encode_image(clip.pixels(images))
        found = clip.model.encode_text(clip.tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(found, texts)
    torch.testing.assert_close(clip.image_features(images), seen)
    torch.testing.assert_close(F.normalize(clip.projection(clip.pooled_text_features(TEXTS)), dim=-1), texts)
    assert float((texts[0] - texts[1]).norm()) > 1e-3
    projected = clip.pooled_image_features(images)[:, 0] @ clip.model.visual.proj
    torch.testing.assert_close(F.normalize(projected, dim=-1), seen)


def test_its_size_is_that_of_the_two_towers(name: str) -> None:
    model = whole(name)
    expected = sum(p.numel() for part in (model.visual, model.text) for p in part.parameters()) + 1
    decoder = sum(p.numel() for p in model.text_decoder.parameters())
    assert sum(p.numel() for p in model.parameters()) == expected + decoder
    clip = load_clip(name, "none")
    assert clip.parameter_count == expected == measure(CONFIGS[name])["parameters"]
    assert not any("decoder" in key for key in clip.model.state_dict())
    assert not any(value.is_meta for value in clip.model.state_dict().values())


def test_the_decoder_must_fit_too(tmp_path: Path) -> None:
    """A checkpoint is taken whole: one without a decoder, or with another's, is of another model."""
    weights = whole("token-coca").state_dict()
    del weights["text_decoder.ln_final.bias"]
    torch.save(weights, tmp_path / "coca.pt")
    with pytest.raises(ModelError, match=r"do not fit model 'token-coca': text_decoder\.ln_final\.bias is missing"):
        load_clip("token-coca", tmp_path / "coca.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {"model__placement": "text-projection"},
        {"model__placement": "text-attention", "model__last_layers": 1},
        {"model__placement": "text-mlp", "model__rule": "ab"},
        {"model__placement": "both-projections"},
        {"model__placement": "visual-attention"},
    ],
    ids=lambda changes: changes["model__placement"],
)
def test_it_trains_and_its_saved_adapter_predicts_the_same(changes, name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = small(**FEW, model__model=name, model__pretrained="none", **changes)
    federation = load_federation(config.data, config.seed)
    data, few = federation.dataset, np.arange(40)
    data = replace(data, private=data.private.at(few), test=data.test.at(few), templates=data.templates[:2])
    task = prepare(config, Federation(data, np.array_split(few, 10)))
    simulation = finish(config, task)
    assert float(simulation.factors.b.abs().max()) > 1e-4
    simulation.save_adapter(tmp_path)

    fresh = load_clip(name, "none")
    loaded = PeftModel.from_pretrained(fresh.model, str(tmp_path))
    with torch.no_grad():
        prompts = class_prompts(data.class_names, data.templates)
        texts = torch.stack([loaded.encode_text(fresh.tokenizer(group)).mean(0) for group in prompts])
        images = joined(loaded.encode_image(fresh.pixels(data.test.images))[:, None])
    expected_texts, expected_images = task.evaluator.test(simulation.factors)
    torch.testing.assert_close(F.normalize(texts, dim=-1), expected_texts, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(images, expected_images, rtol=1e-3, atol=1e-4)


def test_plan_knows_the_sizes_of_the_towers() -> None:
    assert architecture("coca_ViT-B-32").parameters < architecture("coca_ViT-L-14").parameters
    found = forecast(small(model__model="coca_ViT-L-14"))
    assert found.communication.upload_values == 10 * 768
