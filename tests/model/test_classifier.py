"""A trained adapter in use: the answers are those that the report counted, and what does not fit is refused by name."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import FEW, captioned, few_images, kept, prepare, small
from PIL import Image

import flora_secure
from flora_secure.data.dataset import Dataset
from flora_secure.data.federation import Federation, load_federation
from flora_secure.engine.task import Task
from flora_secure.errors import AdapterError, ConfigError, DataError, InputError, ModelError, RunFolderError
from flora_secure.model.trained.classifier import Classifier, load
from flora_secure.records.reading import read_run

PLACEMENTS: list[dict[str, Any]] = [
    {"model__placement": "text-projection", "model__crops": 2},
    {"model__placement": "text-projection", "model__rule": "ab", "model__alpha": 6.0},
    {"model__placement": "text-attention"},
    {"model__placement": "text-attention-full", "model__last_layers": 1},
    {"model__placement": "text-mlp", "model__alpha": 2.0, "model__rule": "ab"},
    {"model__placement": "visual-projection", "model__mirror": True, "model__crops": 4},
    {"model__placement": "both-projections", "model__rule": "alternate"},
    {"model__placement": "visual-attention", "model__crops": 2},
    {"model__placement": "visual-projection", "training__precision": "bfloat16"},
    {"model__placement": "text-mlp", "training__precision": "bfloat16"},
]


def right(classifier: Classifier, data: Dataset) -> float:
    """The share of the test images whose own class comes first."""
    answers = classifier.predict(data.test.images)
    names = [data.class_names[label] for label in data.test.labels]
    return float(np.mean([answer.name == name for answer, name in zip(answers, names, strict=True)]))


def told(run: Path) -> float:
    report = read_run(run).report
    assert report is not None
    return report.accuracy.final


@pytest.fixture(scope="module")
def digits() -> Task:
    return few_images(training__rounds=2)


@pytest.fixture(scope="module")
def run(digits: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels on the text projection of the embedded model."""
    return kept(small(**FEW), digits, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return load(run)


@pytest.mark.parametrize("changes", PLACEMENTS, ids=lambda c: "-".join(map(str, c.values())))
def test_the_answers_are_those_of_the_report(changes: dict[str, Any], transformer: str, tmp_path: Path) -> None:
    model = {"model__model": transformer, "model__pretrained": "none", **changes}
    task, config = few_images(**model), small(**FEW, **model)
    found = load(kept(config, task, tmp_path / "run"))
    data = task.federation.dataset
    assert right(found, data) == pytest.approx(told(tmp_path / "run"), abs=1e-7)
    # random weights are right rarely: the embeddings are the run's too
    factors = read_factors(task, tmp_path / "run", config)
    for own, theirs in zip((found.class_embeddings, torch.from_numpy(found.embed(data.test.images))), factors,
                           strict=True):  # fmt: skip
        torch.testing.assert_close(own, theirs, rtol=0, atol=2e-6)


def read_factors(task: Task, run: Path, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What the run itself says of its classes and test images with its final adapter."""
    from flora_secure.engine.simulation import Simulation

    simulation = Simulation(config, task)
    list(simulation.rounds())
    return task.evaluator.test(simulation.factors)


@pytest.mark.parametrize("placement", ["text-projection", "text-attention-full", "text-mlp", "both-projections"])
def test_they_are_on_the_embedded_model(placement: str, tmp_path: Path) -> None:
    changes = {"model__placement": placement, "training__rounds": 2}
    if placement != "text-projection":
        changes["training__local_steps"] = 3
    config = small(**{**FEW, **changes})
    task = few_images(**changes)
    found = load(kept(config, task, tmp_path / "run"))
    assert right(found, task.federation.dataset) == pytest.approx(told(tmp_path / "run"), abs=1e-7)
    assert 0.2 < told(tmp_path / "run") < 1


def test_captions_are_ranked_as_the_report_counts_them(tmp_path: Path) -> None:
    config = small(**{**FEW, "model__placement": "both-projections"})
    federation = captioned(load_federation(config.data, config.seed))
    task = prepare(config, federation)
    run = kept(config, task, tmp_path / "run")
    found, test = load(run), federation.dataset.test
    images, image_of = test.distinct
    answers = found.predict(images, captions=test.captions)
    assert test.captions is not None
    owner = {caption: int(image) for caption, image in zip(test.captions, image_of, strict=True)}
    hits = [owner[answer.name] == place for place, answer in enumerate(answers)]
    assert float(np.mean(hits)) == pytest.approx(told(run), abs=1e-7)
    for given in ({}, {"class_names": ["two"]}):
        with pytest.raises(ConfigError, match=r"trained on captions .*--captions FILE"):
            found.predict(images[:1], **given)


def test_image_files_are_cut_as_the_run_cut_them(digits: Task, tmp_path: Path) -> None:
    """A run on files: arrays, Pillow images and files of the same image give the same; the folder is its own order."""
    data = digits.federation.dataset
    for place in range(60):
        for split, part in (("train", data.private), ("test", data.test)):
            folder = tmp_path / "data" / split / data.class_names[part.labels[place]]
            folder.mkdir(parents=True, exist_ok=True)
            wide = np.pad(np.kron(part.images[place], np.ones((9, 9), np.uint8)), ((0, 0), (9, 20)))
            Image.fromarray(wide).save(folder / f"{place:03d}.png")
    config = small(**FEW, data__dataset="folder", data__data_root=str(tmp_path / "data"))
    federation = load_federation(config.data, config.seed)
    run = kept(config, prepare(config, federation), tmp_path / "run")
    found = load(run)
    assert (found.card.images, found.card.resize_mode) == ("files", "squash")
    answers = found.predict(tmp_path / "data" / "test")
    names = [answer.image for answer in answers]
    assert names == sorted(names)
    hits = [answer.name == Path(answer.image).parent.name for answer in answers]
    assert float(np.mean(hits)) == pytest.approx(told(run), abs=1e-7)
    with Image.open(names[0]) as picture:
        for given in (names[0], Path(names[0]), [names[0]], picture, [picture], np.asarray(picture)[None]):
            np.testing.assert_array_equal(found.embed(given), found.embed(names[:1]))


def test_a_programs_own_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 90, (48, 30, 20), dtype=np.uint8)
    labels = np.arange(48) % 3
    images += (80 * labels[:, None, None]).astype(np.uint8)
    pairs = list(zip(images, labels.tolist(), strict=True))
    own = flora_secure.OwnData(
        {"a": pairs[:12], "b": pairs[12:24]}, test=pairs[24:], class_names=["dark", "grey", "bright"]
    )
    run = flora_secure.simulate(
        dataset=own, rounds=2, epsilon=math.inf, corrupt=0, dropout_tolerance=0, out=tmp_path / "run", cache=False
    )
    found = flora_secure.load(run.folder)
    names = [answer.name for answer in found.predict(images[24:])]
    assert np.mean([own.class_names.index(name) == label for name, label in zip(names, labels[24:], strict=True)]) == (
        pytest.approx(run.report.accuracy.final, abs=1e-7)
    )
    assert isinstance(found, flora_secure.Classifier)


def test_what_images_may_be(classifier: Classifier, digits: Task) -> None:
    images = digits.federation.dataset.test.images[:5]
    expected = classifier.embed(images)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    colour = np.repeat(images[..., None], 3, axis=3)
    as_tensor = torch.from_numpy(images)
    for given in (
        colour,
        list(images),
        list(colour),
        [Image.fromarray(image) for image in images],
        as_tensor,
        list(as_tensor),
        as_tensor[:, None],
        torch.from_numpy(colour).movedim(3, 1),
        as_tensor[:, None].double() / 255,
    ):
        np.testing.assert_allclose(classifier.embed(given), expected, atol=1e-6)
    sizes = [images[0], np.kron(images[1], np.ones((2, 2), np.uint8)), images[2]]
    mixed = classifier.embed(sizes)
    np.testing.assert_allclose(mixed[[0, 2]], expected[[0, 2]], atol=1e-6)
    assert classifier.embed([]).shape == classifier.embed(images[:0]).shape == (0, expected.shape[1])
    assert len(classifier.predict([])) == 0


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (np.zeros((2, 8, 8)), "uint8"),
        (np.zeros((8, 8), np.uint8), "uint8"),
        (np.zeros((8, 8, 3), np.uint8), "one image in colour or many that are 3 wide"),
        (np.zeros((1, 8, 0), np.uint8), "uint8"),
        (torch.full((1, 3, 8, 8), 1.5), "0…1"),
        (torch.full((1, 3, 8, 8), math.nan), "0…1"),
        ([np.zeros((1, 8, 8, 3), np.uint8)], "uint8"),
        ([3], "must be paths, Pillow images"),
        (None, "must be paths, Pillow images"),
    ],
)
def test_other_images_are_refused(classifier: Classifier, given: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        classifier.predict(given)


def test_scores_are_a_softmax_of_scaled_cosines(classifier: Classifier, digits: Task) -> None:
    images = digits.federation.dataset.test.images[:3]
    answers = classifier.predict(images, top=10)
    cosines = torch.from_numpy(classifier.embed(images)) @ classifier.class_embeddings.T
    for answer, own in zip(answers, (28.0 * cosines).softmax(-1), strict=True):
        assert [guess.score for guess in answer.guesses] == pytest.approx(own.sort(descending=True).values.tolist())
        assert (answer.name, answer.score) == (answer.guesses[0].name, answer.guesses[0].score)
    assert answers[1:3] == answers.answers[1:]
    table = answers.to_dict()
    assert json.loads(json.dumps(table))["answers"][0]["guesses"][0]["name"] == answers[0].name
    assert answers[0].name in answers._repr_html_()
    assert "ε = ∞, NO DIFFERENTIAL PRIVACY" in classifier._repr_html_()


def test_other_classes_and_texts(classifier: Classifier, digits: Task) -> None:
    images = digits.federation.dataset.test.images[:4]
    swapped = list(reversed(classifier.card.class_names))
    assert [a.name for a in classifier.predict(images, class_names=swapped)] == [
        a.name for a in classifier.predict(images)
    ]
    texts = ["a photo of a digit", "nothing"]
    embedded = classifier.embed_text(texts)
    best = np.argmax(classifier.embed(images) @ embedded.T, axis=1)
    assert [a.name for a in classifier.predict(images, captions=texts)] == [texts[i] for i in best]
    assert classifier.embed_text([]).shape == (0, embedded.shape[1])
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 16 tokens .* such as 'long long"):
        classifier.embed_text(["long " * 30, "a"])


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"class_names": []}, "class names must not be empty"),
        ({"class_names": ["a", "b", "a"]}, "class names must occur once each, and 'a' occurs twice"),
        ({"class_names": ["a", " "]}, "must not be blank"),
        ({"class_names": ["word " * 30]}, "shorten data.class_names or data.templates"),
        ({"class_names": "bag"}, "class names must be a list of texts"),
        ({"captions": ["a", "a"]}, "captions must occur once each"),
        ({"captions": ["a"], "class_names": ["a"]}, "not both"),
        ({"top": 0}, "top must lie in 1…10"),
        ({"top": 11}, "top must lie in 1…10, the number of names to choose from; got 11"),
    ],
)
def test_names_that_do_not_fit(classifier: Classifier, given: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        classifier.predict(np.zeros((1, 8, 8), np.uint8), **given)
    with pytest.raises(ConfigError, match="put it in brackets"):
        classifier.embed_text("a")


def test_images_that_cannot_be_read_are_named(classifier: Classifier, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:800])
    (tmp_path / "inner").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "inner" / "a.jpg")
    (tmp_path / "inner" / "text.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden.png").write_text("")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"image '.*bad\.png' cannot be read: corrupt or cut short"):
        classifier.predict(tmp_path)
    with pytest.raises(DataError, match=r"bad\.png"):
        classifier.embed([tmp_path / "good.png", tmp_path / "bad.png"])
    found = classifier.predict([tmp_path], skip_unreadable=True)
    assert [Path(one.image).name for one in found] == ["good.png", "a.jpg"]
    assert [(Path(one.image).name, one.reason) for one in found.unreadable] == [
        ("bad.png", "corrupt or cut short"),
        ("pipe.png", "cannot be read: it is no regular file"),
        ("text.png", "no image"),
    ]
    assert [(one.reason, one.count) for one in found.left_out] == [
        ("hidden file", 1),
        ("file that is no image by its name", 1),
    ]
    for missing in (tmp_path / "none.png", "a\0b"):
        with pytest.raises(DataError, match="does not exist"):
            classifier.predict([missing])
    with Image.open(tmp_path / "bad.png") as cut, pytest.raises(DataError, match="image 0 cannot be read"):
        classifier.predict([cut])


# --- what a folder may not be


def test_load_takes_either_folder(run: Path) -> None:
    assert flora_secure.load is load
    whole, alone = load(run), flora_secure.load(str(run / "adapter"))
    assert whole.report is not None
    assert alone.report is None
    assert whole.card == alone.card
    assert torch.equal(whole.class_embeddings, alone.class_embeddings)


def test_folders_without_an_adapter(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no folder"):
        load(tmp_path / "none")
    with pytest.raises(RunFolderError, match=r"flora\.json is missing: .* is no adapter of flora-secure"):
        load(tmp_path)
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.rmtree(copy / "adapter")
    with pytest.raises(RunFolderError, match="holds no adapter: finish the run with flora-secure simulate --resume"):
        load(copy)
    with pytest.raises(ConfigError, match="device 'nowhere' is no device of this machine"):
        load(run, device="nowhere")


def test_another_runs_adapter_is_refused(run: Path, digits: Task, tmp_path: Path) -> None:
    other = kept(small(**{**FEW, "training__rounds": 1}), digits, tmp_path / "other")
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.rmtree(copy / "adapter")
    shutil.copytree(other / "adapter", copy / "adapter")
    with pytest.raises(RunFolderError, match=r"is not the adapter of this run: .* report\.json knows"):
        load(copy)
    load(copy / "adapter")  # by itself it is whole


def edited(run: Path, target: Path, **changes: Any) -> Path:
    """A copy of the run's adapter whose card says something else."""
    shutil.copytree(run / "adapter", target)
    table = json.loads((target / "flora.json").read_text())
    (target / "flora.json").write_text(json.dumps({**table, **changes}))
    return target


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"model": "no-such"}, ModelError, "'no-such': use 'tiny'"),
        ({"model": "hf-hub:a/b"}, RunFolderError, "model must be a name and no path"),
        ({"model": "local-dir:../x"}, RunFolderError, "model must be a name and no path"),
        ({"model": "local-dir:x"}, ModelError, r"local file or folder 'local-dir:x': name it by model\.pretrained"),
        ({"weights": "random"}, ModelError, r"belongs to another model: .*pretrained"),
        ({"model": "ViT-B-32", "weights": "tag", "pretrained": "none-such"}, ModelError, "no weights 'none-such'"),
        ({"model": "RN50", "weights": "local", "pretrained": "w.pt"}, ModelError, r"needs the weights .*'w\.pt'"),
        ({"mean": [0.5, 0.5, 0.5]}, AdapterError, "was trained with mean"),
        ({"placement": "text-mlp"}, AdapterError, "of another placement or model|larger than"),
        ({"rank": 5}, AdapterError, "must be F32|larger than"),
        ({"rank": 10**6}, AdapterError, "rank 1000000 exceeds 102"),
    ],
)
def test_another_model_is_refused(run: Path, tmp_path: Path, changes: Any, error: Any, what: str) -> None:
    with pytest.raises(error, match=what):
        load(edited(run, tmp_path / "adapter", **changes))


