"""The embedded model: size, quality, and an interface that agrees with open_clip's own."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn.functional import interpolate, normalize

from flora_secure.data.class_names import TEMPLATES
from flora_secure.data.dataset import Dataset
from flora_secure.data.embedded.icons import ICONS_FOLDER
from flora_secure.data.embedded.packed import read_pack
from flora_secure.data.sources import load_dataset
from flora_secure.model import loading
from flora_secure.model.clip import Clip, ModelError, class_prompts
from flora_secure.model.image_views import ImageViews
from flora_secure.model.loading import EMBEDDED_FOLDER, VOCABULARY, load_clip
from flora_secure.server.scores import guessed

PROMPTS = ["a photo of a coat", "a bag", "an image of a dark ankle boot"]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("tiny")


def test_assets_are_complete_and_small() -> None:
    files = {path.name: path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()}
    wanted = "LICENSE NOTICE bpe_3500.txt.gz open_clip_config.json open_clip_model.safetensors pretraining.json"
    assert set(files) == set(wanted.split())
    assert sum(files.values()) <= 6_000_000


def test_frozen_custom_text_clip_in_evaluation_mode(clip: Clip) -> None:
    assert type(clip.model) is open_clip.model.CustomTextCLIP
    assert not clip.model.training
    assert not any(p.requires_grad for p in clip.model.parameters())
    assert dict(clip.model.named_parameters())["text.text_projection"].shape == clip.text_projection.shape
    assert clip.parameter_count == sum(p.numel() for p in clip.model.parameters())
    assert clip.full_model_bytes == 4 * clip.parameter_count
    assert 15 <= clip.model.logit_scale.exp() <= 50.01


def test_config_on_disk_is_what_open_clip_loads(clip: Clip) -> None:
    model = open_clip.create_model(f"local-dir:{EMBEDDED_FOLDER}")
    for name, value in model.state_dict().items():
        assert torch.equal(value, clip.model.state_dict()[name]), name
    config = json.loads((EMBEDDED_FOLDER / "open_clip_config.json").read_text(encoding="utf-8"))
    assert clip.image_size == (config["model_cfg"]["vision_cfg"]["image_size"],) * 2
    assert list(clip.mean) == config["preprocess_cfg"]["mean"]


def test_tokens_stay_in_the_cut_vocabulary(clip: Clip) -> None:
    tokens = clip.tokenizer([*PROMPTS, "ßø 你好 antidisestablishmentarianism " * 9])
    assert tokens.dtype == torch.int64
    assert tokens.shape == (4, clip.model.text.context_length)
    assert tokens.max() == clip.model.text.vocab_size - 1  # end of text: the pooling looks for the largest
    assert (tokens.max(1).values == tokens.max()).all()


@pytest.fixture
def residual(tmp_path: Path) -> str:
    """A convolutional network beside a text tower that the model holds in its own parts, as the first CLIPs do."""
    text = {"context_length": 77, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}
    path = tmp_path / "small-residual.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    return path.stem


@pytest.mark.parametrize("kind", ["tiny", "residual"])
def test_pooled_features_times_projection_is_encode_text(kind: str, residual: str) -> None:
    name = {"residual": residual}.get(kind, kind)
    clip = load_clip(name, None if name == "tiny" else "none")
    pooled = clip.pooled_text_features(PROMPTS)
    with torch.no_grad():
        wanted = clip.model.encode_text(clip.tokenizer(PROMPTS))
    assert pooled.shape == (3, clip.text_projection.shape[0])
    assert torch.allclose(pooled @ clip.text_projection, wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0


def test_class_features_average_the_templates(clip: Clip) -> None:
    prompts = class_prompts(["coat", "bag"], TEMPLATES)
    assert prompts[1] == [template.format("bag") for template in TEMPLATES]
    pooled = clip.pooled_class_features(prompts)
    for row, group in zip(pooled, prompts, strict=True):
        assert torch.allclose(row, clip.pooled_text_features(group).mean(0), atol=1e-5)


def test_image_features_equal_open_clip_image_by_image(clip: Clip) -> None:
    images = load_dataset("digits").test.images[:5]
    features = clip.image_features(images, batch=2)
    assert features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(5), atol=1e-5)
    for image, feature in zip(images, features, strict=True):
        x = interpolate(torch.from_numpy(image)[None, None] / 255, clip.image_size, mode="bilinear")
        x = (x.expand(-1, 3, -1, -1) - clip.mean[0]) / clip.std[0]
        with torch.no_grad():
            wanted = normalize(clip.model.encode_image(x), dim=-1)[0]
        assert torch.allclose(feature, wanted, atol=1e-4)


def test_grey_equals_colour_with_equal_channels(clip: Clip) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 100, 28), np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=3)
    assert torch.allclose(clip.image_features(grey), clip.image_features(colour), atol=1e-4)
    assert clip.image_features(grey[:0]).shape == (0, clip.text_projection.shape[1])


def test_an_embedding_of_views_is_their_mean(clip) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    both = clip.image_features(images) + clip.image_features(np.ascontiguousarray(images[:, :, ::-1]))
    mirrored = torch.nn.functional.normalize(both, dim=1)
    assert torch.allclose(clip.image_features(images, views=ImageViews(mirror=True)), mirrored, atol=1e-5)
    assert not torch.allclose(clip.image_features(images), mirrored, atol=1e-3)

    views = ImageViews(mirror=True, crops=4)
    with torch.no_grad():
        alone = [clip.model.encode_image(view, normalize=True) for view in views.of(clip.pixels(images))]
    expected = torch.nn.functional.normalize(sum(alone), dim=1)
    assert torch.allclose(clip.image_features(images, views=views), expected, atol=1e-5)
    assert not torch.allclose(mirrored, expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(28, 28), (2, 28, 28, 1), (2, 3, 28, 28)])
def test_other_shapes_are_refused(clip: Clip, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        clip.image_features(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="must be uint8"):
        clip.image_features(np.zeros((2, 28, 28), np.float32))


def test_hash_tells_weights_apart_and_random_ones_repeat(clip: Clip) -> None:
    random = load_clip("tiny", "none")
    assert clip.model_hash == load_clip("tiny").model_hash != random.model_hash
    assert load_clip("tiny", "none").model_hash == random.model_hash
    assert random.parameter_count == clip.parameter_count


def test_weights_from_a_file(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(clip.model.state_dict(), path)
    assert load_clip("tiny", path).model_hash == clip.model_hash


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-Z-9", None, "unknown model.model 'ViT-Z-9'"),
        ("ViT-B-32", None, "'ViT-B-32' needs weights.*laion2b_s34b_b79k"),
        ("ViT-B-32", "latest", "no weights 'latest'.*laion2b_s34b_b79k"),
        ("tiny", "absent.pt", "no weights 'absent.pt'"),
    ],
)
def test_unknown_models_and_weights(model: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_clip(model, pretrained)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_unreadable_weights_are_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot load weights") as caught:
        load_clip("tiny", path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model(tmp_path: Path) -> None:
    torch.save({"visual.conv1.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"weights .*other\.pt.* do not fit model 'tiny': logit_scale is missing"):
        load_clip("tiny", tmp_path / "other.pt")


def test_zero_shot_and_linear_probe_from_the_shipped_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of docs/model-card.md, of one view, from every fourth image: nothing here was chosen on the test
    images. All 4,000 of those are read by the README's first command (tests/cli/test_readme.py)."""
    import evaluate_tiny_clip as script

    def quarter(*given: object) -> Dataset:
        data = load_dataset(*given)
        parts = {name: getattr(data, name) for name in ("private", "public", "test")}
        return replace(data, **{name: part.at(np.arange(0, len(part), 4)) for name, part in parts.items()})

    monkeypatch.setattr(script, "ImageViews", lambda *_, **__: ImageViews())
    monkeypatch.setattr(script, "load_dataset", quarter)
    figures = script.evaluate()
    assert 66 <= figures["zero_shot"] <= 74
    assert figures["probe_private"] >= 85
    assert figures["probe_private"] > figures["probe_public"] - 1


