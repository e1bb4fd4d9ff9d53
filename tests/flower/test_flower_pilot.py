"""A pilot under Flower's own programs, whose processes are killed: rounds go on, runs are resumed, nothing is
uncounted."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flower_loopback import Federation
from pilots import SITES, make_pilot, site_of

import flora_secure
from flora_secure.client.ledger import ClientLedger
from flora_secure.records.reading import read_run

RECEIVING = "Receiving: query.secure"


class Pilot(Federation):
    """A federation of Flower's programs whose app is the one that `init` writes."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.clinic = folder / "clinic"
        make_pilot(self.clinic, rounds)
        super().__init__(folder)

    def begin(self) -> None:
        self.start_server()
        for site in range(SITES):
            self.enrol(site)
        for site in range(SITES):
            self.start_site(site)
        for site in range(SITES):
            self.connected(site)

    def node_key(self, site: int) -> tuple[Path, Path]:
        own = site_of(self.clinic, site)
        return own / "node.key", own / "node.key.pub"

    def node_config(self, site: int) -> str:
        return f'site="{site_of(self.clinic, site)}"'

    def begin_run(self, **settings: object) -> None:
        given = {"patience": 60, "trip-patience": 25, **settings}
        text = " ".join(f"{key}={json.dumps(value)}" for key, value in given.items())
        self.start("run", "flwr", "run", self.clinic / "app", "loop", "--stream", "--run-config", text)

    @property
    def run(self) -> Path:
        return self.clinic / "server" / "run"

    def records(self) -> list[dict]:
        return [json.loads(line) for line in (self.run / "rounds.jsonl").read_text().splitlines()]

    def check(self) -> None:
        """What must be true of every run that has ended, whatever was killed in it."""
        assert flora_secure.audit(self.run).passed
        charged = {record.round for record in read_run(self.run).records if record.released or record.exposed}
        for site in range(SITES):
            given = {one.event.round for one in ClientLedger(site_of(self.clinic, site) / "state/ledger.jsonl").given}
            assert given <= charged  # whatever a site has given, the server's ledger counts
        assert "Traceback" not in self.log("run")


@pytest.fixture
def pilot(tmp_path, request):
    with Pilot(tmp_path, getattr(request, "param", 1)) as pilot:
        yield pilot


