"""A run with unseen classes under audit: what its report says of them must be possible, and of the configured ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from falsifying import Cheat, Table, falsified, found, read, small, written
from federations import task_of

from flora_secure.auditing.folder import audit
from flora_secure.planning.config import from_toml


@pytest.fixture(scope="module")
def unseen_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small(data__unseen_classes=("digit 7", "digit 2"))
    task = task_of(config)
    return written(config, task, tmp_path_factory.mktemp("audit") / "unseen")


def test_the_audit_accepts_it(unseen_run: Path) -> None:
    assert from_toml((unseen_run / "config.toml").read_text()).data.unseen_classes == ("digit 7", "digit 2")
    assert read(unseen_run)[1]["forgetting"]["classes"] == ["digit 2", "digit 7"]
    assert audit(unseen_run, opacus=False).passed
    assert found(unseen_run) == {}


def changed(**changes: object) -> Cheat:
    return lambda lines, report: report["forgetting"].update(changes)


def moved(name: str, when: str, images: int) -> Cheat:
    """So many images more are right; the interval follows as far as the rounding of a share."""

    def cheat(lines: list[Table], report: Table) -> None:
        told = report["forgetting"]
        of = told["test_examples"] + (report["accuracy"]["test_examples"] if name == "among_all" else 0)
        told[name][when] = (round(told[name][when] * of) + images) / of

    return cheat


def of_trained(lines: list[Table], report: Table) -> None:
    """All images of unseen classes wrong, and as many of the others right as before in all, and more."""
    told, seen = report["forgetting"], report["accuracy"]
    told["unseen_among_all"]["zero_shot"] = 0.0
    told["among_all"]["zero_shot"] = (round(seen["zero_shot"] * seen["test_examples"]) + 2) / (
        told["test_examples"] + seen["test_examples"]
    )


def less_than_none(lines: list[Table], report: Table) -> None:
    told = report["forgetting"]
    told["unseen_among_all"]["zero_shot"] = told["among_unseen"]["zero_shot"] = 1.0
    told["among_all"]["zero_shot"] = 0.0


@pytest.mark.parametrize(
    ("cheat", "evidence"),
    [
        (lambda lines, report: report.update(forgetting=None), "forgetting.classes is None, the rounds say ['digit 2'"),
        (changed(classes=["digit 2"]), "forgetting.classes is ['digit 2'], the rounds say ['digit 2', 'digit 7']"),
        (changed(classes=["digit 2", "digit 3"]), "forgetting.classes is ['digit 2', 'digit 3']"),
        (
            lambda lines, report: report["accuracy"]["classes"].__setitem__(0, "digit 7"),
            "accuracy that are unseen is [",
        ),
        (changed(test_examples=7), "forgetting.among_unseen.zero_shot"),
        (lambda lines, report: report["forgetting"]["among_all"].update(final=1.2), "among_all.final 1.2 is no share"),
        (lambda lines, report: report["forgetting"]["among_all"].update(final=0.5001), "0.5001 is no share of"),
        (moved("among_unseen", "final", -1), "forgetting.among_unseen.interval is"),
        (moved("among_all", "final", 1), "forgetting.among_all.interval is"),
        (moved("unseen_among_all", "zero_shot", 1000), "is no share of"),
        (lambda lines, report: report["forgetting"]["among_unseen"].update(zero_shot=0.0), "forgetting: zero_shot, "),
        (of_trained, "among the trained ones"),
        (less_than_none, "among the trained ones"),
    ],
)
def test_figures_of_unseen_classes_that_were_falsified(unseen_run: Path, tmp_path: Path, cheat, evidence: str) -> None:
    assert evidence in found(falsified(unseen_run, tmp_path / "run", cheat))["A-31"]


def test_unseen_classes_that_no_one_configured(genuine: Path, unseen_run: Path, tmp_path: Path) -> None:
    told = read(unseen_run)[1]["forgetting"]
    run = falsified(genuine, tmp_path / "run", lambda lines, report: report.update(forgetting=told))
    assert "forgetting.classes is ['digit 2', 'digit 7'], the rounds say None" in found(run)["A-31"]
