"""Exported weights: plain open_clip loads them and gives embeddings of one view and text, on every placement."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from federations import FEW, captioned, few_images, kept, prepare, small
from small_clip import CONFIG, SIGLIP
from test_classifier import PLACEMENTS

from flora_secure.data.federation import load_federation
from flora_secure.errors import ConfigError
from flora_secure.model.trained.classifier import Classifier, load

TEXTS = ["a photo of a dog", "the number 7!", "It's a well-known thing; isn't it?", "", "word " * 40, "café 你好"]


def one_view(classifier: Classifier) -> Classifier:
    return replace(classifier, card=replace(classifier.card, mirror=False, crops=1))


def require_same(classifier: Classifier, out: Path, texts: list[str] = TEXTS) -> None:
    classifier.export(out)
    plain = open_clip.create_model(f"local-dir:{out}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    with torch.no_grad():
        image = plain.encode_image(classifier.clip.pixels(images), normalize=True)
        text = plain.encode_text(tokenizer(texts), normalize=True)
    np.testing.assert_allclose(image.numpy(), one_view(classifier).embed(images), atol=1e-5)
    with pytest.warns(UserWarning, match="keep their beginning"):
        own = classifier.embed_text(texts)
    np.testing.assert_allclose(text.numpy(), own, atol=1e-5)
    fresh = load_plain(classifier)
    difference = [not torch.equal(fresh[name], value) for name, value in plain.state_dict().items()]
    assert any(difference)  # the adapter is in it


def load_plain(classifier: Classifier) -> dict[str, torch.Tensor]:
    from flora_secure.model.loading import load_clip

    weights = {"random": "none"}.get(classifier.card.weights)
    return load_clip(classifier.card.model, weights).model.state_dict()


@pytest.mark.parametrize("changes", PLACEMENTS[1:8], ids=lambda c: c["model__placement"])
def test_every_placement(changes: dict[str, Any], transformer: str, tmp_path: Path) -> None:
    model = {"model__model": transformer, "model__pretrained": "none", **changes}
    require_same(load(kept(small(**FEW, **model), few_images(**model), tmp_path / "run")), tmp_path / "out")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    config = small(**{**FEW, "privacy__epsilon": 50.0})
    task = few_images(privacy__epsilon=50.0)
    return load(kept(config, task, tmp_path_factory.mktemp("tiny") / "run"))


@pytest.mark.parametrize("placement", ["text-attention-full", "both-projections"])
def test_the_embedded_model(placement: str, tmp_path: Path) -> None:
    changes = {"model__placement": placement}
    require_same(load(kept(small(**FEW, **changes), few_images(**changes), tmp_path / "run")), tmp_path / "out")


def test_its_own_vocabulary(tiny: Classifier, tmp_path: Path) -> None:
    """open_clip's tokenizer of the folder makes the tokens of the embedded one, up to what fills up behind the end."""
    require_same(tiny, tmp_path / "out")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    own, theirs = tiny.clip.tokenizer(TEXTS), tokenizer(TEXTS)
    end = own.argmax(1, keepdim=True)
    seen = torch.arange(own.shape[1]) <= end
    assert torch.equal(own[seen], theirs[seen])


PROGRAM = """
import sys, numpy, open_clip, torch
from PIL import Image
out, result = sys.argv[1:]
model, _, transform = open_clip.create_model_and_transforms("local-dir:" + out)
tokens = open_clip.get_tokenizer("local-dir:" + out)(["a photo of a coat", "a bag"])
pixels = transform(Image.fromarray(numpy.arange(56 * 56, dtype=numpy.uint8).reshape(56, 56)))[None]
with torch.no_grad():
    text, image = model.eval().encode_text(tokens, normalize=True), model.encode_image(pixels, normalize=True)
numpy.savez(result, text=text, image=image)
assert not [name for name in sys.modules if name.startswith(("flora", "peft"))]
"""


