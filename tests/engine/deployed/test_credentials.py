"""A coordinator's folder: complete, of the right modes, never overwritten, whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key, load_ssh_public_key
from cryptography.x509.oid import NameOID

from flora_protocols import identity_public
from flora_secure.engine.deployed.keys import change
from flora_secure.engine.deployed.keys.certificates import hosts_in, read_certificate
from flora_secure.engine.deployed.keys.credentials import enrol, make_federation, revoke
from flora_secure.engine.deployed.keys.enrolment_file import read_enrolment
from flora_secure.engine.deployed.keys.identity import make_identity, read_identity
from flora_secure.errors import ConfigError
from flora_secure.records import durable

SITE = {
    "ca.crt": 0o644,
    "client.pem": 0o644,
    "signing.pub": 0o644,
    "client.key": 0o600,
    "node.key.pub": 0o644,
    "node.key": 0o600,
}
SECRET = ("ca.key", "server.key", "client.key", "node.key", "identity.key", "signing.key")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Nothing is to rest on a mild one."""
    before = os.umask(0)
    yield
    os.umask(before)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def publics(folder: Path, count: int) -> list[str]:
    return [make_identity(folder / f"own{place}").hex() for place in range(count)]


def test_a_pilot_has_all_files_with_their_modes(tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    made = make_federation(folder, 3, ["fl.example.org"])
    assert (made.clients, made.server, made.again) == ((0, 1, 2), True, ())
    assert modes(folder) == {"certs": 0o700, "sites": 0o700, "enrolment.toml": 0o644, ".lock": 0o600}
    pairs = {"ca.crt": 0o644, "ca.key": 0o600, "server.pem": 0o644, "server.key": 0o600}
    assert modes(folder / "certs") == {**pairs, "signing.key": 0o600, "signing.pub": 0o644}
    assert modes(folder / "sites") == {f"site{client}": 0o700 for client in range(3)}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for client in range(3):
        assert modes(folder / "sites" / f"site{client}") == {**SITE, "identity.key": 0o600}


def test_what_a_site_gets_belongs_together(tmp_path: Path) -> None:
    made = make_federation(tmp_path, 3)
    enrolment = read_enrolment(tmp_path / "enrolment.toml")
    assert made.enrolment == enrolment
    authority = read_certificate((tmp_path / "certs/ca.crt").read_bytes())
    for client in range(3):
        site = tmp_path / "sites" / f"site{client}"
        assert identity_public(read_identity(site / "identity.key")) == enrolment.identities[client]
        assert (site / "ca.crt").read_bytes() == (tmp_path / "certs/ca.crt").read_bytes()
        certificate = read_certificate((site / "client.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
        assert certificate.subject == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"client-{client}")])
        key = load_pem_private_key((site / "client.key").read_bytes(), None)
        assert key.public_key() == certificate.public_key()
        node = load_ssh_private_key((site / "node.key").read_bytes(), None)
        assert node.public_key() == load_ssh_public_key((site / "node.key.pub").read_bytes())
    secrets = [data for name, data in contents(tmp_path).items() if name.endswith(SECRET)]
    assert len(set(secrets)) == len(secrets) == 12


def test_more_sites_leave_all_that_is_there(tmp_path: Path) -> None:
    make_federation(tmp_path, 3, ["fl.example.org"])
    before = contents(tmp_path)
    made = make_federation(tmp_path, 5)
    assert (made.clients, made.server) == ((3, 4), False)
    assert made.hosts == ("localhost", "127.0.0.1", "fl.example.org")
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {
        "enrolment.toml",
        *(f"sites/site{client}/{name}" for client in (3, 4) for name in (*SITE, "identity.key")),
    }
    old, new = before["enrolment.toml"].decode().splitlines(), after["enrolment.toml"].decode().splitlines()
    assert new[:7] == old[:7]  # the first three keys among them
    again = make_federation(tmp_path, 5)
    assert (again.clients, again.server, contents(tmp_path)) == ((), False, after)


