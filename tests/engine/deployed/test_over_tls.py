"""`serve` and `join` on loopback, from folders: the whole run, an interruption, and what is said where something is
missing."""

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from command import ENVIRONMENT
from pilots import Pilot
from sites import CONFIG, ENROLMENT, POLICY, SITES

import flora_secure
from flora_secure.engine.deployed.folders import App
from flora_secure.engine.deployed.over_tls import join, longest_reply, serve
from flora_secure.engine.tls.wire import MOST_BYTES
from flora_secure.errors import ConfigError, InputError, NetworkError, RunFolderError, RunInterrupted
from flora_secure.planning.config import override

HOST, LONG = "127.0.0.1", 60.0


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return listener.getsockname()[1]


class Running:
    """A pilot whose sites join in threads; `ended[i]` is what became of site i's `join`, `told[i]` what it has said."""

    def __init__(self, pilot: Pilot, port: int) -> None:
        self.pilot, self.port = pilot, port
        self.told: dict[int, list[str]] = {}
        self.ended: dict[int, object] = {}
        self.threads: list[threading.Thread] = []

    def join(self, number: int, folder: Path | None = None) -> None:
        def run() -> None:
            log = self.told.setdefault(number, []).append
            place = self.pilot.sites[number] if folder is None else folder
            try:
                self.ended[number] = join(App(self.pilot.app), place, HOST, self.port, patience=LONG, log=log)
            except BaseException as error:
                self.ended[number] = error

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def serve(self, log: Callable[[str], None] = lambda line: None, **more: object) -> flora_secure.Run:
        given = {"progress": None, "wait": LONG, "trip_patience": 20.0, **more}
        return serve(
            App(self.pilot.app), self.pilot.server, host=HOST, port=self.port, patience=LONG, log=log,
            certificates=self.pilot.server / "certs", out=self.pilot.server / "run", **given,
        )  # fmt: skip

    def all_ended(self) -> None:
        for thread in self.threads:
            thread.join(LONG)
            assert not thread.is_alive()


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(Pilot(tmp_path / "pilot"), free_port())


def test_a_run_that_is_interrupted_goes_on_with_the_sites_that_wait(running: Running) -> None:
    for number in range(SITES):
        running.join(number)

    def interrupt(number: int, *_: object) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match="rounds 1 to 1 are kept"):
        running.serve(progress=interrupt)
    lines: list[str] = []
    run = running.serve(lines.append)
    running.all_ended()
    assert any("going on after round 1 of 3" in line for line in lines)
    assert [record.survivors for record in run.records] == [[0, 1, 2]] * 3
    assert flora_secure.audit(run.folder).passed
    weights = (run.adapter / "adapter_model.safetensors").read_bytes()
    for number, site in enumerate(running.pilot.sites):
        adapter, epsilon, rounds = running.ended[number]
        assert (adapter, rounds) == (site / "adapter", 3)
        assert (adapter / "adapter_model.safetensors").read_bytes() == weights
        assert run.report.privacy.epsilon < epsilon <= POLICY.most_epsilon
        counted = f"uploaded in round 3; this site's own ledger counts ε = {epsilon:.4g} of 12 allowed"
        assert any(line.startswith(counted) for line in running.told[number])
    kept = [path for site in running.pilot.sites for path in (site / "receipts").iterdir()]
    assert len(kept) == SITES
    server_key = (running.pilot.sites[0] / "signing.pub").read_text()
    audit = flora_secure.audit(run.folder, opacus=False, receipts=kept, server_key=server_key)
    signed = {one.check: one.severity for one in audit.findings if one.check.startswith("R-")}
    assert signed == {f"R-{n:02}": "ok" for n in range(1, 12)}
    assert running.serve(lines.append).report == run.report  # nobody is waited for
    assert "is complete" in lines[-1]


