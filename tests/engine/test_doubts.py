"""Said of a model: what it knows, and that an accuracy is no better than guessing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from federations import FEW, captioned, few_images, finish, prepare, small

import flora_secure
from flora_secure.data.federation import Federation, load_federation
from flora_secure.engine.summary import summarise
from flora_secure.engine.task import Task
from flora_secure.errors import ConfigError
from flora_secure.server.scores import guessed

KNOWS = "was trained on grey pictures of 28 × 28 pixels of clothes, icons of"
GUESSES = "is no better than guessing among"


def probability(trials: int, p: float, rights: list[int]) -> float:
    """That so many of `trials` are right, exactly."""

    def one(k: int) -> float:
        ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        return math.exp(ways + k * math.log(p) + (trials - k) * math.log1p(-p))

    return sum(map(one, rights))


@pytest.mark.parametrize(("images", "choices"), [(100, 10), (300, 6), (4_000, 10), (4_000, 100)])
def test_the_rule_and_how_often_it_is_wrong(images: int, choices: int) -> None:
    """One case of forty, as far as the normal distribution goes for so many images, on either side."""
    chance = 1 / choices
    suspected = [right for right in range(images + 1) if guessed(right, images, chance)]
    assert suspected == list(range(len(suspected)))  # the lowest accuracies
    assert probability(images, chance, suspected) > 0.955
    better = chance
    for _ in range(50):
        spread = math.sqrt(chance * (1 - chance)) + math.sqrt(better * (1 - better))
        better = chance + 1.96 * spread / math.sqrt(images)
    assert probability(images, better, suspected) < 0.035
    assert {(100, 10): 0.25, (4_000, 10): 0.12}.get((images, choices), better) == pytest.approx(better, abs=0.01)


def doubts(task: Task) -> list[str]:
    return [line for line in task.warnings if GUESSES in line]


def test_the_embedded_model_and_other_images(task: Task) -> None:
    (line,) = [line for line in task.warnings if KNOWS in line]
    assert "`model.model` ViT-B-32 and `model.pretrained` laion2b_s34b_b79k" in line
    config = small(data__dataset="clothes")
    data = load_federation(config.data, 0).dataset
    few = np.arange(300)
    clothes = replace(data, private=data.private.at(few), test=data.test.at(few), public=data.public.at(few))
    known = prepare(config, Federation(clothes, np.array_split(few, 10)))
    assert known.warnings == ()
    assert known.zero_shot > 0.5
    random = few_images(model__pretrained="none")
    assert not any(KNOWS in line for line in random.warnings)


def test_a_model_that_guesses() -> None:
    (line,) = doubts(few_images(model__pretrained="none"))
    assert line.startswith("accuracy of the frozen model, ")
    assert "of 60 test images, is no better than guessing among 10 classes (10.0%): it may not know" in line


def test_a_report_says_what_training_has_not_achieved(task: Task, quick: None) -> None:
    simulation = finish(small(), task)
    report = summarise(simulation, total_seconds=1.0)
    assert report.warnings == list(task.warnings)
    assert report.accuracy.zero_shot == task.zero_shot
    per_round = [replace(record, accuracy=0.11) for record in simulation.records]
    simulation.records[:] = per_round
    (line,) = set(summarise(simulation, total_seconds=1.0).warnings) - set(task.warnings)
    assert line.startswith("accuracy of the trained adapter, 11.0% of 299 test images, is no better than guessing")
    assert "training has achieved nothing" in line


def test_captions_are_guessed_among_the_images() -> None:
    config = small(**FEW)
    task = prepare(config, captioned(load_federation(config.data, config.seed)))
    images = int(task.evaluator.target.max()) + 1
    assert task.doubt(1 / images, "x", "y") == (
        f"accuracy of x, {1 / images:.1%} of {images} test images, is no better than guessing among {images} images "
        f"({1 / images:.1%}): y",
    )
    assert task.doubt(0.5, "x", "y") == ()


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda:77", r"'cuda:77' is no device of this machine.*, which has cpu"),
        ("gpu", r"'gpu' is no device of this machine, which has cpu"),
        ("meta", r"'meta' is no device of this machine, which has cpu"),
        ("", r"'' is no device of this machine, which has cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_loads(
    device: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreached(*_: object, **__: object) -> None:
        raise AssertionError("data was loaded first")

    from flora_secure.engine import run

    monkeypatch.setattr(run, "load_federation", unreached)
    with pytest.raises(ConfigError, match=f"training.device {says}") as caught:
        flora_secure.simulate(small(training__device=device), out=tmp_path / "run")
    assert len(str(caught.value)) < 200
    assert not (tmp_path / "run").exists()
