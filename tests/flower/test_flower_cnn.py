"""The example of docs/flower_cnn, run by Flower's simulation engine as its page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr")
pytest.importorskip("ray")
pytest.importorskip("torch")
pytest.importorskip("sklearn")

from flora_secure.client.ledger import ClientLedger

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/flower_cnn"
APPS = ("client_app.py", "server_app.py")


def test_five_sites_train_a_cnn_for_three_rounds(tmp_path):
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "protocols", "cli"))
    own = {"PILOT": str(tmp_path / "pilot"), "FLWR_HOME": str(tmp_path / "home"), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "simulate.py")],
        env={**os.environ, **quiet, **own},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 sums of 3 rounds" in done.stdout
    assert done.stderr.count("5 of 5 sites in the sum") == 3
    assert "Guarantee. Differential privacy" in done.stdout
    for site in range(5):
        folder = tmp_path / f"pilot/sites/site{site}"
        given = ClientLedger(folder / "state/ledger.jsonl").given
        assert [one.event.round for one in given] == [1, 2, 3]
        assert not re.search("train-loss|num-examples", (folder / "state/ledger.jsonl").read_text())


def test_the_example_needs_fewer_than_fifteen_lines_of_ours():
    """Of both apps: what would not be there with FedAvg alone."""
    text = "\n".join((EXAMPLE / name).read_text() for name in APPS)
    call = text[text.index("    strategy = SecureSum(") :]
    call = call[: call.index("\n    )\n") + len("\n    )\n")]
    beside = [line for line in text.replace(call, "").splitlines() if re.search("secure_sum|SecureSum|report\\(", line)]
    assert 0 < len(call.splitlines()) + len(beside) < 15
