"""Resume: killed at any write, a run ends as if it had not been, and no round that was released is forgotten."""

import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from flora_secure import checkpoints, durable, summary
from flora_secure.audit.rederivation import audit
from flora_secure.checkpoints import Checkpoint, CheckpointError
from flora_secure.config import RunConfig, override
from flora_secure.data.federation import load_federation
from flora_secure.privacy.accounting import epsilon_of
from flora_secure.report import Report
from flora_secure.resume import RecordedRun, begin, go_on
from flora_secure.run_folder import RunFolderError, read_run, reopen
from flora_secure.server import ServerState
from flora_secure.simulation import Simulation
from flora_secure.summary import summarise
from flora_secure.task import Task, prepare

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in (".", "protocols", "cli")),
}
PROGRAM = [sys.executable, "-c", "from flora_cli.main import run; run()"]
SMALL = {
    "data.dataset": "digits",
    "data.clients": 10,
    "data.partition": "iid",
    "training.rounds": 3,
    "privacy.epsilon": 50.0,
    "privacy.simulation_noise": True,
    "aggregation.secagg": "off",
}


class Crash(BaseException):
    """The process ends here."""


class FaultyOs:
    """``os``, whose ``fatal``-th call that changes a file or a name does half of what it should, or nothing, and ends
    all. To a killed process a flush makes no difference; flushes have a test of their own.
    """

    COUNTED = ("write", "replace", "rename", "unlink")

    def __init__(self, fatal: float = math.inf) -> None:
        self.calls, self.fatal = 0, fatal

    def __getattr__(self, name: str) -> object:
        if name == "fsync":
            return lambda handle: None
        real = getattr(os, name)
        if name not in self.COUNTED:
            return real

        def call(*arguments):
            self.calls += 1
            if self.calls < self.fatal:
                return real(*arguments)
            if name == "write" and self.calls == self.fatal:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise Crash

        return call


def small(**changes) -> RunConfig:
    config = override(RunConfig(), {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}})
    assert changes.get("privacy__simulation_noise") is None
    return config


def secret(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, simulation_noise=False))


@pytest.fixture(scope="module")
def task() -> Task:
    torch.set_num_threads(1)
    config = small()
    return prepare(config, load_federation(config.data, config.seed))


@pytest.fixture
def quick(monkeypatch) -> None:
    """Hundreds of reports: the second and third accountant, which ask nothing of the disk, are left out."""
    monkeypatch.setattr(summary, "cross_check", lambda events, delta: {})


def finish(run: RecordedRun) -> Report:
    for _ in run.rounds():
        pass
    run.folder.write_adapter(run.simulation.save_adapter)
    report = summarise(run.simulation, total_seconds=1.0, rounds_hash=run.folder.last_hash)
    run.folder.write_report(report)
    return report


def resumed(path: Path, config: RunConfig, task: Task) -> RecordedRun:
    found = reopen(path)
    assert found.config == config
    return go_on(Simulation(config, task), found)


def timeless(path: Path) -> tuple[list[dict], dict, dict[str, bytes]]:
    """Records, report and adapter files of a finished run, without what a clock has measured."""
    _, records, report = read_run(path)  # the chain holds
    assert report is not None
    lines = [{**record.to_dict(), "seconds": None} for record in records]
    told = json.loads(report.to_json())
    told["timing"] = told["aggregation"]["seconds"] = told["provenance"]["rounds_hash"] = None
    return lines, told, {file.name: file.read_bytes() for file in (path / "adapter").iterdir()}