def zero_shot(clip: Clip, images: np.ndarray, names: list[str]) -> torch.Tensor:
    text = clip.pooled_class_features(class_prompts(names, TEMPLATES)) @ clip.text_projection
    return (clip.image_features(images) @ normalize(text, dim=-1).T).argmax(1)


def test_what_is_neither_clothes_nor_an_icon_is_embedded_sensibly(clip: Clip) -> None:
    """Zero-shot answers about digits, and about drawn shapes, that guessing does not explain."""
    digits = load_dataset("digits")
    every = np.concatenate([split.images for split in (digits.private, digits.public, digits.test)])
    labels = np.concatenate([split.labels for split in (digits.private, digits.public, digits.test)])
    right = int((zero_shot(clip, every, list(digits.class_names)).numpy() == labels).sum())
    assert not guessed(right, len(every), 1 / 10)
    names, images = drawn_shapes(12)
    right = int((zero_shot(clip, images, names) == torch.arange(len(names)).repeat_interleave(12)).sum())
    assert not guessed(right, len(images), 1 / len(names))


def drawn_shapes(each: int) -> tuple[list[str], np.ndarray]:
    """Names of shapes and so many pictures of each, uint8 (n, 28, 28), filled and as outlines, large and small."""
    turns = {"triangle": (3, 0.0), "square": (4, 0.125), "diamond": (4, 0.0), "pentagon": (5, 0.0), "circle": (40, 0.0)}
    images = []
    for corners, turn in turns.values():
        for number in range(each):
            picture = Image.new("L", (112, 112))
            size = 30 + 3 * (number // 2)
            angles = 2 * np.pi * (turn + np.arange(corners) / corners)
            points = [(56 + size * np.sin(angle), 56 - size * np.cos(angle)) for angle in angles]
            if number % 2:
                ImageDraw.Draw(picture).polygon(points, fill=255)
            else:
                ImageDraw.Draw(picture).line([*points, points[0], points[1]], fill=255, width=7, joint="curve")
            images.append(np.asarray(picture.resize((28, 28), Image.Resampling.BOX)))
    return list(turns), np.stack(images)


def test_no_image_of_clients_or_tests_was_seen_in_the_pretraining() -> None:
    """By content: digests of all icons that it saw are in a file; of the clothes it saw a slice of their own."""
    from pretrain.seen import DIGEST, SEEN, digests

    whole = SEEN.read_bytes()
    seen = {whole[start : start + DIGEST] for start in range(0, len(whole), DIGEST)}
    pack = read_pack(ICONS_FOLDER)
    assert len(seen) > 30_000
    assert len(digests(pack["public"].images) & seen) > 1_000  # the digests are of such images
    assert not digests(np.concatenate([pack["private"].images, pack["test"].images])) & seen
    clothes = load_dataset("clothes")
    assert not clothes.public.digests() & (clothes.private.digests() | clothes.test.digests())


@pytest.mark.slow
def test_pretraining_on_icons_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps, straight and interrupted, end in the same weights, which load."""
    pytest.importorskip("cairosvg")
    import pretrain_on_icons as script
    from pretrain.icons import NONE, OTHERS

    rng = np.random.default_rng(0)
    sets = np.array([*["mdi"] * 500, *[OTHERS[0]] * 20])
    labels = np.where(np.arange(len(sets)) % 3 == 0, np.arange(len(sets)) % 20, NONE)
    nouns = [f"thing {label}" for label in labels]
    images = rng.integers(0, 256, (len(sets), 28, 28), np.uint8)
    np.savez(tmp_path / "icons.npz", images=images, nouns=nouns, labels=labels, sets=sets)
    monkeypatch.setattr(script, "notice", lambda package: "")
    monkeypatch.setattr(script, "SEEN", tmp_path / "seen.bin")
    short = replace(script.RECIPE, phases=(replace(script.RECIPE.phases[0], steps=6),), renders=300)
    hashes = []
    for name, stops in (("straight", ("6",)), ("resumed", ("2", "6"))):
        for stop in stops:
            options = ["--package", str(tmp_path), "--start", str(EMBEDDED_FOLDER), "--stop-at", stop]
            options += ["--out", str(tmp_path / name), "--work", str(tmp_path / f"{name}-work")]
            monkeypatch.setattr("sys.argv", ["pretrain", *options])
            script.main(short)
        hashes.append((tmp_path / name / "open_clip_model.safetensors").read_bytes())
    assert hashes[0] == hashes[1]
    random = load_clip("tiny", "none").parameter_count
    assert load_clip("tiny", tmp_path / "straight" / "open_clip_model.safetensors").parameter_count == random


@pytest.mark.slow
def test_pretraining_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of three phases, straight and interrupted in each, end in the same weights; the export loads."""
    import pretrain_tiny_clip as script

    phases = tuple(replace(phase, steps=6) for phase in script.RECIPE.phases)
    short = replace(script.RECIPE, phases=phases, renders=300, tune_steps=3)
    hashes = []
    for name, stops in (("straight", ("18",)), ("resumed", ("4", "9", "14", "18"))):
        out = tmp_path / name
        for stop in stops:
            options = ["--stop-at", stop, "--out", str(out), "--work", str(tmp_path / f"{name}-work")]
            monkeypatch.setattr("sys.argv", ["pretrain", *options])
            script.main(short)
        hashes.append((out / "open_clip_model.safetensors").read_bytes())
        assert open_clip.create_model(f"local-dir:{out}").text.text_projection.shape == (128, 192)
    assert hashes[0] == hashes[1]
    assert (tmp_path / "straight" / "bpe_3500.txt.gz").read_bytes() == VOCABULARY.read_bytes()


def test_a_model_of_more_than_two_towers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_build", lambda *_: torch.nn.Linear(1, 1))
    with pytest.raises(ModelError, match="model 'coca_ViT-B-32' is a Linear and no CLIP of two towers"):
        load_clip("coca_ViT-B-32", "none")


def test_a_tokenizer_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built, and whatever weights were asked for: they are not what is missing."""

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network.\nand more")

    def unreached(*_: object) -> None:
        raise AssertionError("built before the tokenizer was there")

    monkeypatch.setattr(open_clip.factory, "HFTokenizer", offline)
    monkeypatch.setattr(loading, "_build", unreached)
    wanted = (
        r"^model 'ViT-B-16-SigLIP' needs the tokenizer 'timm/ViT-B-16-SigLIP', which cannot be loaded \(no network\): "
        r"run once with a network, .* HF_HOME .*, or use an architecture .* such as ViT-B-32$"
    )
    for weights in ("none", "webli"):
        with pytest.raises(ModelError, match=wanted):
            load_clip("ViT-B-16-SigLIP", weights)


def test_a_tokenizer_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ModelError, match=r"needs the tokenizer 'timm/ViT-B-16-SigLIP', .*transformers.*: pip install transf"
    ):
        load_clip("ViT-B-16-SigLIP", "none")


def test_random_weights_that_cannot_be_built_are_no_weights_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such trunk\nand more")

    monkeypatch.setattr(loading, "_build", broken)
    with pytest.raises(ModelError, match=r"cannot build model 'RN50' with random weights: no such trunk$"):
        load_clip("RN50", "none")
    with pytest.raises(ModelError, match=r"cannot load weights 'openai' into model 'RN50': .*pretrained PATH takes"):
        load_clip("RN50", "openai")
