"""Models of SigLIP's kind: an image tower that ends in attention, a text tower that ends in a matrix and a bias."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from federations import FEW, finish, prepare, small
from measure_architectures import measure
from peft import PeftModel
from safetensors.torch import save_file
from small_clip import SIGLIP, small_clip
from torch.nn import functional as F  # noqa: N812

from flora_secure.client.closed_form import ClosedForm
from flora_secure.data.federation import Federation, load_federation
from flora_secure.engine.task import Task
from flora_secure.errors import AdapterError, ConfigError
from flora_secure.model.clip import Clip, ModelError, class_prompts
from flora_secure.model.loading import load_clip
from flora_secure.planning.architectures import architecture
from flora_secure.planning.config import RunConfig
from flora_secure.planning.rules import RULES
from flora_secure.records.forecast import forecast

CONFIG = {
    **SIGLIP,
    "embed_dim": 64,
    # of timm's, for its tests: 160 pixels, 64 wide; pooled and ended as SigLIP's are
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    # SigLIP's own tokenizers lie on a hub: this is CLIP's
    "text_cfg": {**SIGLIP["text_cfg"], "vocab_size": 49_408, "context_length": 12},
}


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The model and its weights, in an open_clip folder, as a run names them."""
    path = tmp_path_factory.mktemp("models") / "small-sigmoid.json"  # by "siglip" open_clip would know a tokenizer
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    torch.manual_seed(1)
    folder = path.parent / "weights"
    folder.mkdir()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": {**CONFIG, "custom_text": True}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = {key: value.contiguous() for key, value in small_clip(CONFIG).state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return {"model__model": path.stem, "model__pretrained": str(folder)}


def loaded(siglip: dict[str, Any]) -> Clip:
    return load_clip(siglip["model__model"], siglip["model__pretrained"])


def task_of(config: RunConfig, images: int = 60) -> Task:
    torch.set_num_threads(1)
    federation = load_federation(config.data, config.seed)
    data = federation.dataset
    few = np.arange(images)
    data = replace(data, private=data.private.at(few), test=data.test.at(few), templates=data.templates[:2])
    unseen = data.unseen and replace(data.unseen, test=data.unseen.test.at(np.arange(min(20, len(data.unseen.test)))))
    return prepare(config, Federation(replace(data, unseen=unseen), np.array_split(few, 10)))


def through_peft(task: Task, adapter: Path, siglip: dict[str, Any], names: tuple[str, ...]) -> torch.Tensor:
    """Class embeddings by open_clip and peft alone: the normalised mean of a class's prompts."""
    fresh = loaded(siglip)
    model = PeftModel.from_pretrained(fresh.model, str(adapter)).merge_and_unload()
    prompts = class_prompts(names, task.federation.dataset.templates)
    with torch.no_grad():
        return F.normalize(torch.stack([model.encode_text(fresh.tokenizer(group)).mean(0) for group in prompts]))


