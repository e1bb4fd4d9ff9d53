"""A federation over NVFlare's Collab API: the transport by itself, and a whole run in its simulator."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("nvflare")

import flora_secure
from flora_secure.engine.nvflare.app import FederationSite
from flora_secure.engine.nvflare.transport import CollabTransport, clients_of

ROOT = Path(__file__).parents[2]


class Call:
    """A proxy whose site answers, waits, raises, or says something else."""

    def __init__(self, name: str, number: object = 0, wait: float = 0.0, gives: object = None) -> None:
        self.name, self._number, self._wait, self._gives = name, number, wait, gives

    def __call__(self, *, timeout: float, optional: bool) -> "Call":
        assert optional
        return self

    def answer(self, message: bytes) -> object:
        time.sleep(self._wait)
        if isinstance(self._gives, Exception):
            raise self._gives
        return message + b"!" if self._gives is None else self._gives

    def number(self) -> object:
        return self._number


def test_replies_come_as_they_do_and_the_rest_has_dropped_out() -> None:
    told: list[str] = []
    sites = {
        0: Call("a"),
        1: Call("b", wait=5),
        2: Call("c", gives=ValueError("patient 4711")),
        3: Call("d", gives="no bytes"),
    }
    transport = CollabTransport(sites, told.append)
    before = time.monotonic()
    found = dict(transport.exchange({0: b"x", 1: b"y", 2: b"z", 3: b"w", 7: b"nobody"}, 0.5))
    assert found == {0: b"x!"}
    assert time.monotonic() - before < 4
    assert not any("4711" in line for line in told)
    assert {line.split(":")[0] for line in told} == {"b", "c", "client 3"}


def test_a_late_reply_is_of_no_later_message() -> None:
    transport = CollabTransport({0: Call("a", wait=0.6)}, lambda line: None)
    assert dict(transport.exchange({0: b"first"}, 0.2)) == {}
    assert dict(transport.exchange({0: b"second"}, 5)) == {0: b"second!"}
    assert not [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]


def test_a_number_is_taken_once_and_only_where_it_is_one() -> None:
    told: list[str] = []
    sites = [Call("a", 1), Call("b", 1), Call("c", -1), Call("d", 3), Call("e", "0"), Call("f", 2)]
    found = clients_of(sites, 3, 5.0, told.append)
    assert found[2].name == "f"
    assert found[1].name in "ab"
    assert set(found) == {1, 2}
    assert len(told) == 4


def test_only_the_server_is_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """NVFlare lets any participant of a job call what is published: another site could begin sessions of its own."""
    site = FederationSite("app")
    for caller, named in (("site1", "site1"), ("site1.server", "site1.server"), ("", "")):
        monkeypatch.setattr("flora_secure.engine.nvflare.app.collab", SimpleNamespace(caller=caller))
        assert site.answer(b"fO") == b""
        assert site.number() == -1
        assert f"{named} is not the server" in capsys.readouterr().err
    monkeypatch.setattr("flora_secure.engine.nvflare.app.collab", SimpleNamespace(caller="server", site_name="site0"))
    monkeypatch.delenv("FLORA_SECURE_SITE", raising=False)
    assert site.number() == -1
    assert "FLORA_SECURE_SITE is not set" in capsys.readouterr().err


def test_the_commands_of_the_page_run_a_federation_whose_audit_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs/nvflare.md").read_text(encoding="utf-8")
    block = page.split("<!-- command: nvflare -->\n```sh\n")[1].split("```")[0]
    here = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "protocols", "cli")),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "OMP_NUM_THREADS": "1",
    }
    commands = 'flora-secure() { python -P -m flora_cli.main "$@"; }\n' + block  # also where nothing is installed
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env=here,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    assert "PASSED" in done.stdout
    assert "round 3/3" in told
    run = tmp_path / "clinic/server/run"
    assert flora_secure.audit(run).passed
    for number in range(3):
        site = tmp_path / f"clinic/sites/site{number}"
        assert (site / "adapter/adapter_model.safetensors").exists()
        (kept,) = (site / "receipts").iterdir()
        key = (site / "signing.pub").read_text()
        assert flora_secure.audit(run, opacus=False, receipts=[kept], server_key=key).passed
        assert len((site / "state/ledger.jsonl").read_text().splitlines()) == 3
