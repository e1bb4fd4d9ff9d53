"""`flora-secure simulate --resume`: killed with signal 9, and asked for what cannot be."""

import json
import os
import signal
import subprocess

import pytest
from command import ENVIRONMENT, PROGRAM, flora_here
from crashing import complete, timeless
from federations import task_of

from flora_secure.engine.recorded import begin
from flora_secure.engine.simulation import Simulation
from flora_secure.planning.config import RunConfig, override
from flora_secure.records.reading import read_run


def test_kill_9_and_resume(tmp_path) -> None:
    options = ["--dataset", "digits", "--clients", "10", "--partition", "iid", "--rounds", "12", "--simulation-noise"]
    process = subprocess.Popen(
        [*PROGRAM, "simulate", *options, "--out", "run"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 3/12"):
            break
    os.kill(process.pid, signal.SIGSTOP)
    busy = flora_here("simulate", "--resume", "run", cwd=tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert busy.returncode == 2
    assert "run is being written by another process" in busy.stderr
    assert not (tmp_path / "run" / "report.json").exists()

    done = flora_here("simulate", "--resume", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on after round" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["privacy"]["rounds"] == 12
    given = {"data.dataset": "digits", "data.clients": 10, "data.partition": "iid", "training.rounds": 12}
    task = task_of(override(RunConfig(), {**given, "privacy.simulation_noise": True}))
    complete(begin(Simulation(read_run(tmp_path / "run").config, task), tmp_path / "whole"))
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    again = flora_here("simulate", "--resume", "run", "--json", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "is complete, nothing is left to do" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume", "missing"], "resume missing: there is no such run folder"),
        (["--resume", "missing", "--epsilon", "4"], "leave out --epsilon"),
        (["--resume", "missing", "--compare", "central"], "leave out --compare"),
        (["--resume", "missing", "--out", "x"], "leave out --out"),
        (["--resume", "."], "config.toml cannot be read: No such file or directory"),
    ],
)
def test_resume_alone(tmp_path, arguments, says) -> None:
    done = flora_here("simulate", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
