"""The folder that a federation begins with: whole, planned, and never written over."""

import dataclasses
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from command import flora_here

from flora_secure.client.ledger import spent, within
from flora_secure.client.policy import Policy
from flora_secure.data.embedded.icons import icons
from flora_secure.engine.deployed.folders import App
from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.engine.deployed.project.begin import begin
from flora_secure.engine.deployed.project.example import dealt, write_example
from flora_secure.errors import ConfigError, InputError
from flora_secure.planning.config import override
from flora_secure.records.forecast import forecast


@pytest.mark.parametrize(("clients", "unit"), [(2, "client"), (3, None), (7, "client"), (40, None)])
def test_what_is_written_is_read_back_and_the_policy_lets_just_the_run_in(tmp_path: Path, clients, unit) -> None:
    folder = tmp_path / "clinic"
    begun = begin(folder, clients=clients, rounds=4, epsilon=6.0, unit=unit)
    read = App(folder / "app" / "federation").config(clients)
    assert read.aggregation.secagg == "malicious-server"
    assert read.privacy.unit == (unit or ("example" if clients < 30 else "client"))
    assert read.aggregation.suite == begun.policy.suite
    assert (read.training.warm_start, read.training.control_variate) == (None, 0.0)
    assert ("control_variate = 0.0" in (folder / "app/federation/config.toml").read_text()) == (
        read.privacy.unit == "client"
    )
    assert Policy.read(folder / "policy.toml") == begun.policy
    # the plan that the parties will make of what they read, whose classes the data say
    plan = forecast(override(read, {"data.dataset": "icons"})).plan
    events = [
        dataclasses.replace(event, colluders=max(event.colluders, int(np.ceil(begun.policy.corrupt * clients - 1e-9))))
        for event in plan.worst_events()
    ]
    assert len(events) == begun.policy.most_rounds == begun.policy.last_round == 4
    assert within(events, begun.policy.most_epsilon, begun.policy.delta)
    assert not within([*events, events[0]], begun.policy.most_epsilon, begun.policy.delta)  # and not another round
    assert begun.policy.most_epsilon <= 6.0
    assert begun.policy.most_epsilon - spent(events, begun.policy.delta) < 0.02
    assert all(event.noise_multiplier >= begun.policy.least_noise for event in events)


def test_one_of_three_may_fail(tmp_path: Path) -> None:
    begun = begin(tmp_path / "clinic")
    assert (begun.plan.plan.clients, begun.plan.plan.survivors_minimum, begun.plan.plan.colluders) == (3, 2, 0)
    assert begun.plan.aggregation.threshold == 2
    policy = begun.policy
    assert (policy.corrupt, policy.least_clients, policy.least_threshold, policy.least_survivors) == (0.0, 2, 2, 2)
    assert "3 sites cannot hide a site" in begun.reason


def test_every_key_of_the_policy_is_explained_by_a_question(tmp_path: Path) -> None:
    begin(tmp_path / "clinic", unit="client")
    lines = (tmp_path / "clinic/policy.toml").read_text().splitlines()
    asked = False
    keys = set()
    for line in lines:
        asked = False if not line else asked or line.startswith("# Ask: ")
        if found := re.match(r"(\w+) = ", line):
            assert asked, line
            keys.add(found[1])
    assert keys == {field.name for field in dataclasses.fields(Policy)}


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("there", ["policy.toml", "app/federation/data.py", "README.md", "flwr/config.toml"])
def test_nothing_is_written_over(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "clinic"
    (folder / there).parent.mkdir(parents=True)
    (folder / there).write_text("somebody's")
    before = contents(folder)
    with pytest.raises(ConfigError, match="is there, and nothing is overwritten"):
        begin(folder, unit="client")
    after = contents(folder)
    after.pop(".lock")
    assert after == before


def test_keys_may_have_been_made_before(tmp_path: Path) -> None:
    make_federation(tmp_path / "clinic", 3)
    before = contents(tmp_path / "clinic")
    begin(tmp_path / "clinic", unit="client")
    after = contents(tmp_path / "clinic")
    assert {name: after[name] for name in before} == before


def test_paths_of_the_app_are_absolute(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(Path('a "clinic"'), unit="client")
    import tomllib

    app = tomllib.loads(Path('a "clinic"/app/pyproject.toml').read_text())
    assert app["tool"]["flwr"]["app"]["config"]["server"] == str(tmp_path / 'a "clinic"/server')
    flower = tomllib.loads(Path('a "clinic"/flwr/config.toml').read_text())
    assert flower["superlink"]["loop"]["root-certificates"] == str(tmp_path / 'a "clinic"/certs/ca.crt')


@pytest.mark.parametrize(
    "given", [{"clients": 1}, {"rounds": 0}, {"epsilon": 0.0}, {"unit": "client", "images": 9}, {"images": 1}]
)
def test_what_cannot_be_planned_leaves_no_folder(tmp_path: Path, given) -> None:
    with pytest.raises(InputError):
        begin(tmp_path / "clinic", **given)
    assert not (tmp_path / "clinic").exists()


def test_the_example_deals_whole_icon_sets_and_every_image_once(tmp_path: Path) -> None:
    folder = tmp_path / "clinic"
    begin(folder, images=500)
    make_federation(folder, 3)
    written = write_example(folder)
    data = icons(unseen_clients=False)
    images = len(data.private)
    assert images == sum(written.sites.values())
    names = [{path.stem for path in (folder / f"sites/site{site}/images").rglob("*.png")} for site in written.sites]
    assert [len(each) for each in names] == list(written.sites.values())
    assert len(set.union(*names)) == images
    assert max(written.sites.values()) - min(written.sites.values()) < 20
    config = App(folder / "app" / "federation").config(3)
    assert config.data.total_images == images == begin(tmp_path / "other").config.data.total_images
    loaded = App(folder / "app" / "federation").load("test", folder / "server", config, None)
    assert (len(loaded.test), len(loaded.public)) == (len(data.test), len(data.public))
    assert loaded.class_names == data.class_names
    assert stat.S_IMODE((folder / "sites/site0/images").stat().st_mode) & 0o077 == 0
    with pytest.raises(ConfigError, match="is there, and nothing is overwritten"):
        write_example(folder)


def test_owners_are_dealt_whole() -> None:
    owners = np.array([0] * 5 + [1] * 4 + [2] * 3 + [3] * 1)
    parts = dealt(owners, 2)
    assert [set(owners[part].tolist()) for part in parts] == [{0, 3}, {1, 2}]
    assert sorted(np.concatenate(parts).tolist()) == list(range(13))


def test_the_example_needs_the_sites_folders(tmp_path: Path) -> None:
    begin(tmp_path / "clinic", unit="client")
    with pytest.raises(InputError, match="enrolment"):
        write_example(tmp_path / "clinic")


def test_the_command_says_what_it_has_planned_and_why(tmp_path: Path) -> None:
    done = flora_here("flower", "init", str(tmp_path / "clinic"), "--rounds", "1", cwd=tmp_path)
    assert done.returncode == 0
    assert "unit example" in done.stderr
    assert "2 must stay in a round (threshold 2)" in done.stdout
    again = flora_here("flower", "init", str(tmp_path / "clinic"), "--unit", "client", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    wrong = flora_here("flower", "init", str(tmp_path / "other"), "--unit", "site", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "--unit must be client or example, got 'site'" in wrong.stderr
    missing = flora_here("flower", "example", str(tmp_path / "nobody"), cwd=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
