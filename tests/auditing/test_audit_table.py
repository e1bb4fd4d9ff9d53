"""The table of an audit in a terminal: what matters on top, and no column too narrow to read."""

import json
from pathlib import Path

import pytest

import flora_secure
from flora_cli.output import table
from flora_secure.auditing.folder import audit


def test_a_long_label_does_not_narrow_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    label = "standard deviation of the sums ÷ that of the noise which is claimed"
    lines = table([("result", "words " * 20), (label, "figure")], "title")
    assert lines[2:] == [
        "result  " + ("words " * 12).strip(),
        "        " + ("words " * 8).strip(),
        label,
        "        figure",
    ]


def test_epsilon_stands_below_the_verdict(genuine: Path) -> None:
    found = audit(genuine, opacus=False)
    assert found.label is not None
    rows = found.rows()
    assert rows[0] == rows[-1] == ("result", found.verdict)
    assert rows[1][0] == "ε"
    assert rows[1][1].startswith(f"{found.label.server.epsilon:.4g} against the server, ")
    assert "ε" not in dict(found.rows(quiet=True))


def test_a_condition_of_epsilon_stands_beside_it(tmp_path: Path) -> None:
    log = tmp_path / "opacus.json"
    log.write_text(json.dumps({"history": [[1.1, 0.001, 600]], "mechanism": "rdp"}))
    assert "if batches were drawn by Poisson sampling" in flora_secure.audit(log, opacus=False).rows()[1][1]
