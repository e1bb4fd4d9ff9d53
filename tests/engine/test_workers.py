"""A worker process that is ended from outside, as the system does for want of memory."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import ENVIRONMENT, PROGRAM

from flora_secure.engine.workers import Workers
from flora_secure.errors import WorkerError


@pytest.mark.parametrize("when", ["before", "half an answer"])
def test_a_killed_worker_is_one_line(when: str) -> None:
    workers = Workers(2)
    try:
        worker = workers._workers[1]
        if when == "before":
            worker.kill()
            worker.wait()
        else:
            worker.send_signal(signal.SIGSTOP)
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="a worker process of the run was ended from outside"):
            workers._call("answer", [{}, {}])
    finally:
        workers.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_a_run_whose_worker_is_killed_ends_in_a_line_and_says_what_is_kept(tmp_path: Path) -> None:
    flags = ["simulate", "--dataset", "digits", "--clients", "40", "--rounds", "300", "--out", "run"]
    patched = "import flora_secure.engine.simulation as s; s.default_workers = lambda clients: 1; " + PROGRAM[-1]
    run = subprocess.Popen(
        [*PROGRAM[:-1], patched, *flags], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    assert run.stderr is not None
    said = []
    for line in run.stderr:
        said.append(line)
        if line.startswith("round 2/"):
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            for child in children:
                if b"flora_secure.engine.workers" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
    assert run.wait() == 2, said
    assert "a worker process of the run was ended from outside" in said[-1]
    assert "--resume" in said[-1]
    assert "are kept in run" in said[-1]
    assert not any("Traceback" in line for line in said)
