"""Competitors: figures that are known beforehand, whose data they see, and when they are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from federations import FEW, captioned, few_images, finish, prepare, small, task_of
from torch.nn.functional import normalize

import flora_secure
from flora_secure.data.dataset import Dataset, Owners, Split
from flora_secure.data.federation import Federation, load_federation
from flora_secure.engine.competitors import (
    central_adapter,
    competitors_of,
    public_adapter,
    public_features,
    require_possible,
    why_not,
)
from flora_secure.engine.frames.projection import Projection
from flora_secure.engine.frames.setting import PublicSample, Setting
from flora_secure.engine.summary import summarise
from flora_secure.engine.task import Framed, Task
from flora_secure.errors import ConfigError, RunInterrupted
from flora_secure.model.factors import Factors
from flora_secure.model.fitting import fitted_to_the_end
from flora_secure.model.head import Head
from flora_secure.planning.config import RunConfig
from flora_secure.planning.rules import PROMPT_BASIS
from flora_secure.records.report import Choices, Competitors, Report
from flora_secure.server.evaluator import Evaluator
from flora_secure.server.scores import evaluate

CLASSES = 4


@dataclass(frozen=True, eq=False)
class Points(Setting):
    """Images that are their own features."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def features(self, images: Any) -> torch.Tensor:
        return torch.from_numpy(images)


NOTHING_CHOSEN = Choices(warm_start=None, control_variate=None)


def points(labels: list[int], seed: int) -> Split:
    """Images close to the corner of their class."""
    corners = torch.eye(8)[labels]
    noise = 0.05 * torch.randn(corners.shape, generator=torch.Generator().manual_seed(seed))
    of = np.array(labels, np.int64)
    return Split(normalize(corners + noise, dim=1).numpy(), of, "points", np.arange(len(of)))


def world(
    held: list[list[int]], tested: list[int], public: list[int], whose: list[int] | None = None, **changes: Any
) -> tuple[RunConfig, Task]:
    """A task on points: labels of each client, of the test and of the public slice; `whose` each test image is. Class
    embeddings begin at right angles to all images, so that the frozen model knows nothing."""
    config = small(data__partition="iid" if whose is None else "natural", **changes)
    private = points([label for own in held for label in own], 1)
    of = np.repeat(np.arange(len(held)), [len(own) for own in held])
    owners = None if whose is None else Owners(tuple(map(str, range(len(held)))), of, np.array(whose))
    names = tuple(f"class {i}" for i in range(CLASSES))
    data = Dataset("points", private, points(public, 2), points(tested, 3), names, ("{}",), False, owners)
    clients = [np.flatnonzero(of == client) for client in range(len(held))]
    federation = Federation(data, clients, config.partition)
    head = Head(torch.eye(CLASSES), torch.eye(8)[4:], logit_scale=20.0)
    fresh = Factors(torch.eye(CLASSES), torch.zeros(CLASSES, 8))
    setting = Points(config, SimpleNamespace(), PROMPT_BASIS, None, names, ("{}",), False, False, data.public)
    frame = Projection(setting, head, fresh, PublicSample(setting))
    images = setting.features(data.test.images)
    evaluator = Evaluator(lambda factors: (head.text(factors), images), torch.from_numpy(data.test.labels), False)
    return config, Task(
        Framed(config, SimpleNamespace(), PROMPT_BASIS, frame, NOTHING_CHOSEN), federation, None, evaluator
    )


def compared(config: RunConfig, task: Task, factors: Factors, *names: str) -> Competitors:
    return competitors_of(SimpleNamespace(config=config, task=task, factors=factors), names)


def constant(label: int) -> Factors:
    """The adapter that finds every image to be of one class."""
    b = torch.zeros(CLASSES, 8)
    b[label, :CLASSES] = 50.0
    return Factors(torch.eye(CLASSES), b)


