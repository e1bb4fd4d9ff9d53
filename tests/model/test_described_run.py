"""A run on a model that a folder describes, and on a tag's own activation: what is kept with the adapter says enough
to have the same model again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from federations import FEW, few_images, kept, small
from safetensors.torch import save_file
from test_described import NAME, architectures, folder_of, other, tagged  # noqa: F401 (the fixture registers NAME)
from test_export import one_view

import flora_secure
from flora_secure.auditing.folder import audit
from flora_secure.errors import ConfigError, ModelError
from flora_secure.model.trained.classifier import load
from flora_secure.planning.architectures import architecture

ODD = {"text__no_causal_mask": True, "text__heads": 4, "vision__pool_type": "avg", "quick_gelu": True}
PREPROCESS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder "own" and, beside it, a run on it."""
    path = tmp_path_factory.mktemp("described")
    folder = folder_of(path / "own", other(**ODD), **PREPROCESS)
    model = {"model__model": f"local-dir:{folder}"}
    return kept(small(**FEW, **model), few_images(**model), path / "run")


def test_the_adapter_finds_its_model_again(run: Path, tmp_path: Path) -> None:
    classifier = load(run)
    card = classifier.card
    assert (card.model, card.weights, card.pretrained) == ("local-dir:own", "local", "own")
    assert str(run.parent) not in (run / "adapter" / "flora.json").read_text()
    images = few_images(model__model=f"local-dir:{run.parent / 'own'}").federation.dataset.test
    answers = classifier.predict(images.images)
    right = [guess.name == card.class_names[label] for guess, label in zip(answers.answers, images.labels, strict=True)]
    assert np.mean(right) == pytest.approx(classifier.report.accuracy.final, abs=1e-6)
    with pytest.raises(ModelError, match=r"local file or folder 'own': name it by model\.pretrained"):
        load(run / "adapter")
    moved = shutil.copytree(run.parent / "own", tmp_path / "own")
    assert load(run / "adapter", pretrained=moved).card == card


@pytest.mark.parametrize("field", [{"text__no_causal_mask": False}, {"text__heads": 2}, {"quick_gelu": False}])
def test_a_folder_that_was_changed_since_is_another_model(field: dict[str, Any], run: Path, tmp_path: Path) -> None:
    """Its tensors are the same."""
    moved = shutil.copytree(run.parent / "own", tmp_path / "own")
    table = {"model_cfg": other(**{**ODD, **field}), "preprocess_cfg": PREPROCESS}
    (moved / "open_clip_config.json").write_text(json.dumps(table))
    with pytest.raises(ModelError, match="belongs to another model: 'local-dir:own' with SHA-256"):
        load(run / "adapter", pretrained=moved)


def test_its_export_is_that_model(run: Path, tmp_path: Path) -> None:
    classifier = load(run)
    classifier.export(tmp_path / "out")
    source = f"local-dir:{tmp_path / 'out'}"
    plain, tokenizer = open_clip.create_model(source).eval(), open_clip.get_tokenizer(source)
    assert {key: plain.visual.preprocess_cfg[key] for key in PREPROCESS} == PREPROCESS
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    with torch.no_grad():
        image = plain.encode_image(classifier.clip.pixels(images), normalize=True)
        text = plain.encode_text(tokenizer(["a dog", "7"]), normalize=True)
    np.testing.assert_allclose(image.numpy(), one_view(classifier).embed(images), atol=1e-5)
    np.testing.assert_allclose(text.numpy(), classifier.embed_text(["a dog", "7"]), atol=1e-5)
    # and it is a model to train on
    again = few_images(model__model=source)
    assert again.clip.config["text_cfg"]["heads"] == 4


def test_the_audit_knows_it_by_its_name(run: Path) -> None:
    findings = {finding.check: finding for finding in audit(run, opacus=False).findings}
    assert findings["A-35"].severity == "ok", findings["A-35"]
    report = json.loads((run / "report.json").read_text())
    parameters = sum(value.numel() for value in load(run).clip.model.parameters())
    assert report["communication"]["full_model_bytes"] == 4 * parameters


def test_its_size_is_not_planned_with(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.model 'local-dir:x' is not known before it is loaded; use simulate"):
        architecture("local-dir:x")
    with pytest.raises(ConfigError, match="is not known before it is loaded"):
        flora_secure.plan(small(model__model=f"local-dir:{run.parent / 'own'}"))


def test_an_adapter_on_a_tag_of_the_other_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration names the architecture and the tag; whatever is read from them again has QuickGELU."""
    folder = folder_of(tmp_path / "w", other())
    tagged(monkeypatch, quick={"file": str(folder / "open_clip_model.safetensors"), "quick_gelu": True})
    model = {"model__model": NAME, "model__pretrained": "quick"}
    task = few_images(**model)
    assert any("QuickGELU" in line for line in task.warnings)
    path = kept(small(**FEW, **model), task, tmp_path / "run")
    classifier = load(path)
    assert (classifier.card.model, classifier.card.weights, classifier.card.pretrained) == (NAME, "tag", "quick")
    classifier.export(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]["quick_gelu"] is True
    tagged(monkeypatch, quick={"file": str(folder / "open_clip_model.safetensors")})  # a release that knows better
    with pytest.raises(ModelError, match="belongs to another model"):
        load(path)


def test_damaged_weights_are_named_where_an_adapter_is_used(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    moved = shutil.copytree(run.parent / "own", tmp_path / "own")
    tensors = load_file(moved / "open_clip_model.safetensors")
    tensors["ln_final.bias"][3] = float("nan")
    save_file(tensors, moved / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=r"are damaged: 1 values in text\.ln_final\.bias are no finite numbers"):
        load(run / "adapter", pretrained=moved)
