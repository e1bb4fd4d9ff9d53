"""`flora-secure audit` as a person meets it."""

import json
from pathlib import Path

import pytest
from command import PROGRAM, flora, flora_here


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("audited") / "run"
    flags = ["--dataset", "digits", "--clients", "8", "--rounds", "2", "--simulation-noise"]
    done = flora_here("simulate", *flags, "--out", path, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return path


def test_a_genuine_run_exits_0_without_torch(folder) -> None:
    missing = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'opacus', 'open_clip', 'peft'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    done = flora("audit", folder, "--no-opacus", cwd=folder, program=missing + PROGRAM[-1])
    assert done.returncode == 0, done.stderr
    assert "PASSED: 0 violations" in done.stdout
    assert done.stderr == "opacus PRV was left out: not asked for\n"


def test_a_violation_exits_1_and_is_named_first(folder) -> None:
    report = folder / "report.json"
    text = report.read_text()
    table = json.loads(text)
    table["privacy"]["epsilon"] = 2.0
    report.write_text(json.dumps(table))
    try:
        shown = flora_here("audit", folder, "--no-opacus", cwd=folder)
        plain = flora_here("audit", folder, "--no-opacus", "--json", cwd=folder)
    finally:
        report.write_text(text)
    assert shown.returncode == plain.returncode == 1
    lines = shown.stdout.splitlines()
    assert "FAILED" in lines[2]
    assert next(line for line in lines if line.startswith("A-")).startswith("A-20 violation")
    document = json.loads(plain.stdout)
    assert document["schema"] == "flora-secure/audit/2"
    findings = [finding for block in document["blocks"] for finding in block["findings"]]
    assert [f["check"] for f in findings if f["severity"] == "violation"] == ["A-20", "R-04"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.toml", None, "config.toml cannot be read: No such file"),
        ("rounds.jsonl", "{\n", "rounds.jsonl, line 1: not JSON"),
        ("rounds.jsonl", None, "is not the last line that report.json knows"),
        ("report.json", "[]", "report.json: not a JSON object"),
        ("report.json", '{"schema": "flora-secure/report/0"}', "schema must be 'flora-secure/report/3'"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_finding(folder, tmp_path, name, content, says) -> None:
    for file in ("config.toml", "rounds.jsonl", "report.json"):
        text = (folder / file).read_text() if file != name else content
        if text is not None:
            (tmp_path / file).write_text(text)
    done = flora_here("audit", tmp_path, "--no-opacus", "--json", cwd=tmp_path)
    assert done.returncode == 1
    findings = json.loads(done.stdout)["blocks"][0]["findings"]
    assert any(says in finding["evidence"] for finding in findings if finding["severity"] == "violation")


@pytest.mark.parametrize(("log", "says"), [("{\n", "rounds.jsonl, line 1: not JSON"), ("", "holds no complete round")])
def test_where_nothing_can_be_read_it_is_one_line_and_exit_code_2(folder, tmp_path, log, says) -> None:
    (tmp_path / "config.toml").write_text((folder / "config.toml").read_text())
    (tmp_path / "rounds.jsonl").write_text(log)
    done = flora_here("audit", tmp_path, "--no-opacus", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--canaries", "--attacks"])
def test_a_named_file_of_no_use_is_said_even_if_only_faults_are_shown(folder, tmp_path, flag: str) -> None:
    none = tmp_path / "none.json"
    done = flora_here("audit", folder, "--no-opacus", "--quiet", flag, none, cwd=folder)
    assert f"{none} was not used: {flag[2:]}: " in done.stderr
    log = tmp_path / "log.json"
    log.write_text('{"schema": "flora-secure/foreign-log/1", "system": "one", "rounds": [{"noise_multiplier": 1.0}]}')
    done = flora_here("audit", log, "--no-opacus", "--quiet", flag, none, cwd=folder)
    assert f"{flag} was not used: {log} is no run folder" in done.stderr


def test_who_interrupts_an_audit_is_told(folder, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flora_secure.audit", interrupted)
    done = flora_here("audit", folder, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "flora-secure: interrupted\n")