def test_all_data_in_one_place_is_right_and_who_knows_one_class_is_not() -> None:
    """Of clients that hold one class each, where no test image is a client's: every adapter on every image."""
    each = [label for label in range(CLASSES) for _ in range(3)]
    config, task = world([[label] * 5 for label in range(CLASSES)], each, [0, 0, 1, 1], data__test="unseen-clients")
    found = compared(config, task, constant(1), "local", "central")
    data, head, fresh = task.federation.dataset, task.frame.head, task.frame.fresh
    features, labels = torch.from_numpy(data.private.images), torch.from_numpy(data.private.labels)
    alone = [
        task.evaluator.accuracy(fitted_to_the_end(head, fresh, features[own], labels[own]))
        for own in task.federation.clients
    ]
    assert max(alone) <= 0.75
    assert found.central == 1.0
    assert found.public is not None
    assert 0.5 <= found.public < 1.0
    assert found.left_out == {}
    assert found.local is not None
    assert (found.local.images, found.local.clients, found.local.largest) == ("all", 4, 4)
    assert found.local.mean == found.local.mean_of_largest == pytest.approx(np.mean(alone))
    assert found.local.best == pytest.approx(max(alone))
    assert found.local.federated == found.local.federated_of_largest == 0.25


def test_owned_test_images_count_one_by_one_and_clients_without_any_not_at_all() -> None:
    # client 0 says 0 of everything, and owns one 0 and three others; client 1 is right about its six; client 2 has none
    held, whose = [[0] * 9, [1] * 4, [2] * 3], [0] * 4 + [1] * 6
    config, task = world(held, [0, 1, 1, 1] + [1] * 6, [], whose)
    found = compared(config, task, constant(1), "local").local
    assert found is not None
    assert (found.images, found.clients, found.largest, found.best) == ("own", 2, 2, None)
    assert found.mean == found.mean_of_largest == pytest.approx(7 / 10)
    assert found.federated == found.federated_of_largest == pytest.approx(9 / 10)


def test_what_the_federation_knows_is_kept_where_a_client_fits_on() -> None:
    """A client that holds zeros alone, and is tested on ones too, owes these to the federation."""
    config, task = world([[0] * 8, [1, 1, 2, 3]], [0, 1, 0, 1], [], [0, 0, 0, 0])
    right = central_adapter(task)
    found = compared(config, task, right, "local").local
    assert found is not None
    assert (found.mean, found.federated, found.fitted_on) == (0.5, 1.0, 1.0)
    assert found.fitted_on_of_largest == 1.0


def test_public_images_of_one_label_alone_are_no_competitor() -> None:
    config, task = world([[0, 1], [2, 3]], [0, 1, 2, 3], [0, 0, 0])
    found = compared(config, task, central_adapter(task))
    assert found.public is None
    assert found.left_out == {"public": "the public images all have one label, which tells nothing of the classes"}


def test_the_fifteen_largest_are_those_with_most_private_images() -> None:
    """Sixteen clients: the smallest is wrong about its one test image, and the federation about all but that."""
    held = [[0] * (3 + client) for client in range(16)]
    config, task = world(held, [1] + [0] * 15, [], [*range(16)])
    found = compared(config, task, constant(1), "local").local
    assert found is not None
    assert (found.clients, found.largest) == (16, 15)
    assert found.mean == pytest.approx(15 / 16)
    assert found.mean_of_largest == 1.0
    assert found.federated == pytest.approx(1 / 16)
    assert found.federated_of_largest == 0.0


def test_test_images_of_nobody_are_mixed_like_a_clients_own_labels() -> None:
    """As `accuracy.client_mean` counts; images of a class that a client lacks are none of its business."""
    held, tested = [[0, 0, 0, 1], [2, 2], [3] * 5], [0] * 5 + [1, 2, 3, 3]
    config, task = world(held, tested, [])
    found = compared(config, task, constant(1), "local").local
    assert found is not None
    assert (found.images, found.clients, found.mean) == ("mixed", 3, 1.0)
    predicted = task.evaluator.predicted(constant(1)).numpy()
    whole = evaluate(predicted, np.array(tested), CLASSES, [np.array(own) for own in held])
    assert found.federated == whole.client_mean == pytest.approx((1 / 4 + 0 + 0) / 3)