def crashed(monkeypatch, fatal: int, action: Callable[[], object]) -> bool:
    """Did the action end in a crash at this call?"""
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", FaultyOs(fatal))
        try:
            action()
        except Crash:
            return True
    return False


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aggregation__secagg": "semi-honest", "aggregation__dropout": 0.1, "training__rounds": 2},
        {
            "privacy__adaptive_clip": 0.5,
            "participation__rate": 0.4,
            "participation__sampling": "fixed",
            "participation__min_separation": 2,
        },
        {"model__rule": "alternate", "training__server_optimiser": "adam", "model__rank": 2},
    ],
    ids=["plain", "masked", "cohorts", "alternating"],
)
def test_a_crash_at_any_write_changes_no_bit_of_the_result(task, tmp_path, monkeypatch, quick, changes) -> None:
    config = small(**changes)
    if "model__rule" in changes:
        task = prepare(config, task.federation)
    finish(begin(Simulation(config, task), tmp_path / "whole"))
    expected, fatal, kept = timeless(tmp_path / "whole"), 0, set()
    while True:
        fatal += 1
        path = tmp_path / f"run{fatal}"
        if not crashed(monkeypatch, fatal, lambda path=path: finish(begin(Simulation(config, task), path))):
            break
        if not (path / "config.toml").exists():  # nothing had begun
            continue
        if not (path / "report.json").exists():
            finish(resumed(path, config, task))
        assert timeless(path) == expected, f"after a crash at call {fatal}"
        kept |= set(os.listdir(path))
        shutil.rmtree(path)
    assert fatal > 18
    assert kept - {"state"} == {"adapter", "config.toml", "report.json", "rounds.jsonl"}


def test_crashes_while_resuming_are_survived_too(task, tmp_path, monkeypatch, quick) -> None:
    config = small()
    finish(begin(Simulation(config, task), tmp_path / "whole"))
    expected = timeless(tmp_path / "whole")
    torn, fatal = tmp_path / "torn", 0
    half_a_line = next(
        k
        for k in range(1, 200)
        if crashed(monkeypatch, k, lambda: (shutil.rmtree(torn, True), finish(begin(Simulation(config, task), torn))))
        and (torn / "rounds.jsonl").exists()
        and len((text := (torn / "rounds.jsonl").read_bytes()).split(b"\n")) == 2
        and not text.endswith(b"\n")
    )
    assert half_a_line
    while True:
        fatal += 1
        path = tmp_path / f"again{fatal}"
        shutil.copytree(torn, path)
        if not crashed(monkeypatch, fatal, lambda path=path: finish(resumed(path, config, task))):
            break
        if not (path / "report.json").exists():
            finish(resumed(path, config, task))
        assert timeless(path) == expected
    assert fatal > 12


def test_names_are_flushed_after_what_they_name(task, tmp_path, monkeypatch) -> None:
    """A power failure may keep a name and lose the bytes, unless these were flushed first; then the name itself."""
    calls: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("write", "fsync", "replace")}

    def told(handle: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{handle}")).name

    monkeypatch.setattr(
        os, "write", lambda handle, data: calls.append(("write", told(handle))) or real["write"](handle, data)
    )
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(("flush", told(handle))) or real["fsync"](handle))
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append(("name", Path(b).name)) or real["replace"](a, b))
    next(begin(Simulation(small(), task), tmp_path / "run").rounds())
    monkeypatch.undo()

    def file(name: str, folder: str) -> list[tuple[str, str]]:
        return [("write", f".{name}.tmp"), ("flush", f".{name}.tmp"), ("name", name), ("flush", folder)]

    assert calls == [
        *file("round-00000.npz", "state"),
        *file("config.toml", "run"),
        *file("intent.json", "state"),
        *file("round-00001.npz", "state"),
        ("write", "rounds.jsonl"),
        ("flush", "rounds.jsonl"),
        ("flush", "run"),
        ("flush", "state"),  # the older state is gone
    ]


@pytest.fixture
def halfway(task, tmp_path) -> Path:
    """Two of three rounds are over, and the process has ended between them and the third."""
    run = begin(Simulation(small(), task), tmp_path / "half")
    rounds = run.rounds()
    next(rounds), next(rounds)
    return tmp_path / "half"


def test_a_run_between_two_rounds_holds_one_state_and_goes_on(task, halfway) -> None:
    assert sorted(os.listdir(halfway / "state")) == ["intent.json", "lock", "round-00002.npz"]
    found = reopen(halfway)
    assert (len(found.records), found.begun) == (2, None)
    report = finish(go_on(Simulation(small(), task), found))
    assert report.privacy.rounds == 3
    assert not (halfway / "state").exists()


