"""Folders of which not all can be read: what could not is a finding, and all that can be looked at is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from falsifying import chained, falsified, found, half_sigma, read

from flora_secure.auditing.findings import WARNING
from flora_secure.auditing.folder import audit
from flora_secure.errors import RunFolderError


@pytest.fixture
def folder(genuine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(genuine, tmp_path / "run"))


def test_a_report_of_a_newer_schema_leaves_the_log(folder: Path) -> None:
    lines, report = read(folder)
    half_sigma(lines, report)
    chained(folder, lines, report | {"schema": "flora-secure/report/99"})
    broken = found(folder)
    assert "report.json: schema must be" in broken["A-00"]
    assert "flora-secure/report/99" in broken["A-00"]
    assert "·√" in broken["A-10"]
    assert "so far" in broken["A-21"]
    assert found(folder, WARNING)["A-31"] == "report.json could not be read"


def test_lines_before_one_that_cannot_be_read_are_audited(folder: Path) -> None:
    lines, report = read(folder)
    half_sigma(lines, report)
    lines[2] |= {"schema": "flora-secure/round/99"}
    chained(folder, lines, report)
    broken, why = found(folder), found(folder, WARNING)
    assert "rounds.jsonl, line 3: schema must be" in broken["A-00"]
    assert "round 2: z =" in broken["A-10"]
    assert "round 3" not in broken["A-10"]
    assert "could not be read to its end" in why["A-31"]
    assert not {"A-02", "A-30"} & broken.keys()


@pytest.mark.parametrize("text", [None, "clients = ", "[future]\nkey = 1\n", "\0"])
def test_without_a_configuration_the_log_speaks_for_itself(folder: Path, text: str | None) -> None:
    lines, report = read(folder)
    (folder / "config.toml").write_text(text or "")
    if text is None:
        (folder / "config.toml").unlink()
    assert found(folder).keys() == ({"A-00"} if text is None else {"A-00", "A-01"})
    half_sigma(lines, report)
    (folder / "config.toml").write_text(text or "")
    chained(folder, lines, report)
    if text is None:
        (folder / "config.toml").unlink()
    broken = found(folder)
    assert "config.toml" in broken["A-00"]
    assert {"A-10", "A-11", "A-20", "A-21"} <= broken.keys()
    assert found(folder, WARNING)["A-13"] == "config.toml could not be read"


def test_without_a_log_the_report_is_still_held_to_the_adapter(folder: Path) -> None:
    weights = folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (folder / "rounds.jsonl").write_text("{}\n")
    broken = found(folder)
    assert "rounds.jsonl, line 1: schema must be" in broken["A-00"]
    assert "report.json knows" in broken["A-35"]
    assert found(folder, WARNING)["A-20"] == "no line of rounds.jsonl could be read"
    (folder / "rounds.jsonl").unlink()
    assert "is not the last line that report.json knows" in found(folder)["A-01"]


def test_where_nothing_can_be_read_there_is_no_audit(folder: Path) -> None:
    for name in ("rounds.jsonl", "report.json"):
        (folder / name).write_text("[]\n")
    with pytest.raises(RunFolderError, match=r"rounds\.jsonl, line 1: not a JSON object"):
        audit(folder)


def test_a_folder_that_can_be_read_says_so(genuine: Path, tmp_path: Path) -> None:
    assert "A-00" not in found(falsified(genuine, tmp_path / "run", half_sigma))