def test_the_app_that_flower_packs_holds_no_key_no_site_and_no_image(tmp_path) -> None:
    """`flwr build`, with keys, sites, images and what they keep beside the app, and a stray key inside it."""
    make_pilot(tmp_path / "clinic")
    done = subprocess.run(
        [Path(sys.executable).parent / "flwr", "build", "--app", tmp_path / "clinic" / "app"],
        cwd=tmp_path,
        env={**os.environ, "FLWR_HOME": str(tmp_path / "clinic" / "flwr"), "FLWR_DISABLE_UPDATE_CHECK": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Successfully built" in done.stdout
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as packed:
        names = set(packed.namelist())
        content = b"".join(packed.read(name) for name in names)
    own = {"federation/__init__.py", "federation/app.py", "federation/data.py", "federation/config.toml"}
    assert names == own | {"pyproject.toml", ".info/CONTENT"}
    for secret in tmp_path.rglob("*.key"):
        assert secret.read_bytes().strip().splitlines()[1] not in content
    assert b"PRIVATE" not in content


# the messages of one round to a site: terms · set-up, two trips (three for more rounds) · upload · agreement, survivors
# · the adapter
@pytest.mark.slow
@pytest.mark.parametrize(("message", "survivors"), [*((place, [0, 1]) for place in (1, 2, 3, 4)),
                                                     *((place, [0, 1, 2]) for place in (5, 6, 7))])  # fmt: skip
def test_a_supernode_that_is_killed_costs_itself_alone(pilot, message, survivors) -> None:
    pilot.begin()
    pilot.begin_run()
    pilot.until_count("site2", RECEIVING, message, 300)
    pilot.kill("site2")
    pilot.finish_run(300)
    assert [record["survivors"] for record in pilot.records()] == [survivors]
    pilot.check()


@pytest.mark.slow
@pytest.mark.parametrize("pilot", [4], indirect=True)
def test_a_supernode_that_comes_back_is_in_again(pilot) -> None:
    pilot.begin()
    pilot.begin_run()
    pilot.until_count("site2", RECEIVING, 5, 300)
    pilot.kill("site2")
    pilot.restart_site(2, 120)
    pilot.finish_run(600)
    found = [record["survivors"] for record in pilot.records()]
    assert found[0] == [0, 1]
    assert found[-1] == [0, 1, 2]
    pilot.check()


@pytest.mark.slow
@pytest.mark.parametrize("pilot", [2], indirect=True)
def test_a_clientapp_that_is_killed_while_it_trains_is_in_the_next_round(pilot) -> None:
    hold = site_of(pilot.clinic, 2) / "hold"
    data = pilot.clinic / "app" / "federation" / "data.py"
    waiting = (
        'if (folder / "hold").exists():\n        print("held", flush=True)\n        __import__("time").sleep(600)\n'
    )
    data.write_text(data.read_text().replace("    return _images(folder)", f"    {waiting}    return _images(folder)"))
    pilot.begin()
    pilot.begin_run()
    pilot.until_count("site2", RECEIVING, 3, 300)  # its terms are compared: what loads its images now is the upload
    hold.touch()
    pilot.until_logged("site2", "held", 300)
    assert pilot.kill_answering(2) == 1
    hold.unlink()
    pilot.finish_run(400)
    found = [record["survivors"] for record in pilot.records()]
    assert found == [[0, 1], [0, 1, 2]]
    assert "client 2: no answer" in pilot.log("run")  # by Flower's error, or since patience was over
    pilot.check()


@pytest.mark.slow
@pytest.mark.parametrize("pilot", [3], indirect=True)
def test_a_serverapp_that_is_killed_is_resumed_by_the_next_run(pilot) -> None:
    pilot.begin()
    pilot.begin_run()
    pilot.until_count("site2", RECEIVING, 8, 300)  # in round 2, at the upload
    assert pilot.kill_hosting() == 1
    pilot.kill("run")
    pilot.begin_run()
    said = pilot.finish_run(400)
    records = pilot.records()
    assert [record["round"] for record in records] == [1, 2, 3]
    assert [record["lost"] for record in records] == [False, True, False]
    assert records[2]["survivors"] == [0, 1, 2]
    assert "going on after round 1 of 3; round 2 was in flight" in said
    assert records[1]["epsilon"] > records[0]["epsilon"]  # the round in flight is charged
    pilot.check()


@pytest.mark.slow
@pytest.mark.parametrize("pilot", [2], indirect=True)
def test_a_superlink_that_is_killed_is_begun_anew_and_the_run_goes_on(pilot) -> None:
    pilot.begin()
    pilot.begin_run()
    pilot.until_count("site2", RECEIVING, 6, 300)
    for name in ("server", "run", *(f"site{site}" for site in range(SITES))):
        pilot.kill(name)  # its state is in memory: nodes are registered again, and connect again
    pilot.begin()
    pilot.begin_run()
    pilot.finish_run(400)
    records = pilot.records()
    assert [record["lost"] for record in records] == [True, False]
    assert records[1]["survivors"] == [0, 1, 2]
    pilot.check()


@pytest.mark.slow
def test_a_supernode_that_trusts_signers_runs_no_local_app(pilot, monkeypatch) -> None:
    """What docs/flower.md says of --trusted-entities: no signature of a local app reaches a site."""
    key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    trusted = pilot.folder / "trusted.yaml"
    trusted.write_text(f'fpk_1: "{key.decode()}"\n')
    monkeypatch.setattr(pilot, "node_options", lambda site: ("--trusted-entities", trusted) if site == 2 else ())
    pilot.begin()
    pilot.begin_run()
    pilot.finish_run(300)
    assert [record["survivors"] for record in pilot.records()] == [[0, 1]]
    assert "App verification is" in pilot.log("site2")
    assert not (site_of(pilot.clinic, 2) / "state").exists()  # nothing of the app has run there
    pilot.check()


@pytest.mark.slow
def test_a_run_without_a_server_folder_fails_in_one_line(pilot) -> None:
    pilot.begin()
    pilot.begin_run(server="")
    said = pilot.finish_run(120)
    assert "flora-secure: server of the run's configuration must be the absolute path" in said
    assert "Traceback" not in said
    assert "finished:failed" in pilot.listed()