def test_local_weights_are_found_again(run: Path, tmp_path: Path) -> None:
    """A card names no path: that is in the run's configuration, or is given."""
    import open_clip
    from small_clip import CONFIG

    text = {**CONFIG["text_cfg"], "vocab_size": 49_408, "context_length": 12}
    path = tmp_path / "small-local.json"
    path.write_text(json.dumps({**CONFIG, "text_cfg": text}))
    open_clip.add_model_config(path)
    torch.manual_seed(5)
    weights = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("small-local", force_custom_text=True).state_dict(), weights)
    model = {"model__model": "small-local", "model__pretrained": str(weights)}
    task = few_images(**model)
    own = kept(small(**FEW, **model), task, tmp_path / "run")
    card = load(own).card
    assert (card.weights, card.pretrained) == ("local", "weights.pt")
    assert str(tmp_path) not in (own / "adapter" / "flora.json").read_text()
    with pytest.raises(ModelError, match=r"local file or folder 'weights\.pt': name it by model.pretrained"):
        load(own / "adapter")
    weights.rename(tmp_path / "moved.pt")
    with pytest.raises(ModelError, match=r"are no file or folder here: name them (with|by) model.pretrained"):
        load(own)
    assert load(own / "adapter", pretrained=tmp_path / "moved.pt").card == card
    torch.manual_seed(6)
    torch.save(open_clip.create_model("small-local", force_custom_text=True).state_dict(), weights)
    with pytest.raises(ModelError, match="belongs to another model: 'small-local' with SHA-256"):
        load(own)


def test_the_test_images_may_be_embedded_in_any_order(digits: Task, classifier: Classifier) -> None:
    data = digits.federation.dataset
    order = np.random.default_rng(0).permutation(len(data.test))
    moved = Federation(replace(data, test=data.test.at(order)), digits.federation.clients)
    assert right(classifier, moved.dataset) == right(classifier, data)
