"""Folders of others: whatever stands in them, an audit ends soon, in findings or in one line."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from command import flora_here
from falsifying import Table, chained, found, read

from flora_secure.auditing.folder import audit
from flora_secure.errors import CheckpointError, InputError
from flora_secure.records.adapter_card import CARD, WEIGHTS, adapter_hash, read_card
from flora_secure.records.checkpoints import Checkpoint
from flora_secure.records.reading import in_flight, read_run
from flora_secure.records.run_folder import reopen
from flora_secure.rounds.optimiser import ServerState

FLOATS = (0.0, -1.0, 1e-300, 5e-324, 1e-12, 1e12, 1e308, -1e300, 10**30)
WHOLE = (0, -1, 1, 10**5, 10**9, 10**18, 10**30, -(10**18))
LISTS: tuple[list[Any], ...] = ([], [0, 0, 0], [10**18], [-1], [*range(3000)])
TEXTS = ("", "\x1b[2J\u202e[red]", "a" * 5000)
SOON = 20.0  # seconds on a machine with other work; none takes two
DRAWN = 50  # of some 2,000 changes of one value, and as many of several


def leaves(table: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(table, dict):
        for key, value in table.items():
            yield from leaves(value, (*at, key))
    else:
        yield at, table


def others(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    kinds = {int: WHOLE, float: FLOATS, str: TEXTS, list: LISTS, type(None): (0, 1e-300, 1e308, 10**18, "x")}
    return kinds[type(value)]


def put(table: Table, at: tuple[str, ...], value: Any) -> None:
    for key in at[:-1]:
        table = table[key]
    table[at[-1]] = value


def soon(folder: Path, what: object) -> None:
    """An audit of `folder` ends in time, and raises InputError or nothing."""
    before = time.monotonic()
    try:
        result = audit(folder, opacus=False)
        result.to_json()
        result.rows()
    except InputError as error:
        one_line(error)
    assert time.monotonic() - before < SOON, what


def one_line(error: InputError) -> None:
    assert len(str(error).splitlines()) == 1


@pytest.fixture
def folder(genuine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(genuine, tmp_path / "run"))


@pytest.mark.searches
@pytest.mark.parametrize("part", ["lines", "one line", "report", "config", "several"])
def test_no_value_that_is_changed_ends_an_audit_in_a_traceback(folder: Path, part: str) -> None:
    rng = random.Random(part)
    lines, report = read(folder)
    config = tomllib.loads((folder / "config.toml").read_text())
    source = {"report": report, "config": config}.get(part, lines[0])
    changes = [(at, new) for at, value in leaves(source) for new in others(value)]
    for number in range(min(DRAWN, len(changes))):
        now = copy.deepcopy((lines, report, config))
        drawn = rng.sample(changes, 3 if part == "several" else 1)
        tables = {"report": [now[1]], "config": [now[2]], "one line": now[0][1:2]}.get(part, now[0])
        for at, new in drawn:
            for table in tables:
                put(table, at, new)
        chained(folder, now[0], now[1], tomli_w.dumps(now[2]))
        soon(folder, (number, drawn))


def test_bytes_that_are_changed_end_an_audit_in_a_line(folder: Path) -> None:
    rng = random.Random(0)
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path, raw in whole.items():
        for _ in range(12):
            at = rng.randrange(len(raw))
            stray = rng.choice([b"\x00", b"\xff\xfe", b"\r\n", b"}", b'"', b"\xed\xa0\x80", b"9" * 5000, b"["])
            path.write_bytes(rng.choice([raw[:at], raw[:at] + stray + raw[at:], stray + raw, raw[:at] + stray]))
            soon(folder, (path.name, at, stray))
        path.write_bytes(raw)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"round": ' + "9" * 10_000 + "}",
        '{"aborted": "\\ud800"}',
        '{"accuracy": 1e999}',
        '{"accuracy": NaN}',
        '{"a": 1, "a": 2}',
        "\x00",
        "null",
    ],
)
@pytest.mark.parametrize("name", ["rounds.jsonl", "report.json", "state/announcement.json", f"adapter/{CARD}"])
def test_texts_that_break_readers_are_one_line(folder: Path, name: str, text: str) -> None:
    (folder / "state").mkdir()
    (folder / name).write_text(text + "\n")
    soon(folder, name)
    for reader in (in_flight, reopen, lambda path: read_card(path / "adapter")):
        try:
            reader(folder)
        except InputError as error:
            one_line(error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse", "folder", "loop"])
@pytest.mark.parametrize(
    "name",
    ["config.toml", "rounds.jsonl", "report.json", "state/announcement.json", f"adapter/{CARD}", f"adapter/{WEIGHTS}"],
)
def test_what_is_no_file_of_a_run_is_not_waited_for(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as stream:
            stream.truncate(20_000_000_000)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    before = time.monotonic()
    soon(folder, name)
    for reader in (
        read_run,
        in_flight,
        reopen,
        lambda at: adapter_hash(at / "adapter"),
        lambda at: read_card(at / "adapter"),
    ):
        try:
            reader(folder)
        except InputError as error:
            one_line(error)
    assert time.monotonic() - before < SOON


def test_a_state_that_was_changed_is_none(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "clip_norm": 1.0,
        "session": "0" * 32,
        "invitation_bytes": 0,
        "model_hash": "",
        "data_hash": "",
    }
    state = ServerState(np.zeros(5), np.ones(5))
    whole = Checkpoint(round=1, server=state, last_round={3: 1}, compare=(), **facts)
    raw = whole.to_bytes("line")[:-32]
    rng = random.Random(0)
    for _ in range(200):
        at = rng.randrange(len(raw))
        changed = rng.choice(
            [raw[:at], raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :], raw[:at] + b"\xff" * 4 + raw[at + 4 :]]
        )
        signed = changed + hashlib.sha256(changed).digest()
        try:
            read_back, _ = Checkpoint.from_bytes(signed)
        except CheckpointError as error:
            one_line(error)
        else:
            assert np.isfinite(read_back.server.adapter).all()
    for key, value in (("clip_norm", -1.0), ("session", "no hex"), ("invitation_bytes", "many"), ("round", -1)):
        table = {"round": 1, **facts, key: value}
        wrong = Checkpoint(server=state, last_round={}, compare=(), **table).to_bytes("line")
        with pytest.raises(CheckpointError, match="is no state of a run"):
            Checkpoint.from_bytes(wrong)


def test_impossible_numbers_are_named_and_nothing_is_derived_from_them(folder: Path) -> None:
    lines, report = read(folder)
    lines[1]["sigma_local"] = 1e-300
    report["communication"]["parameters"] = 0
    chained(folder, lines, report)
    evidence = found(folder)["A-07"]
    assert "round 2: sigma_local is 1e-300" in evidence
    assert "report.json: communication.parameters is 0" in evidence
    rows = audit(folder, opacus=False).rows()
    assert rows[0] == rows[-1]
    (left,) = [what for what, text in rows if "they are impossible, see A-07" in text]
    assert left == "A-06 to A-37 (31) warning"


def test_nothing_of_a_folder_reaches_the_terminal_unescaped(folder: Path) -> None:
    lines, report = read(folder)
    report["accuracy"]["measures"] = "\x1b[2J\x9b31m\u202eDESSAP\r\nresult PASSED [red]"
    lines[0]["mechanism"] = "\x1b]0;owned\x07\nZ-99 ok"
    chained(folder, lines, report)
    shown = flora_here("audit", folder, "--no-opacus", cwd=folder)
    assert shown.returncode == 1
    for text in (shown.stdout, shown.stderr, flora_here("audit", folder, "--no-opacus", "--json", cwd=folder).stdout):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "\nresult PASSED" not in shown.stdout
    assert "\nZ-99 ok" not in shown.stdout
    document = json.loads(flora_here("audit", folder, "--no-opacus", "--json", cwd=folder).stdout)
    assert any(
        "\x1b" in finding["evidence"] for finding in document["blocks"][0]["findings"]
    )  # the text itself, escaped by JSON
    (folder / "report.json").write_text('{"\x1b[2J\\u001b[2J\\n": 1}')
    refused = flora_here("audit", folder, "--no-opacus", cwd=folder)
    assert refused.returncode == 1
    assert "\x1b" not in refused.stdout + refused.stderr
    (folder / "rounds.jsonl").unlink()
    refused = flora_here("audit", folder, cwd=folder)
    assert refused.returncode == 2
    assert "\x1b" not in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_finding_says_what_was_found(folder: Path) -> None:
    with (folder / "rounds.jsonl").open("a") as stream:
        stream.write("{")
    result = audit(folder, opacus=False)
    assert {f.check: f.title for f in result.findings if f.severity == "violation"} == {
        "A-01": "The log is not as it was written"
    }
    quiet, rows = result.rows(quiet=True), result.rows()
    assert quiet[0] == quiet[-1] == rows[0] == rows[-1] == ("result", result.verdict)
    assert not any(what.endswith(" ok") or what.startswith(" ") for what, _ in quiet)
    assert quiet[1][0] == "A-01 violation"
    checks = [text for what, text in rows if what.startswith("A-")]
    assert len(set(checks)) == len(checks)  # no two rows say the same
    assert not any("grid units" in text for _, text in rows)


def test_a_quiet_audit_of_a_sound_run_is_its_verdict(genuine) -> None:
    result = audit(genuine)
    assert result.passed
    if all(finding.severity == "ok" for finding in result.findings):
        assert result.rows(quiet=True) == [("result", result.verdict)]
