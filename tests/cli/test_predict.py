"""`predict` and `export` as a person meets them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import flora_here
from PIL import Image

from flora_secure.data.dataset import Dataset
from flora_secure.data.federation import load_federation
from flora_secure.planning.config import load_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    done = flora_here(
        "simulate", "--dataset", "digits", "--clients", "8", "--rounds", "3", "--epsilon", "50", "--out", "run",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def data(run: Path) -> Dataset:
    config = load_config(run / "config.toml")
    return load_federation(config.data, config.seed).dataset


@pytest.fixture(scope="module")
def images(run: Path, data: Dataset) -> Path:
    """The test images of the run as files, a folder a class, and a file that is none."""
    folder = run.parent / "images"
    for place, (image, label) in enumerate(zip(data.test.images, data.test.labels, strict=True)):
        path = folder / data.class_names[label] / f"{place:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / "bad.png").write_text("no image")
    return folder


def test_the_answers_on_a_folder_are_those_that_the_report_counts(run: Path, images: Path) -> None:
    done = flora_here("predict", "run", "images", "--top", "3", "--json", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    report = json.loads((run / "report.json").read_text())
    answers = table["answers"]
    right = [answer["guesses"][0]["name"] == Path(answer["image"]).parent.name for answer in answers]
    assert len(answers) == report["accuracy"]["test_examples"]
    assert float(np.mean(right)) == pytest.approx(report["accuracy"]["final"], abs=1e-7)
    assert all(len(answer["guesses"]) == 3 for answer in answers)
    assert table["schema"] == "flora-secure/predict/1"
    assert table["adapter_hash"] == report["provenance"]["adapter_hash"]
    assert table["unreadable"] == [{"image": "images/bad.png", "reason": "no image"}]
    assert "image 'images/bad.png' cannot be read: no image" in done.stderr
    assert f"{len(answers):,} images answered, 1 could not be read" in done.stderr


def test_a_line_an_image(run: Path, images: Path) -> None:
    first, second = sorted(images.rglob("0*.png"))[:2]
    done = flora_here("predict", "run", second, first, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(second), str(first)]
    assert done.stdout.splitlines()[0].endswith("%")
    assert done.stderr == ""


def test_names_from_files(run: Path, images: Path, tmp_path: Path) -> None:
    image = min(images.rglob("0*.png"))
    (tmp_path / "names.txt").write_text("bag\nboot\n")
    (tmp_path / "captions.txt").write_text("a photo of a cat\n" + "long " * 30 + "\n")
    done = flora_here("predict", run, image, "--class-names", "names.txt", "--top", "2", cwd=tmp_path)
    assert {part.split()[0] for part in done.stdout.split("\t")[1:]} == {"bag", "boot"}
    (tmp_path / "names.txt").write_text("bag\n1\n")
    done = flora_here("predict", run, image, "--class-names", "names.txt", cwd=tmp_path)
    assert "warning: 1 of 2 class names, '1', say nothing to a text tower" in done.stderr
    assert "give words by --class-names" in done.stderr
    done = flora_here("predict", run, image, "--captions", "captions.txt", cwd=tmp_path)
    assert done.returncode == 0
    assert "flora-secure: warning: 1 of 2 texts are longer than the 16 tokens" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nowhere", "IMAGE"], "there is no folder nowhere: name a run folder, or the adapter/ in one"),
        (["RUN", "nowhere.png"], "image 'nowhere.png' does not exist"),
        (["RUN", "BAD"], "none of 1 images can be read in"),
        (["RUN", "EMPTY"], "there is no image in"),
        (["RUN", "IMAGE", "--top", "11"], "top must lie in 1…10"),
        (["RUN", "IMAGE", "--top", "many"], "'--top': 'many' is not a whole number"),
        (["RUN", "IMAGE", "--class-names", "nowhere.txt"], "--class-names 'nowhere.txt' cannot be read"),
        (["RUN", "IMAGE", "--class-names", "TWICE"], "lists 'a' twice"),
        (["RUN", "IMAGE", "--class-names", "LONG"], "shorten --class-names or"),
        (["RUN", "IMAGE", "--class-names", "FINE", "--captions", "FINE"], "give class names or captions, not both"),
        (["RUN", "IMAGE", "--device", "nowhere"], "device 'nowhere' is no device of this machine"),
        (["RUN", "IMAGE", "--pretrained", "nowhere"], "model 'tiny' has no weights 'nowhere'"),
        (["EXCHANGED", "IMAGE"], "is not the adapter of flora.json"),
        (["RUN"], "Missing argument 'IMAGES…'"),
    ],
)
def test_bad_input_is_one_line(run: Path, images: Path, arguments: list[str], what: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, text in (("twice", "a\na"), ("long", "word " * 30), ("fine", "a\nb")):
        (tmp_path / name).write_text(text)
    exchanged = Path(shutil.copytree(run, tmp_path / "exchanged"))
    (exchanged / "adapter" / "adapter_model.safetensors").write_bytes(b"others")
    named = {"RUN": run, "IMAGE": min(images.rglob("0*.png")), "BAD": images / "bad.png", "EMPTY": tmp_path / "empty",
             "TWICE": "twice", "LONG": "long", "FINE": "fine", "EXCHANGED": exchanged}  # fmt: skip
    done = flora_here("predict", *(named.get(argument, argument) for argument in arguments), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr
    assert "Traceback" not in done.stderr


def test_export_writes_what_open_clip_loads(run: Path, tmp_path: Path) -> None:
    import open_clip

    done = flora_here("export", run, "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out: load it with open_clip.create_model('local-dir:out')\n"
    assert type(open_clip.create_model(f"local-dir:{tmp_path / 'out'}")).__name__ == "CustomTextCLIP"
    epsilon = json.loads((run / "report.json").read_text())["privacy"]["epsilon"]
    assert f"epsilon = {epsilon:.4g}" in (tmp_path / "out" / "README.txt").read_text()
    again = flora_here("export", run, "out", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "OUT out exists already; choose a new folder, nothing was overwritten" in again.stderr
    assert flora_here("export", "nowhere", "other", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("command", ["predict", "export"])
def test_help_has_an_example(command: str, tmp_path: Path) -> None:
    done = flora_here(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"flora-secure {command} runs/mine" in done.stdout
