"""Forgetting: right answers against a slow count, and runs whose unseen classes leave no trace in what is trained."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from federations import finish, outcome, prepare, small
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch.nn import functional as F  # noqa: N812

from flora_secure.data.dataset import Dataset, Unseen
from flora_secure.data.federation import Federation, load_federation
from flora_secure.engine.accuracy import forgetting
from flora_secure.engine.recorded import begin, go_on
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.summary import summarise
from flora_secure.engine.task import Task
from flora_secure.errors import CheckpointError
from flora_secure.model.clip import class_prompts
from flora_secure.model.loading import load_clip
from flora_secure.planning.config import RunConfig
from flora_secure.records.reading import read_run
from flora_secure.records.report import json_schema
from flora_secure.records.report_table import rows
from flora_secure.records.run_folder import reopen
from flora_secure.server.scores import Hits, hits

UNSEEN = ("digit 7", "digit 2")


# --- counting


@st.composite
def answers(draw):
    """Few values, hence many ties; whole numbers, hence exact in float32."""
    e, vector = draw(st.integers(1, 3)), st.integers(-2, 2)

    def side(classes: int):
        images = draw(st.integers(1, 6))
        rows = st.lists(st.lists(vector, min_size=e, max_size=e), min_size=classes, max_size=classes)
        shown = st.lists(st.lists(vector, min_size=e, max_size=e), min_size=images, max_size=images)
        labels = st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)
        return draw(rows), draw(shown), draw(labels)

    return side(draw(st.integers(2, 4))), side(draw(st.integers(1, 3)))


def slow(classes: list[list[int]], images: list[list[int]], labels: list[int]) -> int:
    """Images with a class that is nearer than every other one and their own."""
    right = 0
    for image, label in zip(images, labels, strict=True):
        near = [sum(a * b for a, b in zip(image, one, strict=True)) for one in classes]
        right += all(near[label] > other for place, other in enumerate(near) if place != label)
    return right


def tensors(side) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    classes, images, labels = side
    return (torch.tensor(classes).float(), torch.tensor(images).float()), torch.tensor(labels)


@given(answers())
@settings(max_examples=200)
def test_right_answers_are_those_of_the_slow_count(case) -> None:
    seen, unseen = case
    found = hits(*tensors(seen), *tensors(unseen))
    everything = seen[0] + unseen[0]
    assert found.among_unseen == slow(*unseen)
    assert found.unseen_among_all == slow(everything, unseen[1], [len(seen[0]) + label for label in unseen[2]])
    assert found.seen_among_all == slow(everything, seen[1], seen[2])
    assert found.unseen_among_all <= found.among_unseen


@pytest.mark.parametrize("collapsed", [1.0, 0.0, math.nan])
def test_a_collapsed_model_is_right_nowhere(collapsed: float) -> None:
    side = torch.full((3, 5), collapsed), torch.full((20, 5), collapsed)
    labels = torch.arange(20) % 3
    assert hits(side, labels, side, labels) == Hits(0, 0, 0)


def test_fractions_are_of_their_own_images() -> None:
    found = forgetting(Hits(8, 4, 30), Hits(6, 1, 40), ("a", "b"), 10, 50)
    assert (found.classes, found.test_examples) == (["a", "b"], 10)
    assert (found.among_unseen.zero_shot, found.among_unseen.final) == (0.8, 0.6)
    assert (found.unseen_among_all.zero_shot, found.unseen_among_all.final) == (0.4, 0.1)
    assert (found.among_all.zero_shot, found.among_all.final) == (34 / 60, 41 / 60)
    assert found.among_unseen.interval == pytest.approx([0.3127, 0.8318], abs=1e-4)  # Wilson, 6 of 10


# --- runs


PLACEMENTS = ("text-projection", "text-attention", "visual-projection")


def settings_of(placement: str, **changes: Any) -> RunConfig:
    local = {} if placement == "text-projection" else {"training__local_steps": 2, "training__rounds": 2}
    if placement == "text-attention":
        local["model__last_layers"] = 1
    return small(**{"model__placement": placement, "data__unseen_classes": UNSEEN, **local, **changes})


def fewer(federation: Federation) -> Federation:
    """The first images, ten clients and two prompts a class: a tower that trains is slow."""
    data, few = federation.dataset, np.arange(60)
    data = replace(data, private=data.private.at(few), templates=data.templates[:2])
    return Federation(data, np.array_split(few, 10))


def task_of(config: RunConfig, **of_dataset: Any) -> Task:
    torch.set_num_threads(1)
    federation = load_federation(config.data, config.seed)
    if config.model.placement != "text-projection":
        federation = fewer(federation)
    return prepare(config, replace(federation, dataset=replace(federation.dataset, **of_dataset)))


def through_peft(task: Task, adapter: Path | None) -> Hits:
    """The same count from the adapter on disk, with the whole model of open_clip and peft, and all classes in order."""
    fresh, data = load_clip(), task.federation.dataset
    loaded: Any = fresh.model if adapter is None else PeftModel.from_pretrained(fresh.model, str(adapter))
    assert data.unseen is not None
    classes = [*data.class_names, *data.unseen.class_names]
    with torch.no_grad():
        prompts = class_prompts(classes, data.templates)
        texts = F.normalize(torch.stack([loaded.encode_text(fresh.tokenizer(p)).mean(0) for p in prompts]), dim=-1)
        seen, unseen = (
            F.normalize(loaded.encode_image(fresh.pixels(split.images)), dim=-1) @ texts.T
            for split in (data.test, data.unseen.test)
        )
    first = len(data.class_names)
    own, others = torch.from_numpy(data.unseen.test.labels), torch.from_numpy(data.test.labels)
    return Hits(
        among_unseen=int((unseen[:, first:].argmax(1) == own).sum()),
        unseen_among_all=int((unseen.argmax(1) == own + first).sum()),
        seen_among_all=int((seen.argmax(1) == others).sum()),
    )


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_report_says_what_the_saved_adapter_does_to_unseen_classes(placement: str, tmp_path: Path) -> None:
    config = settings_of(placement, training__rounds=6, privacy__epsilon=math.inf)
    task = task_of(config)
    simulation = finish(config, task)
    report = summarise(simulation, total_seconds=1.0)
    jsonschema.validate(report.to_dict(), json_schema())
    found, data = report.forgetting, task.federation.dataset
    assert found is not None
    assert data.unseen is not None
    assert found.classes == ["digit 2", "digit 7"]
    assert report.accuracy.classes == [f"digit {i}" for i in (0, 1, 3, 4, 5, 6, 8, 9)]
    assert (found.test_examples, report.accuracy.test_examples) == (len(data.unseen.test), len(data.test))
    simulation.save_adapter(tmp_path)
    before, after = through_peft(task, None), through_peft(task, tmp_path)
    assert max(abs(a - b) for a, b in zip(astuple(before), astuple(after), strict=True)) > 10
    expected = forgetting(before, after, found.classes, len(data.unseen.test), len(data.test))
    for name in ("among_unseen", "unseen_among_all", "among_all"):
        told, top = getattr(found, name), getattr(expected, name)
        one = 1.5 / (found.test_examples if name != "among_all" else len(data.test))  # an image may round otherwise
        assert (told.zero_shot, told.final) == pytest.approx((top.zero_shot, top.final), abs=one)
    row = dict(rows(report))["  unseen classes"]
    assert row.startswith("2 (digit 2, digit 7), zero-shot → final ")
    assert f"{found.among_unseen.zero_shot:.1%} → {found.among_unseen.final:.1%} among themselves" in row
    assert f"all classes {found.among_all.zero_shot:.1%} → {found.among_all.final:.1%}" in row


def shuffled(data: Dataset) -> Dataset:
    """Other unseen classes, with other images, as far as training could tell."""
    assert data.unseen is not None
    test = replace(
        data.unseen.test, images=255 - data.unseen.test.images, labels=np.zeros_like(data.unseen.test.labels)
    )
    return replace(data, unseen=Unseen(("an umbrella", "a spoon"), test))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_training_does_not_know_of_unseen_classes(placement: str) -> None:
    """The same run, bit for bit, where they and their images are others, and where there are none."""
    config = settings_of(placement)
    given = load_federation(config.data, config.seed).dataset
    task = task_of(config)
    assert len(task.federation.dataset.public) > 0  # the warm start and the units read it
    simulation = finish(config, task)
    for unseen in (shuffled(given).unseen, None):
        again = finish(config, task_of(config, unseen=unseen))
        assert [row[0] for row in outcome(again)] == [row[0] for row in outcome(simulation)]
        assert torch.equal(again.factors.a, simulation.factors.a)
        assert torch.equal(again.factors.b, simulation.factors.b)
        report = summarise(again, total_seconds=1.0)
        assert (report.forgetting is None) == (unseen is None)
        assert ("  unseen classes" in dict(rows(report))) == (unseen is not None)


def test_the_trained_rank_is_that_of_the_seen_classes() -> None:
    """prompt-basis has a direction for each class that is trained."""
    assert task_of(small(data__unseen_classes=UNSEEN)).initial.b.shape[0] == 8
    assert task_of(small()).initial.b.shape[0] == 10


def test_one_unseen_class_by_itself_is_not_told_among_themselves() -> None:
    config = small(data__unseen_classes=("digit 4",))
    simulation = finish(config, task_of(config))
    report = summarise(simulation, total_seconds=1.0)
    assert report.forgetting is not None
    assert (report.forgetting.among_unseen.zero_shot, report.forgetting.among_unseen.final) == (1.0, 1.0)
    assert "among themselves" not in dict(rows(report))["  unseen classes"]


def test_a_resumed_run_has_the_same_unseen_classes(tmp_path: Path) -> None:
    config = small(data__unseen_classes=UNSEEN, aggregation__secagg="off")
    whole = summarise(finish(config, task_of(config)), total_seconds=1.0)
    run = begin(Simulation(config, task_of(config)), tmp_path / "run")
    next(run.rounds())  # and no more: as if it was killed

    interrupted = reopen(tmp_path / "run")
    assert interrupted.config == config
    assert interrupted.config.data.unseen_classes == UNSEEN
    again = go_on(Simulation(interrupted.config, task_of(interrupted.config)), interrupted)
    assert len(list(again.rounds())) == 2
    report = summarise(again.running, total_seconds=1.0, rounds_hash=again.folder.last_hash)
    again.folder.write_report(report)
    assert read_run(tmp_path / "run").report == report
    assert report.forgetting is not None
    assert report.forgetting == whole.forgetting
    assert report.accuracy == whole.accuracy


def test_a_run_does_not_go_on_with_other_unseen_classes(tmp_path: Path) -> None:
    config = small(data__unseen_classes=UNSEEN, aggregation__secagg="off")
    next(begin(Simulation(config, task_of(config)), tmp_path / "run").rounds())
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, unseen_classes=UNSEEN[:1]))
    for task in (task_of(other), task_of(config, unseen=None)):
        with pytest.raises(CheckpointError, match="the data is not what the run began with"):
            go_on(Simulation(config, task), reopen(tmp_path / "run"))
