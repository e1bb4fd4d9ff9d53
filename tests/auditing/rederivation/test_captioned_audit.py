"""A run on captions: its report, its folder and its audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from falsifying import Cheat, falsified, found, small, written
from federations import prepare

from flora_secure.auditing.folder import audit
from flora_secure.data.dataset import Split
from flora_secure.data.federation import Federation
from flora_secure.engine.accuracy import retrieval, retrieval_accuracy
from flora_secure.engine.task import Task
from flora_secure.records.reading import read_run
from flora_secure.records.report import json_schema
from flora_secure.records.report_table import rows
from flora_secure.server.scores import Ranks


def with_captions(federation: Federation) -> Federation:
    """The same images, each twice, with captions in the place of labels; one test caption is too long. Twenty test
    images, so that some are found among them."""
    data = federation.dataset

    def twice(split: Split) -> Split:
        pairs = split.at(np.repeat(np.arange(len(split)), 2))
        names = [data.class_names[label] for label in pairs.labels]
        texts = [f"the number {name}" if i % 2 else f"number {i // 2}, {name}" for i, name in enumerate(names)]
        return replace(pairs, labels=np.zeros_like(pairs.labels), captions=tuple(texts))

    kept = {"private": data.private, "public": data.public, "test": data.test.at(np.arange(20))}
    splits = {name: twice(split) for name, split in kept.items()}
    captions = splits["test"].captions
    assert captions is not None
    splits["test"] = replace(splits["test"], captions=("long " * 20, *captions[1:]))
    clients = [np.sort(np.concatenate([2 * own, 2 * own + 1])) for own in federation.clients]
    return Federation(replace(data, **splits, class_names=(), templates=()), clients)


@pytest.fixture(scope="module")
def captioned_run(digits: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "captions"
    config = small()
    return written(config, prepare(config, with_captions(digits.federation)), path)


def test_the_report_of_a_captioned_run(captioned_run: Path) -> None:
    report = read_run(captioned_run).report
    assert report is not None
    jsonschema.validate(report.to_dict(), json_schema())
    accuracy, found_ = report.accuracy, report.retrieval
    assert found_ is not None
    assert (accuracy.measures, accuracy.classes, accuracy.per_class) == ("recall@1 image to text", [], [])
    assert (accuracy.client_mean, accuracy.client_worst_decile) == (None, None)
    assert found_.images == accuracy.test_examples == report.data.test_images
    assert found_.captions == 2 * found_.images
    assert [recall.k for recall in found_.final] == [1, 5, 10]
    assert accuracy.final == found_.final[0].image_to_text
    assert accuracy.zero_shot == found_.zero_shot[0].image_to_text
    assert 0 < accuracy.interval[0] < accuracy.final < accuracy.interval[1]
    assert report.data.private_captions == 2 * report.data.private_images
    assert (report.data.mean_classes, report.data.mean_label_distance) == (None, None)
    assert report.data.client_minimum * 10 <= report.data.private_images <= report.data.client_maximum * 10
    assert [(one.count, one.reason) for one in report.data.skipped] == [
        (1, "caption cut to the 16 tokens that the model reads")
    ]
    shown = dict(rows(report))
    assert shown["accuracy"].startswith("recall@1 image to text ")
    assert shown["  text to image"].startswith("recall@1/5/10 ")


def test_the_audit_accepts_it(captioned_run: Path) -> None:
    found_ = audit(captioned_run, opacus=False)
    assert found_.passed
    assert found(captioned_run) == {}


def measure(name: str) -> Cheat:
    return lambda lines, report: report["accuracy"].update(measures=name)


def recall(which: str, place: int, **changes: float) -> Cheat:
    return lambda lines, report: report["retrieval"][which][place].update(changes)


@pytest.mark.parametrize(
    ("cheat", "evidence"),
    [
        (measure("top-1"), "accuracy.measures is top-1"),
        (recall("final", 0, image_to_text=0.999), "retrieval.final at 1, image to text, is 0.999"),
        (recall("zero_shot", 0, image_to_text=0.5), "retrieval.zero_shot at 1, image to text, is 0.5"),
        (recall("final", 2, text_to_image=0.001), "retrieval.final: text_to_image"),
        (recall("zero_shot", 2, image_to_text=1.5), "retrieval.zero_shot: image_to_text"),
        (lambda lines, report: report["retrieval"].update(images=10), "accuracy.test_examples"),
        (lambda lines, report: report["retrieval"]["final"].pop(0), "retrieval.final at 1, image to text, is None"),
        (lambda lines, report: report.update(retrieval=None), "accuracy.measures is recall@1 image to text"),
        (lambda lines, report: report["accuracy"].update(classes=["a"], per_class=[1.0]), "accuracy.classes"),
    ],
)
def test_figures_of_captions_that_were_falsified(captioned_run: Path, tmp_path: Path, cheat, evidence: str) -> None:
    assert evidence in found(falsified(captioned_run, tmp_path / "run", cheat))["A-31"]


def test_accuracy_and_ranks_must_agree() -> None:
    one, other = Ranks(torch.tensor([0, 1]), torch.tensor([0])), Ranks(torch.tensor([0, 0, 7]), torch.tensor([3]))
    accuracy = retrieval_accuracy(one, other, [0.1, 0.9, 2 / 3])
    assert (accuracy.zero_shot, accuracy.best, accuracy.test_examples) == (0.5, 0.9, 3)
    assert accuracy.interval == pytest.approx([0.2077, 0.9385], abs=1e-4)  # Wilson, 2 of 3
    with pytest.raises(ValueError, match=r"last round's accuracy is 0\.5"):
        retrieval_accuracy(one, other, [0.5])
    section = retrieval(one, other)
    assert (section.images, section.captions) == (3, 1)
    assert [r.text_to_image for r in section.final] == [0.0, 1.0, 1.0]
    assert [r.image_to_text for r in section.final] == [2 / 3, 2 / 3, 1.0]
    assert [r.image_to_text for r in section.zero_shot] == [0.5, 1.0, 1.0]