def test_a_federation_in_which_sites_make_their_identities(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    made = make_federation(folder, hosts=["192.0.2.7"])
    assert (made.clients, made.enrolment, made.server) == ((), None, True)
    keys = publics(tmp_path, 4)
    with pytest.raises(ConfigError, match="at least 2 clients, got 1"):
        enrol(folder, keys[:1])
    assert not (folder / "sites").exists()
    assert enrol(folder, keys[:3]).clients == (0, 1, 2)
    assert enrol(folder, keys[3:]).clients == (3,)
    for client in range(4):
        assert modes(folder / "sites" / f"site{client}") == SITE  # and no identity key
    enrolment = read_enrolment(folder / "enrolment.toml")
    assert [key.hex() for key in enrolment.identities] == keys
    assert revoke(folder, 1).revoked == {1}
    assert read_enrolment(folder / "enrolment.toml").revoked == {1}
    fifth = publics(tmp_path / "more", 1)
    assert enrol(folder, fifth).enrolment == read_enrolment(folder / "enrolment.toml")
    assert read_enrolment(folder / "enrolment.toml").revoked == {1}


def test_an_enrolment_alone_needs_no_authority(tmp_path: Path) -> None:
    folder, keys = tmp_path / "federation", publics(tmp_path, 2)
    made = enrol(folder, keys)
    assert (made.authority, made.clients) == (None, (0, 1))
    assert modes(folder) == {"enrolment.toml": 0o644, ".lock": 0o600}
    later = make_federation(folder, again=[0, 1])
    assert later.again == (0, 1)
    assert modes(folder / "sites" / "site1") == SITE


def test_keys_of_a_site_are_made_anew_where_its_folder_is_gone(tmp_path: Path) -> None:
    make_federation(tmp_path, 3)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="site1 is there, and nothing is overwritten"):
        make_federation(tmp_path, again=[1])
    shutil.move(tmp_path / "sites" / "site1", tmp_path / "moved")
    assert make_federation(tmp_path, again=[1]).again == (1,)
    assert modes(tmp_path / "sites" / "site1") == SITE
    for name, data in contents(tmp_path / "sites" / "site1").items():
        assert (data == before[f"sites/site1/{name}"]) == (name in ("ca.crt", "signing.pub"))
    shutil.rmtree(tmp_path / "sites" / "site0")
    with pytest.raises(ConfigError, match="client 0 is named twice to be made anew; name it once"):
        make_federation(tmp_path, again=[0, 0])
    revoke(tmp_path, 2)
    with pytest.raises(ConfigError, match="client 2 is revoked already"):
        revoke(tmp_path, 2)
    shutil.rmtree(tmp_path / "sites" / "site2")
    for client, says in (
        (2, "client 2 is revoked"),
        (3, "client 3 is not enrolled"),
        (-1, "client -1 is not enrolled"),
    ):
        with pytest.raises(ConfigError, match=says):
            make_federation(tmp_path, again=[client])


def test_a_new_server_certificate_where_the_old_one_is_gone(tmp_path: Path) -> None:
    make_federation(tmp_path)
    for name in ("server.pem", "server.key"):
        (tmp_path / "certs" / name).unlink()
        if name == "server.pem":
            with pytest.raises(ConfigError, match=r"server\.key is there without the other of"):
                make_federation(tmp_path)
    made = make_federation(tmp_path, hosts=["FL.example.org"])
    assert made.server
    certificate = read_certificate((tmp_path / "certs/server.pem").read_bytes())
    assert hosts_in(certificate) == made.hosts == ("localhost", "127.0.0.1", "fl.example.org")
    assert made.until == certificate.not_valid_after_utc
    with pytest.raises(ConfigError, match=r"for localhost, 127\.0\.0\.1, fl\.example\.org and not 192\.0\.2\.7; move"):
        make_federation(tmp_path, hosts=["192.0.2.7", "fl.example.org"])


@pytest.mark.parametrize("clients", [-1, 0, 1, 65_537])
def test_numbers_of_clients_that_no_federation_has(tmp_path: Path, clients: int) -> None:
    with pytest.raises(ConfigError, match=f"a federation has 2 to 65,536 clients, got {clients}"):
        make_federation(tmp_path / "new", clients)
    assert not (tmp_path / "new").exists()


def refused(folder: Path, says: str, **more: object) -> None:
    """One line, and nothing changed."""
    before = contents(folder)
    with pytest.raises(ConfigError) as caught:
        make_federation(folder, 5, **more)  # type: ignore[arg-type]
    assert re.search(says, str(caught.value)), caught.value
    assert "PRIVATE" not in str(caught.value)
    assert contents(folder) == before
    assert not (folder / ".new").exists()


def test_an_authority_that_is_not_whole(tmp_path: Path) -> None:
    folder, other = tmp_path / "federation", tmp_path / "other"
    make_federation(folder, 3)
    make_federation(other, 3)
    certificate, key = folder / "certs/ca.crt", folder / "certs/ca.key"
    shutil.move(key, tmp_path / "offline")
    refused(folder, r"ca\.key is not there, and new certificates need it; bring it back")
    shutil.copy(other / "certs/ca.key", key)
    refused(folder, r"authority .*ca\.crt: its key is not the certificate's")
    shutil.move(tmp_path / "offline", key)
    refused(folder, r"its certificate ended on", now=datetime.now(UTC) + timedelta(days=3700))
    certificate.unlink()
    refused(folder, r"ca\.key is there without .*ca\.crt")
    key.unlink()
    refused(folder, r"ca\.crt is not there, and .*site\d/ca\.crt is a copy of it; bring it back")
    certificate.mkdir()
    key.touch()
    refused(folder, r"ca\.crt cannot be read: it is a folder")