def test_what_a_killed_write_left_is_cleared(task, halfway) -> None:
    (halfway / ".adapter-x1" / "adapter").mkdir(parents=True)
    (halfway / ".report.json.tmp").write_text("{")
    (halfway / "state" / ".intent.json.tmp").write_text("{")
    finish(resumed(halfway, small(), task))
    assert sorted(os.listdir(halfway)) == ["adapter", "config.toml", "report.json", "rounds.jsonl"]


def test_a_torn_last_line_is_cut_off(task, halfway) -> None:
    log = halfway / "rounds.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + whole.splitlines()[-1][:100])
    with pytest.raises(RunFolderError, match="ends without a newline"):
        read_run(halfway)
    assert len(reopen(halfway).records) == 2
    assert log.read_bytes() == whole


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forge(path: Path, **changes) -> None:
    """A state as another run would have written it: hashes and all."""
    checkpoint, line_hash = Checkpoint.from_bytes(path.read_bytes())
    line_hash = changes.pop("line_hash", line_hash)
    path.write_bytes(dataclasses.replace(checkpoint, **changes).to_bytes(line_hash))


def zeros(adapter: int, moments: int) -> ServerState:
    return ServerState(np.zeros(adapter), np.zeros(moments), np.zeros(moments))


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def cut(path: Path) -> None:
    first, *_ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first)


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (lambda run: flip(run / "state/round-00002.npz"), "is damaged: its SHA-256"),
        (lambda run: (run / "state/round-00002.npz").write_bytes(b""), "is damaged: its SHA-256"),
        (lambda run: forge(run / "state/round-00002.npz", line_hash="0" * 64), "does not belong to line 2"),
        (lambda run: forge(run / "state/round-00002.npz", round=1), "does not belong to line 2"),
        (lambda run: forge(run / "state/round-00002.npz", model_hash="0" * 64), "the model is not what the run began"),
        (lambda run: forge(run / "state/round-00002.npz", data_hash="0" * 64), "the data is not what the run began"),
        (lambda run: forge(run / "state/round-00002.npz", server=zeros(3, 3)), "has 3 values"),
        (lambda run: forge(run / "state/round-00002.npz", server=zeros(1920, 3)), "of shapes"),
        (lambda run: (run / "state/round-00002.npz").unlink(), "cannot be read, so the run cannot go on"),
        (lambda run: shutil.rmtree(run / "state"), "state is missing: without it the run cannot go on"),
        (lambda run: (run / "state/intent.json").write_text("{"), "is not what a run wrote"),
        (lambda run: cut(run / "rounds.jsonl"), r"round-00001.npz cannot be read"),
        (lambda run: edited(run / "rounds.jsonl", '"round": 1,', '"round": 2,'), "line 2: does not follow line 1"),
        (lambda run: edited(run / "config.toml", "seed = 0", "seed = 1"), "line 1: does not follow config.toml"),
        (lambda run: (run / "config.toml").unlink(), "config.toml cannot be read"),
    ],
)
def test_what_does_not_belong_together_is_refused(task, halfway, tamper, says) -> None:
    tamper(halfway)
    before = {path: path.read_bytes() for path in halfway.rglob("*") if path.is_file()}
    with pytest.raises((RunFolderError, CheckpointError), match=says) as caught:
        resumed(halfway, small(), task)
    assert "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in halfway.rglob("*") if path.is_file()}
    assert after == before


def test_another_config_before_the_first_round_is_refused(task, tmp_path) -> None:
    begin(Simulation(small(), task), tmp_path / "run")
    edited(tmp_path / "run/config.toml", "seed = 0", "seed = 1")
    with pytest.raises(CheckpointError, match=r"does not belong to this config\.toml"):
        reopen(tmp_path / "run")


def test_an_announced_round_after_lines_that_are_missing_is_refused(task, halfway) -> None:
    """Lines cut off together with a state that fits the rest: the intent knows."""
    found = reopen(halfway)
    log = halfway / "rounds.jsonl"
    first = log.read_bytes().splitlines(keepends=True)[0]
    checkpoints.announce(halfway / "state", dataclasses.replace(found.records[1], round=3), found.folder.last_hash)
    (halfway / "state/round-00002.npz").rename(halfway / "state/round-00001.npz")
    log.write_bytes(first)
    forge(halfway / "state/round-00001.npz", round=1, line_hash=hashlib.sha256(first[:-1]).hexdigest())
    with pytest.raises(CheckpointError, match="announces round 3 after another line"):
        reopen(halfway)


