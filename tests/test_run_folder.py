import hashlib
import json
import os

import pytest

from flora_secure.config import ConfigError, RunConfig, load_config
from flora_secure.run_folder import RunFolder


def test_lines_are_chained_from_the_config_on(tmp_path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one", RunConfig(seed=3))
    assert load_config(folder.path / "config.toml") == RunConfig(seed=3)
    for number in (1, 2, 3):
        folder.append_round({"round": number})
    previous = hashlib.sha256((folder.path / "config.toml").read_bytes()).hexdigest()
    for number, line in enumerate((folder.path / "rounds.jsonl").read_text().splitlines(), 1):
        record = json.loads(line)
        assert record == {"round": number, "previous": previous}
        previous = hashlib.sha256(line.encode()).hexdigest()


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
