"""`flora-secure attack`: it writes into the run's local folder, and says in a line what it cannot attack."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from command import flora_here, said

import flora_secure
from flora_secure.auditing.attacked import read
from flora_secure.auditing.attacks import course
from flora_secure.records.reading import read_run

SMALL = ("--dataset", "digits", "--clients", 24, "--partition", "dirichlet:0.2", "--rounds", 2, "--corrupt", 0)
SET = ("--simulation-noise", "--warm-start", "none", "--masking", "counted", "--epsilon", "inf")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("attack")
    done = flora_here("simulate", *SMALL, *SET, "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_attacks_are_written_where_nothing_leaves_and_an_audit_finds_them(run: Path) -> None:
    asked = ("attack", "run", "--shadows", 16, "--json")
    done = flora_here(*asked, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert said(done)[-1] == "wrote run/local/attacks, whose pictures show private images"
    place = run / "local" / "attacks"
    names = ["attacks.json", "membership.png", "reconstruction.png", "sites.png"]
    assert sorted(file.name for file in place.iterdir()) == names
    assert all(file.stat().st_mode & 0o77 == 0 for file in (place, *place.iterdir()))
    assert (place / "reconstruction.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(done.stdout) == json.loads((place / "attacks.json").read_text())
    attacks = read(place / "attacks.json", run)
    assert {one.attack for one in attacks.outcomes} == {"reconstruction", "membership", "sites"}
    # no budget, so that nothing is bounded; masks hide all the same
    assert {one.role for one in attacks.outcomes} == {"control", "hidden", "shown"}
    assert "<table" in attacks._repr_html_()
    audit = json.loads(flora_here("audit", "run", "--no-opacus", "--json", cwd=run.parent).stdout)
    assert {"reconstruction", "membership", "sites"} <= {block["name"] for block in audit["blocks"]}


def test_one_attack_into_another_folder(run: Path, tmp_path: Path) -> None:
    done = flora_here("attack", run, "--attacks", "reconstruction", "--out", "found", "--seed", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "found").iterdir()) == ["attacks.json", "reconstruction.png"]
    assert "X-01" in done.stdout
    assert "succeeds, as it should: 100 %" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nowhere",), "nowhere"),
        (("RUN", "--attacks", "site"), "'site' is none of reconstruction, membership, sites; did you mean 'sites'?"),
        (("RUN", "--attacks", ","), "names none; known: reconstruction, membership, sites"),
        (("RUN", "--shadows", 3), "must lie in 16…10,000, got 3"),
        (("RUN", "--seed", -1), "must lie in 0…4294967295, got -1"),
        (("RUN", "--out", "/dev/null/found"), "cannot be made: File exists; choose another folder"),
    ],
)
def test_what_cannot_be_attacked_is_said_in_a_line(run: Path, tmp_path, arguments: tuple, line: str) -> None:
    done = flora_here("attack", *(run if part == "RUN" else part for part in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert line in said(done)[-1]


def test_passed_data_are_attacked_from_python_alone(run: Path, tmp_path, monkeypatch) -> None:
    read = read_run(run)
    named = dataclasses.replace(read.config, data=dataclasses.replace(read.config.data, dataset="own:photos"))
    monkeypatch.setattr(course, "read_run", lambda path: read._replace(config=named))
    done = flora_here("attack", run, cwd=tmp_path)
    assert done.returncode == 2
    assert "attack it from Python, with dataset= of flora_secure.attack" in said(done)[-1]


def test_a_missing_library_is_said_in_a_line(run: Path, tmp_path, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("flora_secure.auditing.attacks.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = flora_here("attack", run, cwd=tmp_path)
    assert done.returncode == 2
    assert said(done)[-1].endswith("attacks need matplotlib: pip install 'flora-secure[train]'")


def test_a_list_of_attacks_is_no_text(run: Path) -> None:
    with pytest.raises(TypeError, match="give a list"):
        flora_secure.attack(run, attacks="sites")
