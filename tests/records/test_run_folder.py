import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_record import RECORD
from test_report import example_report

from flora_secure.errors import ConfigError, RunFolderError
from flora_secure.planning.config import RunConfig, load_config
from flora_secure.records.adapter_card import WEIGHTS
from flora_secure.records.checkpoints import Checkpoint
from flora_secure.records.reading import read_run
from flora_secure.records.run_folder import RunFolder, claimed
from flora_secure.rounds.optimiser import ServerState


def written(path: Path, rounds: int = 4) -> RunFolder:
    """A complete run."""
    folder = RunFolder(path, RunConfig(seed=3))
    for number in range(1, rounds + 1):
        folder.append_round(dataclasses.replace(RECORD, round=number))
    write_report(folder)
    return folder


def write_report(folder: RunFolder) -> None:
    report = example_report()
    config_hash = hashlib.sha256((folder.path / "config.toml").read_bytes()).hexdigest()
    provenance = dataclasses.replace(report.provenance, config_hash=config_hash, rounds_hash=folder.last_hash)
    folder.write_report(dataclasses.replace(report, provenance=provenance))


def test_lines_are_chained_from_the_config_on(tmp_path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one", RunConfig(seed=3))
    assert load_config(folder.path / "config.toml") == RunConfig(seed=3)
    for _ in range(3):
        folder.append_round(RECORD)
    previous = hashlib.sha256((folder.path / "config.toml").read_bytes()).hexdigest()
    for line in (folder.path / "rounds.jsonl").read_bytes().splitlines():
        assert json.loads(line) == {**RECORD.to_dict(), "previous": previous}
        previous = hashlib.sha256(line).hexdigest()
    assert folder.last_hash == previous


def test_a_run_is_read_back_as_it_was_written(tmp_path) -> None:
    folder = written(tmp_path / "run")
    config, records, report = read_run(folder.path)
    assert config == RunConfig(seed=3)
    assert records == [dataclasses.replace(RECORD, round=number) for number in (1, 2, 3, 4)]
    assert report is not None
    assert report.to_json() + "\n" == (folder.path / "report.json").read_text()


def test_an_interrupted_run_has_no_report(tmp_path) -> None:
    folder = written(tmp_path / "run")
    (folder.path / "report.json").unlink()
    assert len(read_run(folder.path).records) == 4
    (folder.path / "rounds.jsonl").unlink()
    assert read_run(folder.path) == (RunConfig(seed=3), [], None)


def swap(lines: list[str]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def edit(place: int):
    def change(lines: list[str]) -> None:
        assert '"accuracy": 0.5' in lines[place]
        lines[place] = lines[place].replace('"accuracy": 0.5', '"accuracy": 0.6')

    return change


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (edit(0), "line 2: does not follow line 1"),
        (edit(2), "line 4: does not follow line 3"),
        (edit(3), "line 4: is not the last line that report.json knows"),
        (swap, "line 2: does not follow line 1"),
        (lambda lines: lines.pop(0), "line 1: does not follow config.toml"),
        (lambda lines: lines.pop(1), "line 2: does not follow line 1"),
        (lambda lines: lines.pop(), "line 3: is not the last line that report.json knows"),
        (lambda lines: lines.append(lines[-1]), "line 5: does not follow line 4"),
        (lambda lines: lines.clear(), "line 0: is not the last line"),
        (lambda lines: lines.insert(1, ""), "line 2: not JSON"),
        (lambda lines: lines.insert(1, "[]"), "line 2: not a JSON object"),
        (lambda lines: lines.insert(1, '{"round": NaN}'), "line 2: NaN is not JSON"),
    ],
)
def test_a_log_that_was_changed_names_the_line(tmp_path, tamper, says) -> None:
    folder = written(tmp_path / "run")
    log = folder.path / "rounds.jsonl"
    lines = log.read_text().splitlines()
    tamper(lines)
    log.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(RunFolderError) as caught:
        read_run(folder.path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_cut_short_by_a_crash_is_named(tmp_path) -> None:
    folder = written(tmp_path / "run")
    log = folder.path / "rounds.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    with pytest.raises(RunFolderError, match="line 4: ends without a newline"):
        read_run(folder.path)


def test_a_line_with_a_right_hash_and_a_wrong_key_is_named(tmp_path) -> None:
    folder = written(tmp_path / "run", rounds=1)
    log = folder.path / "rounds.jsonl"
    log.write_text(log.read_text().replace('"bits"', '"bit"'))
    with pytest.raises(RunFolderError, match="line 1: unknown key 'bit'"):
        read_run(folder.path)


def test_an_edited_config_breaks_the_chain(tmp_path) -> None:
    folder = written(tmp_path / "run")
    config = folder.path / "config.toml"
    config.write_text(config.read_text().replace("seed = 3", "seed = 4"))
    with pytest.raises(RunFolderError, match=r"line 1: does not follow config\.toml"):
        read_run(folder.path)
    (folder.path / "rounds.jsonl").unlink()
    with pytest.raises(RunFolderError, match=r"report\.json: belongs to another config\.toml"):
        read_run(folder.path)


def test_what_cannot_be_read_is_named(tmp_path) -> None:
    with pytest.raises(RunFolderError, match=r"config\.toml cannot be read: No such file"):
        read_run(tmp_path)
    folder = written(tmp_path / "run")
    report = folder.path / "report.json"
    text = report.read_text()
    for broken, says in (
        ("{", "not JSON"),
        (text.replace("report/3", "report/0"), "schema must be"),
        (text.replace('"epsilon":', '"epsilom":'), "unknown key 'privacy.epsilom'"),
        (text.replace('"seed": 0', '"seed": "0"'), "provenance.seed must be of type int"),
    ):
        report.write_text(broken)
        with pytest.raises(RunFolderError, match=says):
            read_run(folder.path)
    (folder.path / "config.toml").write_bytes(b"seed = 1 # \xe9")
    with pytest.raises(RunFolderError, match="not UTF-8"):
        read_run(folder.path)


def test_an_existing_folder_is_left_alone(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match=r"run exists already; choose a new folder"), claimed(tmp_path / "run"):
        pass
    (tmp_path / "run" / "notes").write_text("")
    with pytest.raises(ConfigError, match=r"run exists already; choose a new folder"):
        RunFolder(tmp_path / "run", RunConfig())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes"]


def test_a_claimed_folder_is_the_run_s_and_goes_where_nothing_was_written(tmp_path) -> None:
    def begin(write: bool) -> None:
        with claimed(tmp_path / "deep" / "run") as place:
            assert list(place.iterdir()) == []
            if write:
                RunFolder(place, RunConfig())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(write=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        begin(write=True)
    assert (tmp_path / "deep" / "run" / "config.toml").exists()


def test_two_runs_of_one_second_have_two_folders(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    with claimed(None) as first, claimed(None) as second, claimed(None) as third:
        names = [place.name for place in (first, second, third)]
    assert names == ["20260101-000000", "20260101-000000-2", "20260101-000000-3"]


@pytest.mark.parametrize("place", ["/proc/x", "/sys/x", "/dev/null/x", "file/x", "n" * 300, "a\0b"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(tmp_path, monkeypatch, place) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: .*; choose another folder"), claimed(Path(place)):
        raise AssertionError("the run began")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_refused_too(tmp_path, monkeypatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flora_secure.records.durable.os.write", full)
    with pytest.raises(ConfigError, match="No space left on device"), claimed(tmp_path / "run"):
        raise AssertionError("the run began")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_what_an_auditor_gets_follows_the_umask_and_the_rest_is_private(tmp_path, umask) -> None:
    def save(place: Path) -> None:
        (place / WEIGHTS).write_bytes(b"")
        (place / WEIGHTS).chmod(0o600)  # as safetensors leaves it

    before = os.umask(umask)
    try:
        folder = RunFolder(tmp_path / "run", RunConfig(seed=3), start())
        folder.announce(RECORD)
        folder.append_round(RECORD, start())
        folder.write_local("skipped.tsv", "why\tname\n")
        folder.write_adapter(save)
        private = modes(folder.path / "state"), modes(folder.path / "local")
        write_report(folder)
        public = modes(folder.path)
    finally:
        os.umask(before)
    assert [set(found.values()) for found in private] == [{0o600, 0o700}] * 2
    assert private[0][folder.path / "state"] == private[1][folder.path / "local"] == 0o700
    for name in ("config.toml", "rounds.jsonl", "report.json", f"adapter/{WEIGHTS}"):
        assert public[folder.path / name] == 0o666 & ~umask, name
    for name in (".", "adapter"):
        assert public[folder.path / name] == 0o777 & ~umask, name


def modes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}


def start() -> Checkpoint:
    one = np.zeros(1)
    facts = {"clip_norm": 1.0, "session": "0" * 32, "invitation_bytes": 0, "model_hash": "", "data_hash": ""}
    return Checkpoint(round=0, server=ServerState(one, one), last_round={}, compare=(), **facts)


def test_a_link_in_a_folder_of_others_has_no_other_file_written(tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = RunFolder(tmp_path / "run", RunConfig(seed=3))
    for name in (".report.json.tmp", "rounds.jsonl"):
        (folder.path / name).symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot be written"):
        folder.append_round(RECORD)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(folder)
    assert victim.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run cannot be written: Not a directory; choose another folder"):
        RunFolder(tmp_path / "file" / "run", RunConfig())


def test_a_crash_while_saving_keeps_the_old_adapter(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run", RunConfig())
    folder.write_adapter(lambda place: (place / WEIGHTS).write_text("old") and None)

    def crash(place) -> None:
        (place / WEIGHTS).write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        folder.write_adapter(crash)
    assert (folder.path / "adapter" / WEIGHTS).read_text() == "old"
    folder.write_adapter(lambda place: (place / WEIGHTS).write_text("new") and None)
    assert (folder.path / "adapter" / WEIGHTS).read_text() == "new"
    assert sorted(os.listdir(folder.path)) == ["adapter", "config.toml"]
