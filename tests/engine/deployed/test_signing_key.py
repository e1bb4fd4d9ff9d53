"""The server's signing key: made once, found where the coordinator puts it, read strictly, told to nobody."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from flora_secure.engine.deployed.keys.credentials import enrol, make_federation
from flora_secure.engine.deployed.keys.identity import identity_text, make_identity
from flora_secure.engine.deployed.keys.signing import new_signer, read_public, read_signing, server_signer, signer_in
from flora_secure.errors import ConfigError


def test_a_server_without_a_key_makes_one_and_keeps_it(tmp_path: Path) -> None:
    told: list[str] = []
    signer = server_signer(tmp_path, told.append)
    assert signer.lasting
    assert read_public(tmp_path) == signer.public
    assert stat.S_IMODE((tmp_path / "signing.key").stat().st_mode) == 0o600
    assert server_signer(tmp_path, told.append) == signer
    made, named, again = told
    assert "made" in made
    assert named == again == f"receipts are signed by {signer.public} ({tmp_path / 'signing.key'})"
    assert signer.secret.hex() not in "".join(told) + repr(signer)


def test_a_key_does_not_take_the_name_of_its_public_half(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"signing\.pub has the name of a public half"):
        signer_in(tmp_path / "signing.pub", print)
    assert not list(tmp_path.iterdir())


def test_the_coordinators_key_is_found_and_the_sites_have_its_public_half(tmp_path: Path) -> None:
    make_federation(tmp_path, 2)
    (tmp_path / "server").mkdir()
    key = read_signing(tmp_path / "certs" / "signing.key")
    for folder in (tmp_path, tmp_path / "server"):
        assert server_signer(folder, print) == key
    elsewhere = Path(shutil.copytree(tmp_path / "certs", tmp_path.parent / f"{tmp_path.name}-certs"))
    (tmp_path / "server" / "alone").mkdir()
    assert server_signer(tmp_path / "server" / "alone", print, elsewhere) == key
    assert [read_public(tmp_path / "sites" / f"site{n}") for n in range(2)] == [key.public] * 2
    enrol(tmp_path, [make_identity(tmp_path / "own").hex()])
    assert read_public(tmp_path / "sites" / "site2") == key.public
    make_federation(tmp_path, 4)  # does not make another one
    assert read_public(tmp_path / "sites" / "site3") == key.public


def test_folders_of_older_releases_have_none_and_get_one(tmp_path: Path) -> None:
    make_federation(tmp_path, 2)
    for name in ("signing.key", "signing.pub"):
        (tmp_path / "certs" / name).unlink()
    enrol(tmp_path, [make_identity(tmp_path / "own").hex()])
    assert read_public(tmp_path / "sites" / "site2") is None
    make_federation(tmp_path, 4)
    public = read_signing(tmp_path / "certs" / "signing.key").public
    assert read_public(tmp_path / "sites" / "site3") == read_public(tmp_path / "certs") == public


def test_keys_of_one_run_differ_and_do_not_last() -> None:
    first, second = new_signer(), new_signer()
    assert first.public != second.public
    assert not first.lasting


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_damaged_and_foreign_keys_are_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    secret = new_signer().secret
    path.write_bytes(identity_text(secret))  # a site's identity key is no signing key
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="is damaged, or no signing key; take it from a copy") as error:
        signer_in(path, print)
    assert path.read_text().splitlines()[1] not in str(error.value)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by others"):
        signer_in(path, print)
    path.unlink()
    (tmp_path / "signing.pub").write_text("rubbish\n")
    with pytest.raises(ConfigError, match=r"signing.pub is there without .*signing.key; bring that back"):
        signer_in(path, print)
    with pytest.raises(ConfigError, match=r"signing.pub is no public"):
        read_public(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        signer_in(tmp_path / "missing" / "signing.key", print)