def test_what_stands_where_something_new_belongs(tmp_path: Path) -> None:
    make_federation(tmp_path, 3)
    for what in (tmp_path / "sites/site4", tmp_path / "sites/site3"):
        what.mkdir()
        refused(tmp_path, rf"{what} is there, and nothing is overwritten; move it away")
    (tmp_path / "enrolment.toml").rename(tmp_path / "moved")
    refused(tmp_path, r"sites/site0 is there, and nothing is overwritten")
    (tmp_path / "enrolment.toml").write_text("x = 1\n")
    refused(tmp_path, r"enrolment .*enrolment\.toml: schema must be")


def test_keys_that_cannot_be_enrolled(tmp_path: Path) -> None:
    folder, keys = tmp_path / "federation", publics(tmp_path, 3)
    small = (1).to_bytes(32, "little").hex()
    enrol(folder, keys[:2])
    before = contents(folder)
    for given, says in (
        ([], "no public identity key to enrol"),
        ([keys[2], keys[0].upper()], "public key 2 is that of client 0 already"),
        ([keys[2], keys[2]], "public key 2 is the same as 1; give it once"),
        ([keys[2], "abc"], "public key 2 is no public identity key"),
        ([small], "identity key of client 2 has small order"),
    ):
        with pytest.raises(ConfigError, match=says):
            enrol(folder, given)
    for client in (-1, 2):
        with pytest.raises(ConfigError, match=rf"client {client} is not enrolled in .*, whose clients are 0 to 1"):
            revoke(folder, client)
    assert contents(folder) == before
    with pytest.raises(ConfigError, match=r"enrolment .* cannot be read: No such file"):
        revoke(tmp_path / "nowhere", 0)
    assert not (tmp_path / "nowhere").exists()


def test_a_disk_that_fills_at_any_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write in its turn, and each rename, is the one that fails."""
    folder = tmp_path / "federation"
    make_federation(folder, 2)
    before = contents(folder)
    write, rename = os.write, os.rename
    left = 0

    def counted(real):  # type: ignore[no-untyped-def]
        def call(*given):  # type: ignore[no-untyped-def]
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given)

        return call

    monkeypatch.setattr(durable.os, "write", counted(write))
    monkeypatch.setattr(change.os, "rename", counted(rename))
    says = (
        f"{folder} cannot be written: No space left on device; nothing was changed, make room or choose another folder"
    )
    for place in range(17):  # seven files a site, two renames, the enrolment
        left = place
        with pytest.raises(ConfigError, match=f"^{re.escape(says)}$"):
            make_federation(folder, 4)
        assert contents(folder) == before
        assert not (folder / ".new").exists()
        assert sorted(os.listdir(folder / "sites")) == ["site0", "site1"]
    left = 17
    make_federation(folder, 4)
    assert left == 0
    assert read_enrolment(folder / "enrolment.toml").clients == 4
    for place in (0, 16, 21, 22):  # the first file, the first and the last rename, the enrolment
        left = place
        with pytest.raises(ConfigError, match="No space left on device"):
            make_federation(tmp_path / "new", 2)
        assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(ConfigError, match=r"cannot be written: (File exists|Not a directory); nothing was changed"):
            make_federation(folder, 2)


def test_leftovers_of_a_process_that_was_killed_are_in_nobodys_way(tmp_path: Path) -> None:
    make_federation(tmp_path, 2)
    (tmp_path / ".new").mkdir()
    (tmp_path / ".new" / "0").write_text("half")
    (tmp_path / ".enrolment.toml.tmp").write_text("half")
    make_federation(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == [".lock", "certs", "enrolment.toml", "sites"]


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_federation(tmp_path, 2)

    def held(path: Path) -> int:
        raise BlockingIOError

    monkeypatch.setattr(change, "lock", held)
    with pytest.raises(ConfigError, match="is being changed by another process; wait for it to end"):
        make_federation(tmp_path, 3)


def test_no_secret_is_in_what_is_returned(tmp_path: Path) -> None:
    made = make_federation(tmp_path, 2)
    for name, data in contents(tmp_path).items():
        if name.endswith(SECRET):
            for line in data.decode().splitlines()[1:-1] or [data.decode().splitlines()[1]]:
                assert line not in repr(made)