def test_a_process_that_knows_open_clip_alone(tiny: Classifier, tmp_path: Path) -> None:
    """With open_clip's own preprocessing, of an image that has the model's size."""
    tiny.export(tmp_path / "out")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out"), str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, cwd=tmp_path, env=clean, timeout=300)
    found = np.load(tmp_path / "found.npz")
    image = np.arange(56 * 56, dtype=np.uint8).reshape(1, 56, 56)
    np.testing.assert_allclose(found["text"], tiny.embed_text(["a photo of a coat", "a bag"]), atol=1e-5)
    np.testing.assert_allclose(found["image"], one_view(tiny).embed(image), atol=1e-5)


def test_what_the_folder_says(tiny: Classifier, tmp_path: Path) -> None:
    tiny.export(tmp_path / "deep" / "out")
    text = (tmp_path / "deep" / "out" / "README.txt").read_text()
    assert tiny.report is not None
    assert f"epsilon = {tiny.report.privacy.epsilon:.4g}, delta = {tiny.report.privacy.delta:g}, unit client" in text
    assert "SIMULATED NOISE" in text
    assert tiny.card.adapter_hash in text
    assert tiny.card.model_hash in text
    assert json.loads((tmp_path / "deep" / "out" / "card.json").read_text())["class_names"] == tiny.card.class_names
    assert "not known here" in exported(replace(tiny, report=None), tmp_path / "alone")
    without = replace(tiny.report, privacy=replace(tiny.report.privacy, epsilon=None))
    assert "NO DIFFERENTIAL PRIVACY" in exported(replace(tiny, report=without), tmp_path / "open")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "deep", "open"]


def exported(classifier: Classifier, out: Path) -> str:
    classifier.export(out)
    return (out / "README.txt").read_text()


def test_nothing_is_overwritten_and_nothing_half_written(tiny: Classifier, tmp_path: Path, monkeypatch) -> None:
    for path in (tmp_path / "there", tmp_path / "link"):
        path.symlink_to("nowhere") if path.name == "link" else path.mkdir()
        with pytest.raises(ConfigError, match="exists already"):
            tiny.export(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        tiny.export(tmp_path / "file" / "out")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flora_secure.model.trained.export.save_file", crash)
    with pytest.raises(KeyboardInterrupt):
        tiny.export(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "there"]


TEXT = {"context_length": 12, "vocab_size": 49_408}
KINDS: dict[str, dict[str, Any]] = {
    # SigLIP's bias on the text projection, its pooling in the image tower (of timm's, for its tests)
    "small-sigmoid-export": {
        **SIGLIP,
        "embed_dim": 64,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**SIGLIP["text_cfg"], **TEXT},
    },
    "small-quick-export": {**CONFIG, "quick_gelu": True, "text_cfg": {**CONFIG["text_cfg"], **TEXT}},
    "small-coca-export": {
        **CONFIG,
        "vision_cfg": {
            **CONFIG["vision_cfg"],
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 5,
            "output_tokens": True,
        },
        "text_cfg": {"width": 32, "heads": 2, "layers": 2, **TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"width": 32, "heads": 2, "layers": 2, **TEXT, "attn_pooler_heads": 2},
        "custom_text": True,
    },
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("placement", ["text-projection", "text-mlp"])
def test_other_kinds_of_towers(name: str, placement: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.json").write_text(json.dumps(KINDS[name]))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    model = {"model__model": name, "model__pretrained": "none", "model__placement": placement}
    require_same(load(kept(small(**FEW, **model), few_images(**model), tmp_path / "run")), tmp_path / "out")


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "mt5", "nllb"])
def test_text_towers_of_transformers(kind: str, tmp_path: Path) -> None:
    from test_hf_text import TOWERS, added

    name = added(kind, tmp_path, **TOWERS[kind][1])
    model = {"model__model": name, "model__pretrained": "none"}
    classifier = load(kept(small(**FEW, **model), few_images(**model), tmp_path / "run"))
    require_same(classifier, tmp_path / "out", ["a photo of a digit", "two", "one " * 20])
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_a_run_on_captions(tmp_path: Path) -> None:
    config = small(**FEW)
    task = prepare(config, captioned(load_federation(config.data, config.seed)))
    classifier = load(kept(config, task, tmp_path / "run"))
    require_same(classifier, tmp_path / "out")
    assert "there are no classes" in (tmp_path / "out" / "README.txt").read_text()
