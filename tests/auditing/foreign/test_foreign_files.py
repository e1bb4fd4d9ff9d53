"""Files of other systems as `flora-secure audit` meets them: known by content, refused in one line, or found odd."""

import json
import pickle
from pathlib import Path

import pytest
from command import flora_here

import flora_secure
from flora_secure.auditing.foreign.log import SCHEMA
from flora_secure.auditing.foreign.opening import as_log, opened

ONE = {"noise_multiplier": 4.0, "count": 3, "clip": 1.0}
LOG = {
    "schema": SCHEMA,
    "system": "a federation",
    "unit": "client",
    "population": 50,
    "mechanism": "gaussian",
    "noise_by": "server",
    "clip": 1.0,
    "rounds": [ONE],
    "claims": [{"epsilon": 4.0, "delta": 1e-5, "against": "outsider", "scope": "total"}],
}


def put(folder: Path, content: object) -> Path:
    path = folder / "file.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        (json.dumps(LOG)[:-20], "not JSON"),
        ("[1]", "must be a JSON object"),
        ({**LOG, "schema": "flora-secure/foreign-log/2"}, "version 2 of the log is not known here"),
        ({"schema": "other/1"}, "neither flora-secure/foreign-log/1 nor a file of Flower"),
        ({"history": "x", "mechanism": "rdp"}, "neither flora-secure/foreign-log/1 nor"),
        ('{"schema": "x", "schema": "y"}', "occurs 2 times"),
        ("[" * 5000, "nested deeper"),
        ('{"a": NaN}', "NaN is not JSON"),
        (b"PK\x03\x04torch.save writes these", "a pickle of others is not read"),
        (pickle.dumps({"history": []}), "not"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(content, said, tmp_path) -> None:
    done = flora_here("audit", put(tmp_path, content), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "docs/foreign-log.md" in done.stderr or "version 2" in done.stderr


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"rounds": []}, "rounds: there is none"),
        ({"rounds": 3}, "rounds: must be a list"),
        ({"rounds": [{**ONE, "count": -1}]}, "rounds[0].count: must be a whole number"),
        ({"rounds": [{**ONE, "count": True}]}, "rounds[0].count: must be a whole number"),
        ({"rounds": [{**ONE, "clip": 0}]}, "rounds[0].clip: must be a number"),
        ({"rounds": [7]}, "rounds[0]: must be an object"),
        ({"population": 2.5}, "population: must be a whole number"),
        ({"unit": ["client"]}, "unit: must be one of client, example"),
        ({"claims": [{"epsilon": -1}]}, "claims[0].epsilon: must be a number"),
        ({"claims": [{"against": "\x1b[31m"}]}, "claims[0].against: must be one of"),
        ({"epsilon": 1}, "epsilon: is no key of this log"),
    ],
)
def test_impossible_values_are_findings(keys, where, tmp_path) -> None:
    found = flora_secure.audit(put(tmp_path, {**LOG, **keys}))
    first = found.findings[0]
    assert (first.check, first.severity) == ("F-01", "violation")
    assert where in first.evidence
    assert "\x1b" not in first.evidence
    if where.startswith("rounds"):
        assert found.label is not None
        assert found.label.outsider.status == "unknown"
    json.loads(found.to_json())


@pytest.mark.parametrize(("sampling", "count"), [("fixed", 10**7), ("poisson", 10**12), (None, 10**7)])
def test_any_number_of_rounds_is_counted(sampling, count, tmp_path) -> None:
    more = {"sampling": sampling, "secret_sampling": True, "rounds": [{**ONE, "count": count, "cohort": 5}]}
    label = flora_secure.audit(put(tmp_path, {**LOG, **more})).label
    assert label is not None
    assert label.outsider.epsilon is not None
    assert label.outsider.epsilon > 100


def test_rounds_one_by_one_are_what_they_are_together(tmp_path) -> None:
    single = {key: value for key, value in ONE.items() if key != "count"}
    together = flora_secure.audit(put(tmp_path, LOG)).label
    assert flora_secure.audit(put(tmp_path, {**LOG, "rounds": [single] * 3})).label == together


def test_the_log_of_a_foreign_file_can_be_completed_by_hand(tmp_path) -> None:
    state = {"history": [[1.0, 0.01, 100]], "mechanism": "prv", "epsilon": 1.5, "delta": 1e-5}
    path = put(tmp_path, state)
    table = json.loads(as_log(path))
    assert table["schema"] == SCHEMA
    assert table["sampling"] is None
    table["sampling"] = "shuffled"
    log = opened(put(tmp_path, table)).log
    beside = opened(put(tmp_path, {**state, "log": {"sampling": "shuffled"}})).log
    assert log == beside
    done = flora_here("audit", path, "--as-log", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["sampling"] == "shuffled"


def test_a_file_through_the_command_line(tmp_path) -> None:
    done = flora_here("audit", put(tmp_path, LOG), "--no-opacus", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["blocks"][0]["name"] == "foreign log"
    assert table["label"]["trust"] == "central"
    assert table["label"]["server"]["status"] == "infinite"
    low = {**LOG, "claims": [{**LOG["claims"][0], "epsilon": 0.5}]}
    shown = flora_here("audit", put(tmp_path, low), "--quiet", cwd=tmp_path)
    assert shown.returncode == 1
    assert "F-20 violation" in shown.stdout