def test_states_are_read_back_and_never_unpickled(tmp_path) -> None:
    state = Checkpoint(
        round=4,
        server=ServerState(np.array([1.5, -0.1]), np.array([0.1, np.pi]), np.array([1e-300, 0.0])),
        clip_norm=0.1,
        last_round={3: 4, 0: 1},
        model_hash="ab",
        data_hash="cd",
        compare_no_noise=True,
    )
    checkpoints.write(tmp_path, state, "ef")
    back = checkpoints.read(tmp_path, 4, "ef")
    for name in ("adapter", "momentum", "second_moment"):
        assert getattr(back.server, name).tobytes() == getattr(state.server, name).tobytes()
    same = ("round", "clip_norm", "last_round", "model_hash", "data_hash", "compare_no_noise")
    assert all(getattr(back, name) == getattr(state, name) for name in same)
    stream = io.BytesIO()
    np.savez(stream, facts=np.array([{}], object))
    raw = stream.getvalue()
    with pytest.raises(CheckpointError, match="is no state of a run: Object arrays cannot be loaded"):
        Checkpoint.from_bytes(raw + hashlib.sha256(raw).digest())


# --- noise from the operating system: a lost round may have been released


@pytest.mark.parametrize("secagg", ["off", "semi-honest"])
def test_a_round_in_flight_is_lost_and_paid_for(task, tmp_path, monkeypatch, secagg) -> None:
    config = secret(small(aggregation__secagg=secagg, privacy__dropout_tolerance=0.2))
    run = begin(Simulation(config, task), tmp_path / "run")

    def killed(*_: object) -> None:
        raise Crash

    rounds = run.rounds()
    next(rounds)
    released = run.simulation.summation.round
    monkeypatch.setattr(run.simulation.summation, "round", lambda *given: (released(*given), killed()))
    with pytest.raises(Crash):  # the server has the sum, and nobody wrote it down
        next(rounds)

    again = resumed(tmp_path / "run", config, task)
    assert "round 2 was in flight and may have been released: it is lost and counts" in again.line
    first, lost = again.simulation.records
    assert lost.lost
    assert not first.lost
    assert lost.accuracy == first.accuracy  # the adapter stayed
    assert len(lost.survivors) == run.simulation.plan.survivors_minimum == 8
    report = finish(again)
    events = [record.event() for record in again.simulation.records]
    assert [event.round for event in events] == [1, 2, 3]
    assert [event.survivors for event in events] == [10, 8, 10]
    spent = epsilon_of(events, again.simulation.plan.delta)
    assert spent > epsilon_of([events[0], events[2]], again.simulation.plan.delta) + 0.1
    assert again.simulation.ledger.epsilon == pytest.approx(spent, rel=1e-12)
    assert spent <= 50
    assert report.privacy.epsilon == pytest.approx(spent if secagg != "off" else report.privacy.epsilon_local)
    assert "1 of the sums are counted although they are not in the model" in report.privacy.statement
    found = audit(tmp_path / "run", opacus=False)
    assert found.passed, [finding for finding in found.findings if finding.severity == "violation"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"privacy__unit": "example"},
        {"data__clients": 20, "participation__rate": 0.6, "participation__sampling": "poisson"},
    ],
    ids=["examples", "cohorts"],
)
def test_lost_rounds_of_samples_pass_the_audit(task, tmp_path, monkeypatch, quick, changes) -> None:
    config = secret(small(**changes))
    if "data__clients" in changes:
        task = prepare(config, load_federation(config.data, config.seed))
    run = begin(Simulation(config, task), tmp_path / "run")
    rounds = run.rounds()
    next(rounds)
    monkeypatch.setattr(run.folder, "append_round", lambda *_: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        next(rounds)
    again = resumed(tmp_path / "run", config, task)
    finish(again)
    assert [record.lost for record in again.simulation.records] == [False, True, False]
    assert {event.round for event in again.simulation.ledger.events} == {1, 2, 3}
    found = audit(tmp_path / "run", opacus=False)
    assert [finding for finding in found.findings if finding.severity == "violation"] == []


def test_a_crash_at_any_write_forgets_no_release(task, tmp_path, monkeypatch, quick) -> None:
    """Every sum that was made is an event of the ledger in the end, wherever the run was killed."""
    config, made = secret(small(training__rounds=2)), []
    whole = begin(Simulation(config, task), tmp_path / "whole")
    finish(whole)

    def watched() -> Simulation:
        simulation = Simulation(config, task)
        inner = simulation.summation.round
        monkeypatch.setattr(
            simulation.summation, "round", lambda number, *given: (made.append(number), inner(number, *given))[1]
        )
        return simulation

    fatal, lost = 0, 0
    while True:
        fatal += 1
        path = tmp_path / f"run{fatal}"
        made.clear()
        if not crashed(monkeypatch, fatal, lambda path=path: finish(begin(watched(), path))):
            break
        if not (path / "config.toml").exists() or (path / "report.json").exists():
            continue
        found = reopen(path)
        again = go_on(watched(), found)
        finish(again)
        assert len(made) == len(set(made)), f"a crash at call {fatal}: a round was released twice"
        assert set(made) <= {event.round for event in again.simulation.ledger.events}
        assert again.simulation.ledger.epsilon <= 50
        lost += sum(record.lost for record in again.simulation.records)
        assert audit(path, opacus=False).passed, f"a crash at call {fatal}"
    assert lost == 2 * 3  # a crash in the state's bytes, its name, or the line of each round


def test_a_round_without_noise_is_run_again(task, tmp_path) -> None:
    config = secret(small(privacy__epsilon=math.inf))
    run = begin(Simulation(config, task), tmp_path / "run")
    next(run.rounds())
    checkpoints.announce(
        tmp_path / "run/state", dataclasses.replace(run.simulation.records[0], round=2), run.folder.last_hash
    )
    assert not any(record.lost for record in resumed(tmp_path / "run", config, task).rounds())


def test_a_lost_round_that_the_budget_does_not_hold_is_refused(task, tmp_path) -> None:
    config = secret(small())
    run = begin(Simulation(config, task), tmp_path / "run")
    next(run.rounds())
    loud = dataclasses.replace(run.simulation.records[0], round=2, sigma_local=0.01)
    checkpoints.announce(tmp_path / "run/state", loud, run.folder.last_hash)
    with pytest.raises(CheckpointError, match="the ledger does not take round 2 of the log: round 2 would raise"):
        resumed(tmp_path / "run", config, task)


# --- the command


def flora(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


def test_kill_9_and_resume(task, tmp_path) -> None:
    options = ["--dataset", "digits", "--clients", "10", "--partition", "iid", "--rounds", "30", "--simulation-noise"]
    process = subprocess.Popen(
        [*PROGRAM, "simulate", *options, "--out", "run"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 5/30"):
            break
    os.kill(process.pid, signal.SIGSTOP)
    busy = flora("simulate", "--resume", "run", cwd=tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert busy.returncode == 2
    assert "run is being written by another process" in busy.stderr
    assert not (tmp_path / "run" / "report.json").exists()

    done = flora("simulate", "--resume", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on after round" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["privacy"]["rounds"] == 30
    finish(begin(Simulation(read_run(tmp_path / "run").config, task), tmp_path / "whole"))
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    again = flora("simulate", "--resume", "run", "--json", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "is complete, nothing is left to do" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume", "missing"], "resume missing: there is no such run folder"),
        (["--resume", "missing", "--epsilon", "4"], "leave out --epsilon"),
        (["--resume", "missing", "--compare-no-noise"], "leave out --compare-no-noise"),
        (["--resume", "missing", "--out", "x"], "leave out --out"),
        (["--resume", "."], "config.toml cannot be read: No such file or directory"),
    ],
)
def test_resume_alone(tmp_path, arguments, says) -> None:
    done = flora("simulate", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
