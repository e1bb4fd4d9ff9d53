"""The re-derivation audit: genuine runs pass, a broken chain does not, and what it prints is what is published."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
from falsifying import falsified, found, half_sigma, read, small, written
from federations import task_of

from flora_secure.auditing.findings import OK, VIOLATION, WARNING, Audit, json_schema
from flora_secure.auditing.folder import audit
from flora_secure.engine.task import Task
from flora_secure.errors import RunFolderError
from flora_secure.planning.config import RunConfig, override

DOCS = Path(__file__).parents[3] / "docs"


# --- genuine runs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aggregation__secagg": "malicious-server"},
        {"aggregation__secagg": "off"},
        {"privacy__epsilon": math.inf},
        {"aggregation__corrupt": 0.2},
        {"privacy__bits": 12, "privacy__clip_norm": 0.3},
        {"privacy__epsilon": 0.5, "aggregation__dropout": 0.0},
    ],
    ids=str,
)
def test_a_genuine_run_passes(digits, tmp_path, changes) -> None:
    result = audit(written(small(**changes), digits, tmp_path / "run"), opacus=False)
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}
    assert result.passed
    noisy = changes.get("privacy__epsilon") != math.inf
    assert [f.check for f in result.findings if f.severity == WARNING] == (["A-16", "A-27"] if noisy else [])
    claims = json.loads((tmp_path / "run" / "report.json").read_text())["privacy"]
    figures = {figure.name: figure for figure in result.figures}
    assert figures["epsilon"].claimed == claims["epsilon"]
    if noisy:
        assert figures["epsilon"].derived == pytest.approx(claims["epsilon"], rel=1e-9)
        assert len(result.clients) == 10
        for client in result.clients:
            assert client.second == pytest.approx(client.epsilon, abs=0.02)


def test_a_genuine_run_passes_where_a_rotation_would_lengthen_nothing(tmp_path) -> None:
    """Of 4 × 256 values the length of an upload does not tell whether updates were rotated; the statement does."""
    config = small(model__placement="text-attention", model__last_layers=1, model__rank=4)
    run = written(config, task_of(config), tmp_path / "run")
    assert {line["dimension"] for line in read(run)[0]} == {1024}
    assert found(run) == {}


FIXED = {"participation__rate": 0.5, "participation__sampling": "fixed"}
COHORTS = [
    FIXED,
    {"participation__rate": 0.6, "participation__sampling": "poisson"},
    {"participation__rate": 0.3, "participation__sampling": "fixed", "participation__min_separation": 2},
    {**FIXED, "aggregation__secagg": "off"},
    {"privacy__adaptive_clip": 0.5, "privacy__epsilon": 50.0},
    # a small budget: accountants of sampled examples take time in proportion to the widest loss
    {"privacy__unit": "example", "privacy__epsilon": 1.0},
    {**FIXED, "privacy__unit": "example", "privacy__epsilon": 1.0},
    {"privacy__unit": "example", "privacy__epsilon": 1.0, "aggregation__secagg": "off"},
    {"privacy__unit": "example", "privacy__epsilon": math.inf},
]


@pytest.fixture(scope="module")
def twenty() -> Task:
    config = small(data__clients=20)
    return task_of(config)


def test_a_rotated_run_passes_where_the_rotation_adds_no_coordinate(tmp_path) -> None:
    changes = {"data.dataset": "digits", "data.clients": 20, "training.rounds": 3, "privacy.simulation_noise": True}
    config = override(RunConfig(), {**changes, "model.rule": "alternate", "model.rank": 2})  # d = 384 = 3 · 2^7
    task = task_of(config)
    result = audit(written(config, task, tmp_path / "run"), opacus=False)
    assert "rotated" in json.loads((tmp_path / "run" / "report.json").read_text())["privacy"]["statement"]
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}


@pytest.mark.parametrize("changes", COHORTS, ids=str)
def test_genuine_cohorts_and_examples_pass(twenty, coarse, tmp_path, changes) -> None:
    result = audit(
        written(small(data__clients=20, training__rounds=3, **changes), twenty, tmp_path / "run"), opacus=False
    )
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}
    if changes is FIXED:
        assert len({(client.rounds, client.epsilon) for client in result.clients}) > 1


def test_what_outsiders_may_claim_is_no_headline(twenty, coarse, tmp_path) -> None:
    few = {"participation__rate": 0.2, "participation__sampling": "fixed"}
    config = small(
        data__clients=20, training__rounds=1, privacy__epsilon=1.0, privacy__delta=1e-3, aggregation__corrupt=0.0, **few
    )
    folder = written(config, twenty, tmp_path / "run")

    def cheat(lines, report) -> None:
        report["privacy"]["epsilon"] = report["privacy"]["epsilon_outsider"]

    claims = json.loads((folder / "report.json").read_text())["privacy"]
    assert claims["epsilon_outsider"] < claims["epsilon"] - 0.03
    assert "amplified by the draw of cohorts" in found(falsified(folder, tmp_path / "false", cheat))["A-23"]


def test_rounds_that_were_aborted_are_not_paid_for(digits, tmp_path) -> None:
    # more vanish than the noise allows for: every round is aborted, nothing is released
    config = small(aggregation__dropout=0.5, privacy__dropout_tolerance=0.1)
    result = audit(written(config, digits, tmp_path / "run"), opacus=False)
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}
    assert {client.epsilon for client in result.clients} == {0.0}


def test_opacus_is_asked_where_it_is_installed(genuine) -> None:
    pytest.importorskip("opacus")
    result = audit(genuine)
    assert result.passed
    assert not result.left_out
    assert "opacus" in result.accountants
    assert "opacus PRV" in next(f.evidence for f in result.findings if f.check == "A-27")
    assert audit(genuine, opacus=False).left_out == {"opacus PRV": "not asked for"}


def test_an_interrupted_run_says_what_could_not_be_checked(genuine, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(genuine, folder)
    (folder / "report.json").unlink()
    result = audit(folder, opacus=False)
    assert result.passed
    assert "lines cut off the end are not noticed" in found(folder, WARNING)["A-01"]
    assert found(folder, WARNING)["A-31"] == "report.json is missing"


# --- the chain


def edit(lines: list[str]) -> None:
    lines[1] = lines[1].replace('"clipped": ', '"clipped": 1')


def swap(lines: list[str]) -> None:
    lines[0], lines[1] = lines[1], lines[0]


def edit_last(lines: list[str]) -> None:
    lines[-1] = lines[-1].replace('"clipped": ', '"clipped": 1')


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (edit, "line 3: does not follow line 2"),
        (edit_last, "line 3: is not the last line"),
        (swap, "line 1: does not follow config.toml"),
        (lambda lines: lines.pop(), "line 2: is not the last line"),
        (lambda lines: lines.append(lines[-1]), "line 4: does not follow line 3"),
    ],
    ids=["edited", "edited last", "reordered", "truncated", "appended"],
)
def test_a_log_with_hashes_that_do_not_fit_is_found(genuine, tmp_path, tamper, says) -> None:
    folder = tmp_path / "run"
    shutil.copytree(genuine, folder)
    log = folder / "rounds.jsonl"
    lines = log.read_text().splitlines()
    tamper(lines)
    log.write_text("".join(line + "\n" for line in lines))
    assert says in found(folder)["A-01"]


def test_half_a_line_and_another_config_are_found(genuine, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(genuine, folder)
    log = folder / "rounds.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    assert "ends without a newline" in found(folder)["A-01"]
    shutil.copy(genuine / "rounds.jsonl", log)
    assert "A-01" not in found(folder)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    assert "line 1: does not follow config.toml" in found(folder)["A-01"]


# --- what it prints


def test_every_check_is_there_in_a_fixed_order(genuine, tmp_path) -> None:
    good = audit(genuine, opacus=False)
    bad = audit(falsified(genuine, tmp_path / "run", half_sigma), opacus=False)
    assert not bad.passed
    names = [f.check for f in good.findings]
    assert names == [f.check for f in bad.findings] == sorted(set(names))
    rows = [what for what, _ in bad.rows()]
    assert rows[0] == "result"
    assert rows.index("A-20 violation") < rows.index("A-16 warning") < rows.index("A-01 ok")
    assert all(f.evidence and f.title for f in good.findings)
    assert all(f.remedy for f in bad.findings if f.severity != OK)


def test_every_check_is_documented(genuine) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "audits").glob("*.md")))
    listed = re.findall(r"^\| ([A-Z]-\d\d) \|", text, re.MULTILINE)
    made = [f.check for f in audit(genuine, opacus=False).findings]
    assert [check for check in listed if check.startswith("A-")] == [check for check in made if check.startswith("A-")]
    assert set(made) <= set(listed)
    assert len(set(listed)) == len(listed)


def test_the_published_schema_is_that_of_the_classes(genuine) -> None:
    published = json.loads((DOCS / "audit.schema.json").read_text(encoding="utf-8"))
    assert published == json_schema()
    document = json.loads(audit(genuine, opacus=False).to_json())
    jsonschema.validate(document, published)
    assert document["schema"] == "flora-secure/audit/2"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "verdict": 1}, published)
    assert {field.name for field in dataclasses.fields(Audit)} < document.keys()


def test_nothing_to_audit_is_bad_input(tmp_path) -> None:
    with pytest.raises(RunFolderError, match="cannot be read"):
        audit(tmp_path / "nowhere")
    (tmp_path / "config.toml").write_text(RunConfig().to_toml())
    with pytest.raises(RunFolderError, match="nothing to audit"):
        audit(tmp_path)