def test_each_client_is_alone_with_its_images_on_a_real_task(task: Task) -> None:
    """The figures worked out again, a client at a time."""
    simulation = finish(small(), task)
    found = competitors_of(simulation, ("local", "central"))
    data, frame = task.federation.dataset, task.frame
    features, labels = frame.setting.features(data.private.images), torch.from_numpy(data.private.labels)
    shares = []
    for own in map(torch.from_numpy, task.federation.clients):
        predicted = task.evaluator.predicted(fitted_to_the_end(frame.head, frame.fresh, features[own], labels[own]))
        right = predicted == task.evaluator.target
        recall = torch.stack([right[task.evaluator.target == label].double().mean() for label in range(10)])
        shares.append(float(recall[labels[own]].mean()))
    assert found.local is not None
    assert found.local.mean == pytest.approx(np.mean(shares))
    report = summarise(simulation, total_seconds=1.0, competitors=found)
    assert found.local.federated == pytest.approx(report.accuracy.client_mean)
    assert found.central is not None
    assert found.central > max(report.accuracy.zero_shot + 0.2, found.local.mean)


def poisoned(task: Task, *parts: str) -> Task:
    """The same task with splits that hold no numbers and other labels."""
    data = task.federation.dataset
    bad = {
        part: Split(np.full_like(split.images, np.nan), (split.labels + 1) % CLASSES, split.origin, split.indices)
        for part, split in ((part, getattr(data, part)) for part in parts)
    }
    federation = replace(task.federation, dataset=replace(data, **bad))
    nothing = torch.full((len(data.test), 8), torch.nan)
    evaluator = replace(task.evaluator, test=lambda factors: (nothing[:CLASSES], nothing))
    return replace(task, federation=federation, evaluator=evaluator if "test" in parts else task.evaluator)


def test_public_labels_alone_see_no_private_and_no_test_image() -> None:
    _, task = world([[0, 1], [2, 3]], [0, 1, 2, 3], [0, 1, 2, 3, 3])
    clean = public_adapter(task).b
    assert torch.equal(public_adapter(poisoned(task, "private", "test")).b, clean)
    assert clean.abs().max() > 0.1
    assert central_adapter(poisoned(task, "private")).b.isnan().all()  # the poison is one


def test_all_data_in_one_place_are_private_data_alone() -> None:
    _, task = world([[0, 1], [2, 3]], [0, 1, 2, 3], [0, 1])
    clean = central_adapter(task).b
    assert torch.equal(central_adapter(poisoned(task, "public", "test")).b, clean)
    assert clean.abs().max() > 0.1


def test_the_warm_start_of_the_run_is_not_that_of_its_competitors(task: Task) -> None:
    """They begin at the fresh adapter, whatever the run begins with; images that it embedded are not embedded again."""
    cold = task_of(small(training__warm_start="none", training__control_variate=0.0))
    assert not torch.equal(cold.initial.b, task.initial.b)
    assert torch.equal(public_adapter(cold).b, public_adapter(task).b)
    whole = task.frame.setting.features(task.federation.dataset.public.images)
    torch.testing.assert_close(public_features(task.frame), whole)


def test_of_more_public_images_than_training_sees_the_others_are_embedded_too(monkeypatch) -> None:
    from flora_secure.engine.frames import setting

    _, task = world([[0, 1], [2, 3]], [0, 1, 2, 3], [0, 1, 2, 3, 3, 2, 1])
    monkeypatch.setattr(setting, "public_sample", lambda count: np.array([1, 4, 5]))
    seen = []
    monkeypatch.setattr(Points, "features", lambda self, images: seen.append(len(images)) or torch.from_numpy(images))
    assert len(task.frame.public.features) == 3
    np.testing.assert_array_equal(public_features(task.frame).numpy(), task.federation.dataset.public.images)
    assert seen == [3, 4]


