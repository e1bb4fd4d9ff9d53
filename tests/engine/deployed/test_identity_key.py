"""A site's identity key: made once, readable by its owner alone, read strictly, and told to nobody."""

from __future__ import annotations

import base64
import errno
import os
import stat
from pathlib import Path

import pytest

from flora_protocols import identity_public
from flora_secure.engine.deployed.keys.identity import identity_text, make_identity, public_key_of, read_identity
from flora_secure.errors import ConfigError
from flora_secure.records import durable

SECRET = bytes(range(1, 33))


def written(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "identity.key"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_key_is_made_once(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public = make_identity(tmp_path / "new" / "site")
    finally:
        os.umask(before)
    path = tmp_path / "new" / "site" / "identity.key"
    assert identity_public(read_identity(path)) == public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    kept = path.read_bytes()
    with pytest.raises(ConfigError, match=f"is there and is not overwritten; its public key is {public.hex()}"):
        make_identity(path.parent)
    assert path.read_bytes() == kept
    assert os.listdir(path.parent) == ["identity.key"]
    assert make_identity(tmp_path / "other") != public


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "identity.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        make_identity(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_known_answer(tmp_path: Path) -> None:
    """RFC 8032, section 7.1, the first key."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    text = b"flora-secure/identity/1 secret, stays at its site\nnWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n"
    assert identity_text(secret) == text
    read = read_identity(written(tmp_path, text))
    assert identity_public(read).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert read_identity(written(tmp_path, text.replace(b"\n", b"\r\n"))) == secret  # as mail and Windows leave it


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=rf"may be read by others \(mode {mode:04o}\); chmod 600 it"):
        read_identity(written(tmp_path, identity_text(SECRET), mode))
    assert read_identity(written(tmp_path, identity_text(SECRET), 0o400)) == SECRET


def test_a_damaged_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    good = identity_text(SECRET)
    head, _, rest = good.partition(b"\n")
    shown = base64.b64encode(SECRET).decode()
    damaged = [
        b"",
        head,
        good[:-1],
        good[:-3],
        good + b"\n",
        b" " + good,
        head + b"\n " + rest,
        good.replace(b"/1 ", b"/2 "),
        head + b"\n" + SECRET.hex().encode() + b"\n",
        head + b"\n" + base64.b64encode(SECRET[:31]) + b"\n",
        head + b"\n" + base64.b64encode(SECRET + b"x") + b"\n",
        head + b"\n" + rest.replace(b"=\n", b"==\n"),
        head + b"\n" + rest.replace(b"A=\n", b"B=\n") if b"A=\n" in rest else head + b"\n" + rest[:-3] + b"Z=\n",
        b"\xff\xfe" + good,
        b"x" * 2000,
        good.replace(b"secret", b"secret\0"),
    ]
    for data in damaged:
        with pytest.raises(ConfigError) as caught:
            read_identity(written(tmp_path, data))
        line = str(caught.value)
        assert "identity.key" in line
        assert line.isprintable()
        assert not any(part in line for part in (shown[:12], SECRET.hex()[:16]))
    for path in (tmp_path / "nowhere", tmp_path, Path("/dev/null"), tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_identity(path)


def test_a_full_disk_leaves_no_key_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable.os, "write", full)
    with pytest.raises(ConfigError, match=r"identity\.key cannot be written: No space left on device"):
        make_identity(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "site"):
        with pytest.raises(ConfigError, match=r"is no folder|cannot be written: Not a directory"):
            make_identity(folder)


def test_a_secret_is_never_taken_for_a_public_key_and_not_shown() -> None:
    """Neither whole, as the file has it, nor its part, nor what else may be pasted."""
    for text in (identity_text(SECRET).decode(), base64.b64encode(SECRET).decode(), "", "zz" * 32, "ab" * 31, "٣" * 64):
        with pytest.raises(ConfigError) as caught:
            public_key_of(text, "public key 2")
        assert str(caught.value) == (
            f"public key 2 is no public identity key: that has 64 hex digits, and this {len(text)} characters"
        )
    assert public_key_of("AB" * 32, "public key 1") == b"\xab" * 32
