"""A worker process that is ended from outside, as the system does for want of memory."""

import os
import re
import signal
from pathlib import Path

import pytest
from command import flora_here

from flora_secure.engine import simulation
from flora_secure.engine.workers import Workers
from flora_secure.errors import WorkerError
from flora_secure.records.record import RoundRecord
from flora_secure.records.run_folder import RunFolder


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
def test_a_run_whose_worker_is_killed_ends_in_a_line_and_says_what_is_kept(tmp_path: Path, monkeypatch) -> None:
    killed = list[int]()

    def kill_the_workers(folder: RunFolder, record: RoundRecord, *after: object) -> None:
        append(folder, record, *after)
        for task in Path("/proc/self/task").iterdir():  # of whichever thread has started them
            for child in (task / "children").read_text().split() if record.round == 2 else ():
                if b"flora_secure.engine.workers" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    killed.append(int(child))

    append = RunFolder.append_round
    monkeypatch.setattr(RunFolder, "append_round", kill_the_workers)
    monkeypatch.setattr(simulation, "default_workers", lambda clients: 1)
    flags = ["--dataset", "digits", "--clients", "40", "--rounds", "300", "--out", "run"]
    done = flora_here("simulate", *flags, cwd=tmp_path)
    assert killed
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "a worker process of the run was ended from outside" in last
    assert "--resume" in last
    assert re.search(r"rounds 1 to [23] are kept in run", last)
    assert "Traceback" not in done.stderr
