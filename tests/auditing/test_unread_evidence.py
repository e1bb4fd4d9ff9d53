"""Folders with receipt, sums and transcript of which a file cannot be read: it is named, and nobody accused for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from falsifying import found, small, written

from flora_secure.auditing.findings import WARNING
from flora_secure.auditing.folder import audit
from flora_secure.engine.deployed.keys.signing import new_signer
from flora_secure.engine.task import Task
from flora_secure.records.adapter_card import adapter_hash
from flora_secure.records.receipts.receipt import signed
from flora_secure.records.transcript.reading import path_of, read_transcript
from flora_secure.rounds.invitation import Invitation


@pytest.fixture(scope="module")
def whole(digits: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose configuration is nothing that stands in for one that cannot be read."""
    config = small(seed=5, training__server_momentum=0.5, evidence__transcript=True)
    folder = written(config, digits, tmp_path_factory.mktemp("whole") / "run")
    report = (folder / "report.json").read_bytes()
    told = read_transcript(path_of(folder / "transcript", 1))
    session = Invitation.from_bytes(told.invitation, told.enrolment).session
    receipt = signed(folder, report, adapter_hash(folder / "adapter"), session, new_signer())
    (folder / "receipt.json").write_text(receipt.to_json())
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_such_a_folder_passes(folder: Path) -> None:
    assert found(folder) == {}


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_without_a_configuration_all_else_is_audited(folder: Path, content: bytes | None) -> None:
    (folder / "config.toml").unlink()
    if content is not None:
        (folder / "config.toml").write_bytes(content)
    assert found(folder).keys() == {"A-00", "R-03"}
    assert "config.toml: cannot be read" in found(folder)["R-03"]
    why = found(folder, WARNING)
    assert all("config.toml could not be read" in why[check] for check in ("S-02", "S-03", "T-03"))
    left_out = {block.name: block.left_out for block in audit(folder, opacus=False).blocks}
    assert "config.toml could not be read" in str(left_out["canaries"])


def test_a_log_that_cannot_be_read_leaves_the_receipt(folder: Path) -> None:
    (folder / "rounds.jsonl").write_bytes(b"\xff\n")
    weights = folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    broken = found(folder)
    assert "rounds.jsonl: cannot be read" in broken["R-03"]
    assert "signs the adapter" in broken["R-05"]


def test_numbers_that_no_run_has_leave_the_receipt(folder: Path) -> None:
    log = folder / "rounds.jsonl"
    log.write_text(log.read_text().replace('"sigma_local": ', '"sigma_local": -'))
    assert {"A-07", "R-03"} <= found(folder).keys()


def test_files_of_rounds_whose_lines_cannot_be_read_are_no_strangers(folder: Path) -> None:
    first, *rest = (folder / "rounds.jsonl").read_text().splitlines()
    (folder / "rounds.jsonl").write_text("\n".join([first, "{", *rest[1:]]) + "\n")
    assert not {"S-01", "T-01"} & found(folder).keys()


def test_a_sum_whose_line_was_not_written_any_more_is_no_stranger(folder: Path) -> None:
    lines = (folder / "rounds.jsonl").read_text().splitlines(keepends=True)
    (folder / "rounds.jsonl").write_text("".join(lines[:-1]))
    (folder / "report.json").unlink()
    (folder / "receipt.json").unlink()
    assert found(folder) == {}
    shutil.copy(folder / "sums" / "round-00001.npy", folder / "sums" / "round-00009.npy")
    assert "round-00009" in found(folder)["S-01"]