@pytest.mark.parametrize(
    ("changes", "names", "says"),
    [
        ({"model__placement": "text-mlp"}, ("central",), "central: it is fitted where model.placement is text-proj"),
        (
            {"model__rule": "ab", "model__rank": 3},
            ("public", "local"),
            "public: B alone is fitted, and at a model.rank",
        ),
        ({"model__rule": "ab", "model__rank": 4}, ("local",), ""),
        ({"model__rank": 3}, ("local",), ""),
    ],
)
def test_what_cannot_be_compared_fairly_is_refused(changes: dict[str, Any], names: tuple[str, ...], says: str) -> None:
    config, task = world([[0, 1], [2, 3]], [0, 1, 2, 3], [0, 1, 2, 3])
    config = small(data__partition="iid", **changes)
    if not says:
        require_possible(names, config, task.federation)
        return
    with pytest.raises(ConfigError, match=f"compare {says}.*; leave it out"):
        require_possible(names, config, task.federation)


def test_data_that_lack_what_a_competitor_needs() -> None:
    config, task = world([[0, 1], [2, 3]], [0, 1, 2], [])
    with pytest.raises(ConfigError, match="compare public: data set 'points' has no public images; leave it out"):
        require_possible(("public",), config, task.federation)
    with pytest.raises(ConfigError, match="compare local: clients hold 'class 3', and no test image shows one; leave"):
        require_possible(("central", "local"), config, task.federation)
    left_out = compared(config, task, constant(0)).left_out
    assert left_out == {"public": why_not("public", config, task.federation)}


def test_of_captions_only_the_run_without_noise_can_be_had() -> None:
    config = small(data__partition="iid", model__placement="text-projection")
    federation = captioned(load_federation(config.data, 0))
    require_possible(("no-noise",), config, federation)
    for name in ("public", "local", "central"):
        with pytest.raises(ConfigError, match=f"compare {name}: it needs labels, and data set 'digits' has captions"):
            require_possible((name,), config, federation)
    report = summarise(finish(small(**FEW), prepare(small(**FEW), federation)), total_seconds=1.0)
    assert (report.competitors.public, report.competitors.local, report.competitors.no_noise) == (None, None, None)
    assert report.competitors.left_out == {"public": "it needs labels, and data set 'digits' has captions"}


def test_elsewhere_than_on_the_text_projection_the_report_says_why_there_is_no_figure() -> None:
    config = small(**FEW, model__placement="text-mlp")
    report = summarise(finish(config, few_images(model__placement="text-mlp")), total_seconds=1.0)
    assert report.competitors.public is None
    assert report.competitors.left_out["public"].endswith("and here that is text-mlp")


RUN: dict[str, Any] = {"dataset": "digits", "clients": 10, "rounds": 2, "epsilon": 50.0, "html": False}


def test_competitors_are_asked_for_once_and_a_resumed_run_has_them(tmp_path: Path, quick: None) -> None:
    def interrupt(number: int, total: int, record: object) -> None:
        if number == total:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        flora_secure.simulate(**RUN, out=tmp_path / "run", compare=["central", "local"], progress=interrupt)
    found = flora_secure.simulate(resume=tmp_path / "run", html=False).report.competitors
    assert None not in (found.public, found.local, found.central)
    assert found.no_noise is None
    assert found.of_private_data == ["local", "central"]


def test_a_run_with_all_competitors_passes_the_audit_and_its_statement_tells_of_them(tmp_path: Path) -> None:
    names = ["no-noise", "local", "public", "central"]
    report: Report = flora_secure.simulate(**RUN, out=tmp_path / "run", compare=names).report
    assert report.competitors.no_noise is not None
    assert flora_secure.audit(tmp_path / "run", opacus=False).passed
    assert "\n\nCompetitors. The report says" in report.privacy.statement
    without = flora_secure.simulate(**RUN, out=tmp_path / "other", compare=["public"]).report
    assert without.competitors.public == report.competitors.public
    assert "Competitors." not in without.privacy.statement


def test_names_are_given_in_a_list_and_known(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="compare is one text, 'central': give a list"):
        flora_secure.simulate(compare="central")
    with pytest.raises(ConfigError, match=r"compare 'no_noise' is none of public, local.*; did you mean 'no-noise'"):
        flora_secure.simulate(compare=["central", "no_noise"], out=tmp_path / "run")
    with pytest.raises(TypeError, match="leave out compare"):
        flora_secure.simulate(resume=tmp_path, compare=["central"])
    assert not (tmp_path / "run").exists()
