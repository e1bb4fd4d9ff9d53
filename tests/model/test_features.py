"""Features of encoded images equal open_clip's own; the cache changes nothing but the time."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.nn.functional import normalize

from flora_secure.data.cache import ArrayCache
from flora_secure.data.class_names import CIFAR_TEMPLATES
from flora_secure.data.sources import load_dataset
from flora_secure.model import features as feature_module
from flora_secure.model.clip import Clip, ModelError
from flora_secure.model.features import split_features
from flora_secure.model.image_views import ImageViews
from flora_secure.model.loading import EMBEDDED_FOLDER, load_clip


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("tiny")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """PNG files of several sizes, so that nothing is lost and aspect matters."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (*rng.integers(30, 120, 2), 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path: Path) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", lambda line: pytest.fail(line))


def test_features_are_those_of_open_clips_preprocessing(clip: Clip, root: Path) -> None:
    split = load_dataset("folder", root).test
    features = split_features(clip, split.images, views=ImageViews())
    theirs = open_clip.create_model(f"local-dir:{EMBEDDED_FOLDER}", load_weights=False).visual.preprocess_cfg
    transform = image_transform_v2(PreprocessCfg(**theirs), is_train=False)
    for file, feature in zip(split.images.files, features, strict=True):
        x = transform(Image.open(io.BytesIO(file.read())))[None]
        with torch.no_grad():
            wanted = normalize(clip.model.encode_image(x), dim=-1)[0]
        assert torch.allclose(feature, wanted, atol=1e-4)


def test_the_cache_changes_nothing(clip: Clip, root: Path, cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_dataset("folder", root).private.images
    plain = split_features(clip, images, views=ImageViews(mirror=True))
    assert torch.equal(split_features(clip, images, views=ImageViews(mirror=True), cache=cache), plain)
    other = split_features(clip, images, views=ImageViews(), cache=cache)
    assert not torch.allclose(other, plain, atol=1e-3)
    monkeypatch.setattr(Clip, "image_features", lambda *_, **__: pytest.fail("computed again"))
    assert torch.equal(split_features(clip, images, views=ImageViews(mirror=True), cache=cache), plain)
    assert torch.equal(split_features(clip, images, views=ImageViews(), cache=cache), other)


def test_keys_see_model_images_and_preprocessing(clip: Clip, root: Path, cache: ArrayCache) -> None:
    images = load_dataset("folder", root).private.images
    digits = load_dataset("digits").test.images
    cropped = dataclasses.replace(clip, shape=dataclasses.replace(clip.shape, mode="shortest"))
    assert clip.shape.mode == "squash"
    darker = dataclasses.replace(clip, mean=(0.5, 0.5, 0.5))
    variants = [(clip, images), (clip, images.at(np.arange(5))), (clip, digits), (clip, digits[:, ::-1]),
                (cropped, images), (darker, images), (load_clip("tiny", "none"), images)]  # fmt: skip
    for count, (model, what) in enumerate(variants, 1):
        assert torch.equal(
            split_features(model, what, views=ImageViews(), cache=cache),
            split_features(model, what, views=ImageViews()),
        )
        assert len(list(cache.folder.iterdir())) == count


def test_a_damaged_file_is_computed_again_with_a_warning(clip: Clip, root: Path, tmp_path: Path) -> None:
    warnings: list[str] = []
    cache = ArrayCache(tmp_path / "c", warnings.append)
    images = load_dataset("folder", root).private.images
    wanted = split_features(clip, images, views=ImageViews(), cache=cache)
    (path,) = cache.folder.iterdir()
    raw = path.read_bytes()
    path.write_bytes(raw[:500] + bytes([raw[500] ^ 64]) + raw[501:])
    assert torch.equal(split_features(clip, images, views=ImageViews(), cache=cache), wanted)
    assert len(warnings) == 1
    assert "is damaged" in warnings[0]
    assert path.read_bytes() == raw


def test_no_images_give_no_features(clip: Clip, root: Path) -> None:
    public = load_dataset("folder", root).public.images
    assert split_features(clip, public, views=ImageViews()).shape == (0, clip.text_projection.shape[1])


def test_prompts_longer_than_the_context_are_named(clip: Clip) -> None:
    clip.require_short([template.format("aquarium fish") for template in CIFAR_TEMPLATES])
    with pytest.raises(
        ModelError, match=r"^1 prompts are longer than the 16 tokens .* such as 'a b c .*': shorten"
    ) as caught:
        clip.require_short(["a cat", " ".join("abcdefghijklmnopqrstuvwxyz")])
    assert "\n" not in str(caught.value)


def test_the_cache_tells_architectures_apart_that_share_their_weights(clip: Clip) -> None:
    """Such as ViT-B-32 and ViT-B-32-quickgelu: the same parameters, other features."""
    images = np.zeros((2, 4, 4), np.uint8)
    keys = {
        feature_module._key(dataclasses.replace(clip, name=name), images, views, what)
        for name in ("ViT-B-32", "ViT-B-32-quickgelu")
        for views in (ImageViews(), ImageViews(mirror=True), ImageViews(crops=2))
        for what in ("image features", "pooled image features")
    }
    assert len(keys) == 12
