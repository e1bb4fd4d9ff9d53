"""What a run decides on public data: from nothing else, said in its report, kept by its folder; what is set stays."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from federations import captioned, prepare

import flora_secure
from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.federation import Federation, load_federation
from flora_secure.data.passed.own import OwnData
from flora_secure.engine.choices import decided
from flora_secure.engine.recorded import begin
from flora_secure.engine.run import Surroundings, resume_run
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.errors import CheckpointError, ConfigError
from flora_secure.planning.config import RunConfig, load_config, override
from flora_secure.planning.masking import settled
from flora_secure.records.report import Choice, Choices
from flora_secure.records.report_table import rows

OPEN = {
    "data.dataset": "digits",
    "data.clients": 8,
    "training.rounds": 2,
    "privacy.epsilon": 20.0,
    "privacy.simulation_noise": True,
    "aggregation.secagg": "off",
}


def config_of(**changes: object) -> RunConfig:
    return override(RunConfig(), OPEN | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def federation() -> Federation:
    torch.set_num_threads(1)
    return load_federation(config_of().data, 0)


@pytest.fixture(scope="module")
def task(federation: Federation) -> Task:
    return prepare(config_of(), federation)


def with_data(federation: Federation, **parts: object) -> Federation:
    return replace(federation, dataset=replace(federation.dataset, **parts))


def labelled(split: Split, labels: np.ndarray) -> Split:
    return replace(split, labels=labels.astype(np.int64))


def choices_of(federation: Federation, **changes: object) -> Choices:
    return prepare(config_of(**changes), federation).made.choices


# --- what decides


def test_both_are_decided_and_the_figures_are_of_held_out_public_images(task: Task) -> None:
    start, variate = task.made.choices.warm_start, task.made.choices.control_variate
    assert start is not None
    assert variate is not None
    assert start.by == variate.by == "public data"
    assert (start.value, list(start.held_out)) == ("labels", ["none", "images", "labels"])
    assert start.held_out["labels"] > start.held_out["none"] + 0.05
    assert variate.value in variate.held_out
    assert list(variate.held_out) == ["0", "1"]
    assert start.images == variate.images == len(task.federation.dataset.public)
    found = task.settled(config_of()).training
    assert (found.warm_start, found.control_variate) == ("labels", float(variate.value))
    assert task.made.config.training == found


def test_neither_private_nor_test_images_nor_their_labels_are_read(task: Task, federation: Federation) -> None:
    data = federation.dataset

    def poisoned(split: Split) -> Split:
        noise = np.random.default_rng(0).integers(0, 256, np.shape(split.images), np.uint8)
        return replace(split, images=noise, labels=np.zeros_like(split.labels))

    other = with_data(federation, private=poisoned(data.private), test=poisoned(data.test))
    assert choices_of(other) == task.made.choices
    public = labelled(data.public, np.roll(data.public.labels, 1))
    assert choices_of(with_data(federation, public=public)) != task.made.choices


def test_the_same_run_decides_the_same_and_more_noise_is_known_to_it(task: Task, federation: Federation) -> None:
    assert choices_of(federation) == task.made.choices
    quiet, loud = (
        choices_of(federation, training__warm_start="none", privacy__epsilon=epsilon).control_variate
        for epsilon in (float("inf"), 0.05)
    )
    assert quiet is not None
    assert loud is not None
    assert loud.held_out["0"] < quiet.held_out["0"] - 0.02


def test_labels_that_are_wrong_are_not_learned(federation: Federation) -> None:
    public = federation.dataset.public
    wrong = labelled(public, np.random.default_rng(0).permutation(public.labels))
    assert prepare(config_of(), with_data(federation, public=wrong)).settled(config_of()).training.warm_start == "none"


def test_without_labels_it_is_not_decided_and_says_so(federation: Federation) -> None:
    public = federation.dataset.public
    named = with_data(federation, public=labelled(public, np.zeros(len(public))))
    found = choices_of(named)
    start = Choice(
        value="images",
        by="default",
        reason="the public images have no labels to judge it by",
        images=0,
        held_out={},
    )
    assert found.warm_start == start
    assert found.control_variate is not None
    assert (found.control_variate.value, found.control_variate.by) == ("0", "default")
    assert "have no labels" in (found.control_variate.reason or "")


def test_where_classes_are_missing_labels_judge_and_are_not_learned(federation: Federation) -> None:
    public = federation.dataset.public
    some = with_data(federation, public=public.at(np.flatnonzero(public.labels != 3)))
    found = choices_of(some)
    assert found.warm_start is not None
    assert list(found.warm_start.held_out) == ["none", "images"]
    assert found.control_variate is not None
    assert (found.control_variate.value, found.control_variate.by) == ("0", "default")
    with pytest.raises(
        ConfigError, match=r"labels needs public images of every class, and of 'digit 3' there are none"
    ):
        prepare(config_of(training__warm_start="labels"), some)


@pytest.mark.parametrize(("count", "reason"), [(0, "there are no public images"), (49, "49 public images are too few")])
def test_with_few_public_images_or_none_nothing_is_done(federation: Federation, count: int, reason: str) -> None:
    few = with_data(federation, public=federation.dataset.public.at(np.arange(count)))
    task = prepare(config_of(), few)
    assert task.made.choices.warm_start is not None
    assert (task.made.choices.warm_start.value, task.made.choices.warm_start.by) == ("none", "default")
    assert (task.made.choices.warm_start.reason or "").startswith(reason)
    assert task.settled(config_of()).training.control_variate == 0.0
    assert float(task.initial.b.abs().max()) == 0


def test_what_is_set_stays_and_is_said_to_be_set(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("asked")

    for name in ("folds_of", "federation_of", "held_out"):
        monkeypatch.setattr(decided, name, never)
    found = choices_of(federation, training__warm_start="images", training__control_variate=0.25)
    assert found.warm_start == Choice(value="images", by="user", reason=None, images=0, held_out={})
    assert found.control_variate == Choice(value="0.25", by="user", reason=None, images=0, held_out={})
    assert [choice.line for choice in (found.warm_start, found.control_variate)] == ["images, as set", "0.25, as set"]


def test_what_a_run_has_not_is_not_asked(federation: Federation) -> None:
    assert choices_of(federation, privacy__unit="example").control_variate is None
    example = prepare(config_of(privacy__unit="example"), federation)
    assert example.settled(config_of()).training.control_variate is None
    assert choices_of(captioned(federation)) == Choices(warm_start=None, control_variate=None)
    elsewhere = config_of(model__placement="visual-projection")
    assert prepare(elsewhere, federation).made.choices == Choices(warm_start=None, control_variate=None)


@pytest.mark.parametrize("rounds", [1, 20, 500])
def test_a_long_run_is_imitated_by_rounds_that_cost_what_its_own_do(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    met = []
    monkeypatch.setattr(
        decided.PublicFederation,
        "held_out",
        lambda self, *_: met.append(self) or {0.0: torch.ones(9, dtype=torch.bool)},
    )
    choices_of(federation, training__rounds=rounds, data__partition="iid")
    (found,) = met
    assert found.rounds == min(20, rounds)
    assert (found.clients, str(found.scheme)) == (8, "iid")
    if rounds == 20:
        server = Simulation(config_of(training__rounds=20), prepare(config_of(training__rounds=20), federation)).server
        assert found.optimiser == server.optimiser
        plan = server.plan
        assert found.noise == pytest.approx(plan.sigma_local / plan.scale / plan.clip_norm / 8**0.5)


# --- public labels of one's own data


def own(data: Dataset, placeholder: bool) -> OwnData:
    def items(split: Split) -> list[tuple[np.ndarray, int]]:
        return [(image, int(label)) for image, label in zip(split.images, split.labels, strict=True)]

    public = [(image, 0) for image in data.public.images] if placeholder else items(data.public)
    few = data.private.at(np.arange(100)), data.test.at(np.arange(50))
    return OwnData(items(few[0]), items(few[1]), data.class_names, public=public, templates=data.templates)


@pytest.mark.parametrize(("placeholder", "value"), [(False, "labels"), (True, "images")])
def test_labels_of_ones_own_public_items_are_used_unless_all_are_the_same(
    federation: Federation, placeholder: bool, value: str
) -> None:
    passed = own(federation.dataset, placeholder).load()
    config = config_of(data__dataset=passed.name)
    found = choices_of(load_federation(config.data, 0, None, passed), data__dataset=passed.name)
    assert found.warm_start is not None
    assert found.warm_start.value == value


# --- the run's folder and report


def test_the_folder_holds_the_values_and_the_report_how_they_came(tmp_path: Path, task: Task) -> None:
    told: list[str] = []
    keywords = {key.partition(".")[2]: value for key, value in OPEN.items()}
    run = flora_secure.simulate(**keywords, out=tmp_path / "run", log=told.append)
    assert run.report.choices == task.made.choices
    assert f"warm start: {task.made.choices.warm_start.line}" in told
    training = load_config(tmp_path / "run" / "config.toml").training
    assert training == task.settled(config_of()).training
    assert None not in (training.warm_start, training.control_variate)
    assert flora_secure.audit(tmp_path / "run", opacus=False).passed
    shown = dict(rows(run.report))
    assert shown["  warm start"] == task.made.choices.warm_start.line


def interrupted(task: Task, path: Path) -> Path:
    """One of two rounds is over."""
    config = settled(task.settled(task.federation.settled(config_of())))
    next(begin(Simulation(config, task), path, choices=task.made.choices).rounds())
    return path


def test_a_run_that_goes_on_keeps_what_was_decided(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = interrupted(task, tmp_path / "run")
    before = (path / "config.toml").read_bytes()

    def another(*_: object) -> None:
        raise AssertionError("decided anew")

    monkeypatch.setattr(decided, "held_out", another)
    monkeypatch.setattr(decided, "federation_of", another)
    run = resume_run(path, Surroundings())
    assert run.report.choices == task.made.choices
    assert (path / "config.toml").read_bytes() == before
    assert run.report.privacy.rounds == 2
    assert not (path / "state").exists()


def test_choices_that_are_none_are_refused(task: Task, tmp_path: Path) -> None:
    path = interrupted(task, tmp_path / "run")
    kept = path / "state" / "choices.json"
    assert json.loads(kept.read_text()) == dataclasses.asdict(task.made.choices)
    assert kept.stat().st_mode & 0o777 == 0o600
    for text, says in (("{", "cannot be read"), ('{"warm_start": 3}', "is not what a run wrote")):
        kept.write_text(text)
        with pytest.raises(CheckpointError, match=says):
            resume_run(path, Surroundings())