def test_it_begins_without_a_site_that_does_not_come_and_takes_it_in_later(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flora_secure.engine.deployed.over_tls._MORE", 0.2)
    for number in (0, 2):
        running.join(number)
    lines: list[str] = []

    def late(number: int, *_: object) -> None:
        if number == 1:
            running.join(1)
            while not any("client-1 is connected" in line for line in lines):
                threading.Event().wait(0.02)

    run = running.serve(lines.append, progress=late, trip_patience=1.0)
    running.all_ended()
    assert "begins without site1" in lines
    assert run.records[0].survivors == [0, 2]
    assert 1 in run.records[-1].survivors
    assert running.ended[1][0] == running.pilot.sites[1] / "adapter"


def test_too_few_sites_are_said_and_no_folder_is_made(running: Running) -> None:
    with pytest.raises(ConfigError, match=r"0 of 3 sites are connected after 0.2 s, and the noise needs 2: .*--wait"):
        running.serve(wait=0.2)
    assert not (running.pilot.server / "run").exists()


def test_a_port_in_use_and_what_is_missing_at_the_server(running: Running) -> None:
    with socket.create_server((HOST, running.port)), pytest.raises(NetworkError, match="cannot listen"):
        running.serve()
    for name, kind in (
        ("enrolment.toml", ConfigError), ("certs/server.key", NetworkError), ("certs/ca.crt", NetworkError),
        ("app/config.toml", InputError), ("app/data.py", ConfigError),
    ):  # fmt: skip
        path = running.pilot.server / name
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(kind, match=path.name) as error:
            running.serve()
        assert "\n" not in str(error.value)
        path.touch(0o600)
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "name", ["policy.toml", "enrolment.toml", "identity.key", "ca.crt", "client.pem", "client.key"]
)
def test_what_is_missing_at_a_site(running: Running, name: str) -> None:
    (running.pilot.sites[0] / name).unlink()
    running.join(0)
    running.all_ended()
    error = running.ended[0]
    assert isinstance(error, InputError)
    assert name in str(error)
    assert "\n" not in str(error)


def test_a_certificate_of_another_client_than_the_key_is_refused(running: Running) -> None:
    for end in ("pem", "key"):
        shutil.copy(running.pilot.sites[1] / f"client.{end}", running.pilot.sites[0] / f"client.{end}")
    running.join(0)
    running.all_ended()
    assert "is of client-1, and the identity key beside it is client 0" in str(running.ended[0])


def test_a_revoked_site_and_one_that_nobody_enrolled(running: Running) -> None:
    from flora_secure.engine.deployed.keys.credentials import revoke

    revoke(running.pilot.server, 0)
    shutil.copy(running.pilot.server / "enrolment.toml", running.pilot.sites[0])
    other = Pilot(running.pilot.server.parent / "other")
    shutil.copy(other.sites[1] / "identity.key", running.pilot.sites[1])
    for number in (0, 1):
        running.join(number)
    running.all_ended()
    assert "revoked" in str(running.ended[0])
    assert "not enrolled" in str(running.ended[1])


def test_a_policy_that_wants_more_noise_keeps_its_site_out(running: Running) -> None:
    running.pilot.configure(override(CONFIG, {"training.rounds": 1}))
    running.pilot.insist(running.pilot.sites[2], dataclasses.replace(POLICY, least_noise=50.0))
    for number in range(SITES):
        running.join(number)
    run = running.serve()
    running.all_ended()
    assert run.records[0].survivors == [0, 1]
    assert any("refused (noise)" in line for line in running.told[2])
    assert running.ended[2][1:] == (0.0, 0)


def test_a_folder_of_another_configuration_is_not_gone_on_with(running: Running) -> None:
    for number in range(SITES):
        running.join(number)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        running.serve(progress=interrupt)
    running.pilot.configure(override(CONFIG, {"training.rounds": 4}))
    with pytest.raises(RunFolderError, match="another configuration"):
        running.serve()
    running.pilot.configure(CONFIG)
    running.serve()
    running.all_ended()


def test_replies_are_bounded_by_the_model_where_its_size_is_known() -> None:
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, clients=3))
    assert 1 << 20 <= longest_reply(config, ENROLMENT, 10) < 1 << 21
    assert longest_reply(override(config, {"model.model": "local-dir:somewhere"}), ENROLMENT, 10) == MOST_BYTES


def test_neither_torch_nor_accountants_are_there_before_a_site_is(tmp_path: Path) -> None:
    """The server's process, as it is while it waits: it is asked what it has imported when nobody has come."""
    pilot = Pilot(tmp_path / "pilot")
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from flora_cli import main, serve\n"  # the command line's own imports count
        "from flora_secure.engine.deployed.folders import App\n"
        "from flora_secure.engine.deployed.over_tls import serve\n"
        "from flora_secure.errors import ConfigError\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    serve(App(folder / 'app'), folder, host='127.0.0.1', port=0, certificates=folder / 'certs',\n"
        "          out=folder / 'run', patience=1, trip_patience=1, wait=0.01, progress=None, log=lambda line: None)\n"
        "except ConfigError as error:\n"
        "    assert 'are connected' in str(error)\n"
        "    print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(pilot.server)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "scipy", "dp_accounting", "sklearn", "flwr"} & set(json.loads(done.stdout))
