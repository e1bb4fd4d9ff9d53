"""Resume: what a run holds between two rounds, and what does not belong together is refused."""

import dataclasses
import hashlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from crashing import complete, open_small, resumed

from flora_secure.engine.recorded import begin, go_on
from flora_secure.engine.simulation import Simulation
from flora_secure.errors import CheckpointError, RunFolderError
from flora_secure.planning.config import RunConfig
from flora_secure.records import checkpoints
from flora_secure.records.checkpoints import Checkpoint
from flora_secure.records.reading import read_run
from flora_secure.records.run_folder import reopen
from flora_secure.rounds.optimiser import ServerState


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
    next(begin(Simulation(open_small(), task), tmp_path / "run").rounds())
    monkeypatch.undo()

    def file(name: str, folder: str) -> list[tuple[str, str]]:
        return [("write", f".{name}.tmp"), ("flush", f".{name}.tmp"), ("name", name), ("flush", folder)]

    assert calls == [
        *file("round-00000.npz", "state"),
        *file("initial.npy", "sums"),
        *file("config.toml", "run"),
        *file("announcement.json", "state"),
        *file("round-00001.npy", "sums"),
        *file("round-00001.npz", "state"),
        ("write", "rounds.jsonl"),
        ("flush", "rounds.jsonl"),
        ("flush", "run"),
        ("flush", "state"),  # the older state is gone
    ]


@pytest.fixture
def halfway(task, tmp_path) -> Path:
    """Two of three rounds are over, and the process has ended between them and the third."""
    run = begin(Simulation(open_small(), task), tmp_path / "half")
    rounds = run.rounds()
    next(rounds), next(rounds)
    return tmp_path / "half"


def test_a_run_between_two_rounds_holds_one_state_and_goes_on(task, halfway) -> None:
    assert sorted(os.listdir(halfway / "state")) == ["announcement.json", "lock", "round-00002.npz"]
    found = reopen(halfway)
    assert (len(found.records), found.begun) == (2, None)
    report = complete(go_on(Simulation(open_small(), task), found))
    assert report.privacy.rounds == 3
    assert not (halfway / "state").exists()


def test_a_run_that_has_its_report_is_not_taken_up_again(task, halfway, tmp_path) -> None:
    """Killed between the report and the end of its state."""
    shutil.copytree(halfway / "state", tmp_path / "kept")
    complete(resumed(halfway, open_small(), task))
    shutil.copytree(tmp_path / "kept", halfway / "state")
    before = (halfway / "rounds.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="is complete, nothing is left to do"):
        reopen(halfway)
    assert (halfway / "rounds.jsonl").read_bytes() == before


def test_what_a_killed_write_left_is_cleared(task, halfway) -> None:
    (halfway / ".adapter-x1" / "adapter").mkdir(parents=True)
    (halfway / ".report.json.tmp").write_text("{")
    (halfway / "state" / ".announcement.json.tmp").write_text("{")
    complete(resumed(halfway, open_small(), task))
    assert sorted(os.listdir(halfway)) == ["adapter", "config.toml", "report.json", "rounds.jsonl", "sums"]


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


def zeros(adapter: int, momentum: int) -> ServerState:
    return ServerState(np.zeros(adapter), np.zeros(momentum))


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
        (lambda run: (run / "state/announcement.json").write_text("{"), "announcement.json cannot be read: not JSON"),
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
        resumed(halfway, open_small(), task)
    assert "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in halfway.rglob("*") if path.is_file()}
    assert after == before


def test_a_run_of_a_release_with_other_keys_is_refused_and_let_go(halfway, monkeypatch) -> None:
    """Its hashes are over its own text, which this release would not write: the audit would find a break."""
    written = RunConfig.to_toml
    with monkeypatch.context() as patch:
        patch.setattr(RunConfig, "to_toml", lambda config: written(config) + "# a key of later\n")
        before = os.listdir("/proc/self/fd")
        with pytest.raises(RunFolderError, match=r"config\.toml is not what this release writes for the same run"):
            reopen(halfway)
        assert os.listdir("/proc/self/fd") == before  # the lock's file is closed: Windows would keep it locked
    assert len(reopen(halfway).records) == 2


def test_another_config_before_the_first_round_is_refused(task, tmp_path) -> None:
    begin(Simulation(open_small(), task), tmp_path / "run")
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
        server=ServerState(np.array([1.5, -0.1]), np.array([1e-300, np.pi])),
        clip_norm=0.1,
        last_round={3: 4, 0: 1},
        session="5e" * 16,
        invitation_bytes=812,
        model_hash="ab",
        data_hash="cd",
        compare=("central", "no-noise"),
    )
    checkpoints.write(tmp_path, state, "ef")
    back = checkpoints.read(tmp_path, 4, "ef")
    for name in ("adapter", "momentum"):
        assert getattr(back.server, name).tobytes() == getattr(state.server, name).tobytes()
    same = ("round", "clip_norm", "last_round", "model_hash", "data_hash", "compare")
    assert all(getattr(back, name) == getattr(state, name) for name in same)
    stream = io.BytesIO()
    np.savez(stream, facts=np.array([{}], object))
    raw = stream.getvalue()
    with pytest.raises(CheckpointError, match="is no state of a run: Object arrays cannot be loaded"):
        Checkpoint.from_bytes(raw + hashlib.sha256(raw).digest())
