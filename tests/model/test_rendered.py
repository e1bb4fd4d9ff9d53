"""A window and a background: an adapter shows its images as the run that trained it has shown them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from federations import kept, prepare, small
from PIL import Image

import flora_secure
from flora_secure.data.federation import load_federation
from flora_secure.errors import AdapterError, DataError
from flora_secure.model.features import split_features
from flora_secure.model.trained.classifier import Classifier, load
from flora_secure.model.trained.folder import views_of

SETTINGS = {"data__window": "0:4095", "data__background": "#2080ff"}


def write_images(root: Path) -> Path:
    """12 bits in 16, and icons on a transparent ground, in two classes."""
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = root / ("bright" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        if number % 4 < 2:
            image = Image.fromarray(rng.integers(0, 2000 + 2000 * (number % 2), (30, 20), np.uint16))
        else:
            image = Image.fromarray(rng.integers(0, 256, (20, 30, 4), np.uint8))
        image.save(folder / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_images(tmp_path_factory.mktemp("data"))
    config = small(
        **SETTINGS, data__dataset="folder", data__data_root=str(root), data__clients=4, data__partition="iid",
        training__rounds=2, privacy__epsilon=float("inf"),
    )  # fmt: skip
    task = prepare(config, load_federation(config.data, config.seed))
    return kept(config, task, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return load(run)


def test_predicting_decodes_as_training_does(run: Path, classifier: Classifier) -> None:
    from flora_secure.planning.config import load_config

    config = load_config(run / "config.toml")
    assert (classifier.card.window, classifier.card.background) == ("0:4095", "#2080ff")
    images = load_federation(config.data, config.seed).dataset.test.images
    wanted = split_features(classifier.clip, images, views=views_of(classifier.card))
    assert not isinstance(images, np.ndarray)
    paths = [file.path for file in images.files]
    assert {Image.open(path).mode for path in paths} == {"I;16", "RGBA"}
    np.testing.assert_allclose(classifier.embed(paths), wanted, atol=1e-6)
    opened = [Image.open(path) for path in paths]
    np.testing.assert_allclose(classifier.embed(opened), wanted, atol=1e-6)
    answers = classifier.predict(paths)
    report = json.loads((run / "report.json").read_text())
    right = np.mean([answer.name == path.parent.name for answer, path in zip(answers, paths, strict=True)])
    assert right == pytest.approx(report["accuracy"]["final"], abs=1e-7)


def test_values_that_the_run_has_no_rule_for_are_named(classifier: Classifier, tmp_path: Path) -> None:
    values = np.full((9, 9), np.nan, np.float32)
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="cannot be read: values that are no numbers"):
        classifier.predict(tmp_path / "x.tif")


def test_a_card_with_another_window_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    adapter = run / "adapter"
    for key, wrong in (("window", "9:1"), ("background", "red")):
        card = json.loads((adapter / "flora.json").read_text())
        card[key] = wrong
        copy = tmp_path / key
        copy.mkdir()
        for file in adapter.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        (copy / "flora.json").write_text(json.dumps(card))
        with pytest.raises(AdapterError, match=f"flora.json: data.{key} must be"):
            load(copy)


def test_a_programs_own_images_are_shown_by_the_same_rules() -> None:
    rng = np.random.default_rng(0)
    wide = [(Image.fromarray(rng.integers(0, 4000, (9, 9), np.uint16)), number % 2) for number in range(12)]
    clear = [(Image.fromarray(rng.integers(0, 256, (9, 9, 4), np.uint8)), number % 2) for number in range(12)]
    with pytest.raises(DataError, match=r"16-bit values from .*data\.window LOW:HIGH"):
        flora_secure.OwnData(wide, test=wide[:2], class_names=["a", "b"]).load()
    data = flora_secure.OwnData(
        [*wide, *clear], test=clear[:2], class_names=["a", "b"], window="0:4095", background="white"
    ).load()
    images = data.private.images
    assert not isinstance(images, np.ndarray)
    assert (images.rendering.window, images.rendering.background) == ("0:4095", "white")
    for file, (image, _) in zip(images.files, [*wide, *clear], strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(file.read()))), np.asarray(image))