def test_the_model_is_what_open_clip_makes_of_the_folder(siglip) -> None:
    clip, own = loaded(siglip), open_clip.create_model(f"local-dir:{siglip['model__pretrained']}")
    assert clip.projection.bias is not None
    assert clip.mean == clip.std == (0.5, 0.5, 0.5)
    texts = ["a photo of a coat", "a bag"]
    with torch.no_grad():
        expected = own.eval().encode_text(clip.tokenizer(texts))
    torch.testing.assert_close(clip.projection(clip.pooled_text_features(texts)), expected)
    assert clip.text_projection.shape == (32, 64)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_every_rule_trains_the_text_projection(rule: str, siglip, tmp_path: Path) -> None:
    """Those of the run and, through peft, of its saved adapter: the same embeddings, of classes unseen in it too."""
    changes = {
        **FEW,
        **siglip,
        "model__rule": rule,
        "model__alpha": 20.0,
        "data__unseen_classes": ("digit 2", "digit 7"),
    }
    config = small(**changes)
    task = task_of(config)
    assert isinstance(task.learner, ClosedForm)
    simulation = finish(config, task)
    assert float(simulation.factors.b.abs().max()) > 1e-3
    simulation.save_adapter(tmp_path)
    data = task.federation.dataset
    texts, _ = task.evaluator.test(simulation.factors)
    torch.testing.assert_close(through_peft(task, tmp_path, siglip, data.class_names), texts, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(texts, task.evaluator.test(task.frozen)[0], atol=1e-3)
    assert data.unseen is not None
    assert task.evaluator.unseen is not None
    others = task.evaluator.unseen[0](simulation.factors)
    found = through_peft(task, tmp_path, siglip, data.unseen.class_names)
    torch.testing.assert_close(found, others[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__placement": "text-attention"},
        {"model__placement": "text-attention-full", "model__last_layers": 1},
        {"model__placement": "text-mlp", "model__rule": "ab"},
    ],
    ids=lambda changes: changes["model__placement"],
)
def test_placements_in_the_text_tower_train(changes, siglip, tmp_path: Path) -> None:
    config = small(**FEW, **siglip, **changes)
    task = task_of(config)
    simulation = finish(config, task)
    assert float(simulation.factors.b.abs().max()) > 1e-4
    simulation.save_adapter(tmp_path)
    texts, images = task.evaluator.test(simulation.factors)
    found = through_peft(task, tmp_path, siglip, task.federation.dataset.class_names)
    torch.testing.assert_close(found, texts, rtol=1e-3, atol=1e-4)
    own = loaded(siglip).model.encode_image(task.clip.pixels(task.federation.dataset.test.images))
    torch.testing.assert_close(images, F.normalize(own, dim=-1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("placement", ["visual-projection", "both-projections"])
def test_its_image_tower_ends_in_no_matrix(placement: str, siglip) -> None:
    with pytest.raises(AdapterError, match="the image tower does not end in a matrix onto the embedding"):
        task_of(small(**FEW, **siglip, model__placement=placement))
    with pytest.raises(ConfigError, match=f"SigLIP's image tower has no matrix for model.placement {placement}"):
        forecast(small(model__model="ViT-B-16-SigLIP", model__placement=placement))


def test_plan_knows_the_sizes(siglip) -> None:
    size = architecture("ViT-B-16-SigLIP")
    assert size.parameters == 203_155_970  # as its authors' model card has it: 203 M
    assert size.dimension(small(model__rule="frozen-a", model__rank=1).model) == 768
    assert forecast(small(model__model="ViT-B-16-SigLIP")).communication.upload_values == 10 * 768
    measured = measure(CONFIG)
    assert measured["parameters"] == loaded(siglip).parameter_count
    assert (measured["width"], measured["embed"], measured["visual_pooled"]) == (32, 64, None)


def test_a_tower_without_a_projection_has_its_other_placements(siglip, tmp_path: Path) -> None:
    """As ViT-SO400M-16-SigLIP-i18n-256's: the projection alone cannot be adapted."""
    text = {**CONFIG["text_cfg"], "proj_type": "none", "width": 64}
    path = tmp_path / "no-projection.json"
    path.write_text(json.dumps({**CONFIG, "text_cfg": text}))
    open_clip.add_model_config(path)
    given = {"model__model": path.stem, "model__pretrained": "none"}
    with pytest.raises(ModelError, match=r"'no-projection' has no text projection to adapt; use another model\.placem"):
        task_of(small(**FEW, **given))
    with pytest.raises(AdapterError, match=r"the text tower has no projection to adapt; use another model\.placement"):
        task_of(small(**FEW, **given, model__placement="both-projections"))
    config = small(**FEW, **given, model__placement="text-attention")
    task = task_of(config)
    simulation = finish(config, task)
    simulation.save_adapter(tmp_path)
    texts, _ = task.evaluator.test(simulation.factors)
    assert not torch.allclose(texts, task.evaluator.test(task.frozen)[0], atol=1e-3)
    found = through_peft(task, tmp_path, given, task.federation.dataset.class_names)
    torch.testing.assert_close(found, texts, rtol=1e-3, atol=1e-4)


def test_plan_tells_a_tower_without_a_projection() -> None:
    name = "ViT-SO400M-16-SigLIP-i18n-256"
    for placement in ("text-projection", "both-projections"):
        with pytest.raises(
            ConfigError, match=f"{name}'s text tower has no projection for model.placement {placement}; use another"
        ):
            forecast(small(model__model=name, model__placement=placement))
    found = forecast(small(model__model=name, model__placement="text-attention", model__rank=1))
    assert found.communication.upload_values == 27 * 2 * 1152
