"""`flora-secure flower`: keys and enrolment as a person makes them, with nothing secret on any stream."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from command import ENVIRONMENT, PROGRAM, flora, flora_here
from typer.models import ArgumentInfo, OptionInfo

from flora_cli import flower
from flora_cli.options import at_home
from flora_secure.engine.deployed.keys.enrolment_file import fingerprint, read_enrolment

WIDE = {**ENVIRONMENT, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


def secrets(folder: Path) -> list[str]:
    """Every line of every secret file that says something."""
    names = ("ca.key", "server.key", "client.key", "node.key", "identity.key", "signing.key")
    texts = [path.read_text() for path in folder.rglob("*.key") if path.name in names]
    return [line for text in texts for line in text.splitlines() if len(line) > 30 and not line.startswith("flora-")]


def nothing_secret(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert not [line for line in secrets(folder) if line[:30] in done.stdout + done.stderr]


def test_a_pilot_from_end_to_end(tmp_path: Path) -> None:
    done = flora("flower", "certs", "pilot", "--clients", 3, "--host", "fl.example.org", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "pilot/enrolment.toml"
    assert done.stdout.splitlines()[0] == "flora-secure flower certs → pilot"
    assert "localhost, 127.0.0.1, fl.example.org, until 20" in done.stdout
    assert "site0, site1, site2" in done.stdout
    assert f"fingerprint {fingerprint(read_enrolment(path))}\n" in done.stdout
    warning, offline = done.stderr.splitlines()
    assert warning.startswith("warning: a pilot: ")
    assert offline == "pilot/certs/ca.key makes new certificates and nothing else: keep it offline until then"
    assert len(secrets(tmp_path)) > 20
    nothing_secret(done, tmp_path)
    done = flora_here("flower", "certs", "pilot", "--clients", 5, "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document == {
        "schema": "flora-secure/credentials/1",
        "directory": "pilot",
        "authority_sha256": document["authority_sha256"],
        "server": {
            "hosts": ["localhost", "127.0.0.1", "fl.example.org"],
            "until": document["server"]["until"],
            "new": False,
        },
        "again": [],
        "new": [{"client": client, "folder": f"pilot/sites/site{client}"} for client in (3, 4)],
        "enrolment": "pilot/enrolment.toml",
        "clients": 5,
        "revoked": [],
        "fingerprint": fingerprint(read_enrolment(path)),
    }
    assert re.fullmatch("[0-9a-f]{64}", document["authority_sha256"])
    nothing_secret(done, tmp_path)


def test_a_federation_from_end_to_end(tmp_path: Path) -> None:
    done = flora_here("flower", "certs", "federation", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "new sites  none" in done.stdout
    keys = []
    for place in range(3):
        done = flora_here("flower", "identity", f"own{place}", cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done.stderr
        assert re.fullmatch("[0-9a-f]{64}\n", done.stdout)
        nothing_secret(done, tmp_path)
        keys.append(done.stdout.strip())
    done = flora_here("flower", "enrol", "federation", *keys[:2], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["client 0", "client 1", "federation/enrolment.toml: 2 clients"]
    done = flora_here("flower", "enrol", "federation", keys[2], "--json", cwd=tmp_path)
    path = tmp_path / "federation/enrolment.toml"
    assert json.loads(done.stdout) == {
        "schema": "flora-secure/enrolled/1",
        "new": [{"client": 2, "folder": "federation/sites/site2"}],
        "enrolment": "federation/enrolment.toml",
        "clients": 3,
        "revoked": [],
        "fingerprint": fingerprint(read_enrolment(path)),
    }
    assert [key.hex() for key in read_enrolment(path).identities] == keys
    done = flora_here("flower", "revoke", "federation", 1, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "federation/enrolment.toml: 3 clients, revoked: 1",
        f"fingerprint {fingerprint(read_enrolment(path))}",
    ]
    assert read_enrolment(path).revoked == {1}
    done = flora_here("flower", "revoke", "federation", 0, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["revoked"] == [0, 1]


def test_an_enrolment_without_an_authority_says_what_was_not_made(tmp_path: Path) -> None:
    keys = [flora_here("flower", "identity", f"own{place}", cwd=tmp_path).stdout.strip() for place in range(2)]
    done = flora_here("flower", "enrol", "federation", *keys, "--json", cwd=tmp_path)
    assert done.stderr == "federation/certs has no authority, so that no keys for TLS and Flower were made\n"
    assert json.loads(done.stdout)["new"] == [{"client": 0, "folder": None}, {"client": 1, "folder": None}]


def test_the_public_key_as_json(tmp_path: Path) -> None:
    done = flora_here("flower", "identity", "own", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document == {
        "schema": "flora-secure/public-identity/1",
        "file": "own/identity.key",
        "public_key": document["public_key"],
    }
    nothing_secret(done, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("certs new --clients 1", "a federation has 2 to 65,536 clients, got 1"),
        ("certs new --clients ten", "'--clients': 'ten' is not a whole number"),
        ("certs new --host https://fl.example.org", "host 'https://fl.example.org' is neither a DNS name nor"),
        ("certs new --again 0", "client 0 is not enrolled in new/enrolment.toml, which has 0"),
        ("certs pilot --clients 2", "pilot/enrolment.toml has 3 clients, and 2 are fewer"),
        ("certs pilot --host 192.0.2.7", "pilot/certs/server.pem is there, for localhost, 127.0.0.1 and not 192.0.2.7"),
        ("certs pilot --again 1", "pilot/sites/site1 is there, and nothing is overwritten"),
        ("certs file", "file cannot be written: File exists"),
        ("identity pilot/sites/site0", "pilot/sites/site0/identity.key is there and is not overwritten"),
        ("identity file/site", "file/site/identity.key cannot be written: Not a directory"),
        ("enrol pilot abc", "public key 1 is no public identity key"),
        ("enrol pilot", "Missing argument 'PUBLICKEY…'. Try 'flora-secure flower enrol --help'."),
        ("revoke pilot 3", "client 3 is not enrolled in pilot/enrolment.toml, whose clients are 0 to 2"),
        ("revoke pilot x", "'CLIENT': 'x' is not a whole number"),
        ("revoke nowhere 0", "enrolment nowhere/enrolment.toml cannot be read: No such file or directory"),
        ("revok pilot 0", "No such command 'revok'"),
        ("", "Missing command. Try 'flora-secure flower --help'."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: str, says: str, pilot: Path) -> None:
    before = sorted(pilot.rglob("*"))
    done = flora_here("flower", *arguments.split(), cwd=pilot)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("flora-secure: ")
    assert says in line
    nothing_secret(done, pilot)
    assert sorted(pilot.rglob("*")) == before


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("coordinator")
    (cwd / "file").touch()
    assert flora_here("flower", "certs", "pilot", "--clients", 3, cwd=cwd).returncode == 0
    return cwd


def test_a_secret_given_as_a_public_key_is_not_repeated(pilot: Path) -> None:
    line = (pilot / "pilot/sites/site0/identity.key").read_text().splitlines()[1]
    done = flora_here("flower", "enrol", "pilot", line, cwd=pilot)
    assert done.returncode == 2
    nothing_secret(done, pilot)


def test_help_has_an_example_of_each_command_and_needs_neither_torch_nor_numpy() -> None:
    program = "import sys\nfor m in ('torch', 'numpy'): sys.modules[m] = None\nfrom flora_cli.main import run; run()"
    names = [command.name or command.callback.__name__ for command in flower.app.registered_commands]
    assert names == ["init", "certs", "identity", "enrol", "revoke", "example"]
    for name in names:
        command = [sys.executable, "-c", program, "flower", name, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, env=WIDE)
        assert done.returncode == 0, done.stderr
        assert f" flora-secure flower {name} " in done.stdout.partition("Examples:")[2]


def test_every_path_knows_the_home() -> None:
    for command in flower.app.registered_commands:
        hints = typing.get_type_hints(command.callback, include_extras=True)
        found = [hint for name, hint in hints.items() if name != "return" and Path in (hint.__origin__,)]
        assert found
        for hint in found:
            (option,) = hint.__metadata__
            assert isinstance(option, OptionInfo | ArgumentInfo)
            assert option.callback is at_home


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("flow", {"flower"}),
        ("flower rev", {"revoke"}),
        ("flower certs --cl", {"--clients"}),
        ("flower certs --a", {"--again"}),
    ],
)
def test_commands_and_flags_are_completed(line: str, values: set[str]) -> None:
    asked = {"_FLORA_SECURE_COMPLETE": "complete_bash", "COMP_WORDS": f"flora-secure {line}"}
    asked["COMP_CWORD"] = str(len(f"flora-secure {line}".split(" ")) - 1)
    done = subprocess.run(PROGRAM, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT, **asked})
    assert set(done.stdout.split()) == values
