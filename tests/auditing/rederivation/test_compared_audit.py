"""A run with competitors: its audit passes, and finds figures that cannot be, and a statement that keeps them quiet."""

from __future__ import annotations

from pathlib import Path

import pytest
from falsifying import Cheat, Table, falsified, found, small, written

from flora_secure.auditing.folder import audit
from flora_secure.engine.task import Task
from flora_secure.planning.names import COMPETITORS


@pytest.fixture(scope="module")
def compared_run(digits: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(small(), digits, tmp_path_factory.mktemp("audit") / "compared", COMPETITORS)


def told(**changes: object) -> Cheat:
    def cheat(lines: list[Table], report: Table) -> None:
        report["competitors"] |= changes

    return cheat


def alone(**changes: object) -> Cheat:
    def cheat(lines: list[Table], report: Table) -> None:
        assert report["competitors"]["local"]["images"] == "mixed"
        report["competitors"]["local"] |= changes

    return cheat


def quiet(lines: list[Table], report: Table) -> None:
    """The figures stay, and the statement says nothing of them."""
    paragraphs = report["privacy"]["statement"].split("\n\n")
    kept = [paragraph for paragraph in paragraphs if not paragraph.startswith("Competitors.")]
    assert len(kept) == len(paragraphs) - 1
    report["privacy"]["statement"] = "\n\n".join(kept)


def test_a_run_with_competitors_passes(compared_run: Path) -> None:
    assert audit(compared_run, opacus=False).passed
    assert found(compared_run) == {}


@pytest.mark.parametrize(
    ("cheat", "check", "evidence"),
    [
        (told(public=1.01), "A-31", "competitors.public 1.01 is no share of 299 images"),
        (told(central=0.5), "A-31", "competitors.central 0.5 is no share of 299 images"),
        (told(no_noise=-1 / 299), "A-31", "competitors.no_noise -0.003"),
        (told(public=None), "A-31", "competitors.left_out is [], the rounds say ['public']"),
        (told(left_out={"public": "it is not there"}), "A-31", "competitors.left_out is ['public'], the rounds say []"),
        (alone(mean=1.2), "A-31", "competitors.local.mean 1.2 is no fraction"),
        (alone(federated=0.1), "A-31", "competitors.local.federated is 0.1"),
        (alone(largest=3), "A-31", "competitors.local.largest is 3, the rounds say 10"),
        (alone(clients=11, largest=11), "A-31", "competitors.local: 11 of 10 clients"),
        (alone(best=0.9), "A-31", "competitors.local.best is 0.9, the rounds say None"),
        (alone(images="all"), "A-31", "competitors.local: 10 of 10 clients, 'all'"),
        (told(central=None), "A-30", "'Competitors' says"),
        (quiet, "A-30", "paragraph 'Competitors'"),
    ],
)
def test_competitors_that_were_falsified(
    compared_run: Path, tmp_path: Path, cheat: Cheat, check: str, evidence: str
) -> None:
    assert evidence in found(falsified(compared_run, tmp_path / "run", cheat))[check]


def test_a_run_without_noise_has_no_competitor_without_noise(genuine: Path, tmp_path: Path) -> None:
    def cheat(lines: list[Table], report: Table) -> None:
        report["privacy"]["target_epsilon"] = None
        report["competitors"]["no_noise"] = 0.5

    assert "competitors.no_noise of a run without noise" in found(falsified(genuine, tmp_path / "run", cheat))["A-31"]
