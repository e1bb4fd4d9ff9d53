"""`enrolment.toml` comes from others: every file is an enrolment in one way, or one line that names the entry."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from flora_protocols import identity_public
from flora_secure.engine.deployed.keys.enrolment_file import (
    enrolment_of,
    enrolment_text,
    fingerprint,
    read_enrolment,
    write_enrolment,
)
from flora_secure.errors import ConfigError
from flora_secure.rounds.enrolment import Enrolment

KEYS = tuple(identity_public(bytes([place]) * 32) for place in range(1, 5))
ENROLMENT = Enrolment(clients=4, identities=KEYS, revoked=frozenset({3, 1}))
HEX = [key.hex() for key in KEYS]


def text_of(identities: object = HEX, revoked: object = (), schema: str = "flora-secure/enrolment/1") -> str:
    return f'schema = "{schema}"\nidentities = {list(identities)!r}\nrevoked = {list(revoked)!r}\n'  # type: ignore[call-overload]


def test_what_is_written_is_read_and_always_the_same(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.toml"
    write_enrolment(path, ENROLMENT)
    assert read_enrolment(path) == ENROLMENT
    assert path.read_text() == enrolment_text(ENROLMENT)
    more = tuple(identity_public(bytes([place]) * 32) for place in range(1, 18))
    unsorted = enrolment_text(Enrolment(clients=17, identities=more, revoked=frozenset([16, 8, 1])))
    assert unsorted.endswith("\nrevoked = [1, 8, 16]\n")  # a set has them in another order
    assert path.read_text().splitlines()[2:] == [
        'schema = "flora-secure/enrolment/1"',
        "identities = [",
        *(f'    "{key}",  # client {client}' for client, key in enumerate(HEX)),
        "]",
        "revoked = [1, 3]",
    ]
    assert stat.S_IMODE(path.stat().st_mode) & ~0o644 == 0
    assert enrolment_of(text_of(revoked=[3, 1])) == ENROLMENT


def test_a_large_federation_fits(tmp_path: Path) -> None:
    count = 1 << 16
    keys = tuple((place << 3 | 2).to_bytes(32, "little") for place in range(count))
    enrolment = Enrolment(clients=count, identities=keys, revoked=frozenset(range(count)))
    write_enrolment(tmp_path / "enrolment.toml", enrolment)
    assert read_enrolment(tmp_path / "enrolment.toml") == enrolment


def test_an_enrolment_without_keys_cannot_be_said() -> None:
    with pytest.raises(ConfigError, match="this enrolment has none"):
        enrolment_text(Enrolment(clients=4))


SMALL = (1).to_bytes(32, "little").hex()
LARGE = (2**255 - 19 + 3).to_bytes(32, "little").hex()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "schema must be 'flora-secure/enrolment/1', got None"),
        (text_of(schema="flora-secure/enrolment/2"), "got 'flora-secure/enrolment/2'"),
        (text_of() + "extra = 1\n", "unknown key 'extra'"),
        (text_of() + "[clients]\n", "unknown key 'clients'"),
        (text_of().replace("revoked = []\n", ""), "key 'revoked' is missing"),
        (text_of() + "revoked = []\n", "not TOML"),
        (text_of()[:-5], "not TOML"),
        (text_of(HEX[:1]), "at least 2 clients, got 1"),
        (text_of([]), "at least 2 clients, got 0"),
        (text_of([HEX[0], HEX[1], HEX[0]]), "identities[2] is the same key as identities[0]"),
        (text_of([HEX[0], HEX[1].upper(), HEX[1]]), "identities[2] is the same key as identities[1]"),
        (
            text_of([HEX[0], HEX[1][:-1]]),
            "identities[1] is no public identity key: that has 64 hex digits, and this 63",
        ),
        (text_of([HEX[0], "g" * 64]), "identities[1] is no public identity key"),
        (text_of([HEX[0], 5]), "identities[1] must be of type str, got 5"),
        (text_of([HEX[0], SMALL]), "identity key of client 1 has small order"),
        (text_of([LARGE, HEX[0]]), "identity key of client 0 is not canonically encoded"),
        (text_of(revoked=[0, 4]), "revoked[1] is 4, and the clients are 0 to 3"),
        (text_of(revoked=[-1]), "revoked[0] is -1"),
        (text_of(revoked=[2, 2]), "revoked[1] is 2, which is there already"),
        (text_of().replace("[]", "[true]"), "revoked[0] must be of type int, got True"),
        (text_of().replace("[]", "[1.0]"), "revoked[0] must be of type int"),
        (text_of().replace("[]", "1"), "revoked must be of type list"),
        (text_of().replace("[]", "[" + "9" * 5000 + "]"), "too many digits"),
        (text_of().replace("[]", "[" * 5000 + "]" * 5000), "nested too deeply"),
        (text_of() + '"\\u001b[2J" = 1\n', "unknown key '\\x1b[2J'"),
        (text_of(["x"] * 70_000), "identities has 70,000 keys, and 65,536 are the most"),
    ],
)
def test_any_other_file_is_one_line_that_names_it(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "enrolment.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_enrolment(path)
    line = str(caught.value)
    assert line.startswith(f"enrolment {path}")
    assert says in line
    assert line.isprintable()
    assert len(line) < 400


def test_what_is_no_text_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.toml"
    for data in (b"\xff\xfe\x00", b"\x1f\x8b\x08", b" " * (16 << 20) + b"x", b"a = '\xe9'"):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"enrolment .*enrolment\.toml cannot be read: it "):
            read_enrolment(path)
    for place in (tmp_path, Path("/dev/zero"), tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_enrolment(place)


def test_a_secret_in_the_list_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.toml"
    secret = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
    path.write_text(text_of([HEX[0], secret]))
    with pytest.raises(ConfigError) as caught:
        read_enrolment(path)
    assert secret[:10] not in str(caught.value)


def test_the_fingerprint_tells_every_difference() -> None:
    others = [
        ENROLMENT,
        Enrolment(clients=4, identities=KEYS),
        Enrolment(clients=4, identities=KEYS, revoked=frozenset({3})),
        Enrolment(clients=4, identities=(KEYS[1], KEYS[0], *KEYS[2:])),
        Enrolment(clients=3, identities=KEYS[:3]),
    ]
    shown = {fingerprint(one) for one in others}
    assert len(shown) == len(others)
    digits = fingerprint(ENROLMENT)
    assert [len(group) for group in digits.split(" ")] == [4] * 10
    assert bytes.fromhex(digits) == ENROLMENT.digest[:20]
    assert fingerprint(enrolment_of(enrolment_text(ENROLMENT))) == digits
