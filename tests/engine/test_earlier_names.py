"""Names of earlier releases: a data set is found by them, the user is told, and no folder of an earlier run breaks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import flora_here, said

import flora_secure
from flora_secure.data.federation import load_federation
from flora_secure.data.sources import load_dataset
from flora_secure.errors import ConfigError, DataError
from flora_secure.planning import names
from flora_secure.planning.config import RunConfig, from_toml, load_config, override
from flora_secure.planning.sections import DataConfig

OLD = "[data]\ndataset = 'embedded'\nclients = 4\n"
SAYS = "`data.dataset` embedded is called clothes now"


def test_a_whole_file_of_an_earlier_release_is_read_as_what_it_did() -> None:
    old = from_toml(OLD + "[training]\nwarm_start = 100\ncontrol_variate = 1.0\n")
    assert (old.training.warm_start, old.training.control_variate) == ("images", 1.0)
    assert from_toml("[training]\nwarm_start = 0\n").training.warm_start == "none"
    with pytest.raises(ConfigError, match=r"training\.warm_start 37 was a number of steps"):
        from_toml("[training]\nwarm_start = 37\n")


@pytest.mark.parametrize(
    "config",
    [from_toml(OLD).data, override(RunConfig(), {"data.dataset": "embedded"}).data, DataConfig(dataset="embedded")],
    ids=["file", "keyword or flag", "section"],
)
def test_an_earlier_name_is_read_as_that_of_today(config: DataConfig) -> None:
    assert (config.name, config.dataset) == ("clothes", "embedded")


def test_the_clothes_are_found_by_it_and_whoever_wrote_it_is_told() -> None:
    old, new = (load_federation(DataConfig(dataset=name, clients=7), 3) for name in ("embedded", "clothes"))
    assert old.dataset.name == "clothes"
    assert old.dataset.data_hash == new.dataset.data_hash
    assert all(np.array_equal(a, b) for a, b in zip(old.clients, new.clients, strict=True))
    assert (old.dataset.warnings, new.dataset.warnings) == ((SAYS,), ())
    assert old.lines[-1] == f"warning: {SAYS}"


def test_it_is_no_second_name() -> None:
    assert "embedded" not in names.data_sets()  # what is completed, and listed in messages
    with pytest.raises(DataError, match=r"unknown data\.dataset 'embedded': use one of icons, clothes, "):
        load_dataset("embedded")
    with pytest.raises(ConfigError, match=r"data\.data_root x is not read by data\.dataset embedded, which ships"):
        from_toml(OLD + "data_root = 'x'")
    text = from_toml(OLD).to_toml()  # a config's text, of which hashes are, stays as it was
    assert 'dataset = "embedded"' in text
    assert from_toml(text).to_toml() == text
    assert override(RunConfig(), {"model.pretrained": "embedded"}).model.pretrained == "embedded"  # of a model


def test_whoever_types_it_is_told_in_the_words_of_the_flags(tmp_path: Path) -> None:
    done = flora_here("simulate", "--dataset", "embedded", "--pretrained", "nowhere.bin", cwd=tmp_path)
    assert done.returncode == 2
    assert "warning: --dataset embedded is called clothes now" in said(done)
    (tmp_path / "old.toml").write_text(OLD)
    assert flora_secure.plan(tmp_path / "old.toml").assumed == ("data set clothes, which was called embedded",)


def test_the_run_of_an_earlier_release_goes_on_and_its_audit_passes(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run of `embedded`, with the smallest data set: it began when that was a name as any other."""
    small = {"dataset": "digits", "clients": 8, "rounds": 2, "epsilon": 50, "partition": "iid", "html": False}

    def stop(number: int, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(names, "_EARLIER", {"figures": "digits"})
    with pytest.raises(flora_secure.RunInterrupted):
        flora_secure.simulate(**small | {"dataset": "figures"}, out=tmp_path / "old", progress=stop)
    config = (tmp_path / "old" / "config.toml").read_bytes()
    assert b'dataset = "figures"' in config
    lines: list[str] = []
    run = flora_secure.simulate(resume=tmp_path / "old", log=lines.append, html=False)
    assert "warning: `data.dataset` figures is called digits now" in lines
    assert run.report.warnings[0] == "`data.dataset` figures is called digits now"
    assert run.report.data.dataset == "digits"
    assert (tmp_path / "old" / "config.toml").read_bytes() == config
    assert flora_secure.audit(tmp_path / "old", opacus=False).passed
    flora_secure.simulate(load_config(tmp_path / "old" / "config.toml"), out=tmp_path / "again", html=False)
    assert json.loads((tmp_path / "again" / "report.json").read_text())["warnings"][0] == run.report.warnings[0]
