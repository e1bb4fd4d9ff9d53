import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
from test_record import RECORD
from test_report import example_report

from flora_secure.errors import ConfigError, RunFolderError
from flora_secure.planning.config import RunConfig, load_config
from flora_secure.records.reading import read_run
from flora_secure.records.run_folder import RunFolder


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
        (lambda lines: lines.insert(1, '{"round": NaN}'), "line 2: not JSON: NaN"),
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
        (text.replace("report/1", "report/0"), "schema must be"),
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
    with pytest.raises(ConfigError, match=r"run exists already; choose a new folder"):
        RunFolder(tmp_path / "run", RunConfig())
    assert not list((tmp_path / "run").iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run cannot be written below .*file; choose another folder"):
        RunFolder(tmp_path / "file" / "run", RunConfig())


def test_a_crash_while_saving_keeps_the_old_adapter(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run", RunConfig())
    folder.write_adapter(lambda place: (place / "weights").write_text("old") and None)

    def crash(place) -> None:
        (place / "weights").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        folder.write_adapter(crash)
    assert (folder.path / "adapter" / "weights").read_text() == "old"
    folder.write_adapter(lambda place: (place / "weights").write_text("new") and None)
    assert (folder.path / "adapter" / "weights").read_text() == "new"
    assert sorted(os.listdir(folder.path)) == ["adapter", "config.toml"]
