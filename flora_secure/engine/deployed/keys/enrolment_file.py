"""`enrolment.toml`: who may take part in a federation, as a file that everybody gets and nobody takes from the server.

Its list of public identity keys is in the order of the clients' numbers, which count from 0, as everywhere else: site0
is client 0, with the certificate of client-0, and the first key of the list. One number needs no sum in anybody's head
when a record, a refusal and a folder speak of the same site.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flora_secure.boundary.foreign import read_text, toml_of
from flora_secure.engine.deployed.keys.identity import public_key_of
from flora_secure.errors import ConfigError, ForeignError, InputError, require
from flora_secure.plain import from_plain
from flora_secure.records.durable import replace_file
from flora_secure.rounds.enrolment import Enrolment

NAME = "enrolment.toml"
SCHEMA = "flora-secure/enrolment/1"
MOST_CLIENTS = 1 << 16  # that the masking protocol can have
_MOST = 16 << 20  # bytes; so many clients take 6 MB as we write them
_FINGERPRINT = 20  # bytes


@dataclass(frozen=True)
class _Table:
    """What the file holds."""

    schema: str
    identities: list[str]
    revoked: list[int]


def enrolment_text(enrolment: Enrolment) -> str:
    """The file of an enrolment; the same enrolment has the same text.

    Raises ConfigError for an enrolment without identity keys, which this file cannot say.
    """
    require(bool(enrolment.identities), "an enrolment file holds everybody's identity key, and this enrolment has none")
    lines = [
        "# Who may take part. Get this file from the coordinator, not from the server, and compare its fingerprint by",
        "# telephone. A client's number is its place in the list, from 0; nobody is ever taken out of it.",
        f'schema = "{SCHEMA}"',
        "identities = [",
        *(f'    "{key.hex()}",  # client {client}' for client, key in enumerate(enrolment.identities)),
        "]",
        f"revoked = [{', '.join(map(str, sorted(enrolment.revoked)))}]",
    ]
    return "\n".join(lines) + "\n"


def enrolment_of(text: str) -> Enrolment:
    """The enrolment that a text says, read strictly; numbers of revoked clients may stand in any order.

    Raises ForeignError for what is no TOML, and an InputError that names the entry, and not the file, for unknown and
    missing keys, another schema, keys that are none, of small order, not canonical, or there twice, and for revoked
    numbers that are there twice or that nobody has.
    """
    plain = toml_of(text)
    said = plain.get("schema")
    require(said == SCHEMA, f"schema must be {SCHEMA!r}, got {said!r:.60}")
    table = from_plain(_Table, plain)
    count = len(table.identities)
    require(count <= MOST_CLIENTS, f"identities has {count:,} keys, and {MOST_CLIENTS:,} are the most")
    keys: dict[bytes, int] = {}
    for place, entry in enumerate(table.identities):
        key = public_key_of(entry, f"identities[{place}]")
        require(key not in keys, f"identities[{place}] is the same key as identities[{keys.get(key)}]")
        keys[key] = place
    seen: set[int] = set()
    for place, client in enumerate(table.revoked):
        require(0 <= client < count, f"revoked[{place}] is {client}, and the clients are 0 to {count - 1}")
        require(client not in seen, f"revoked[{place}] is {client}, which is there already")
        seen.add(client)
    return Enrolment(clients=count, identities=tuple(keys), revoked=frozenset(seen))


def read_enrolment(path: Path) -> Enrolment:
    """The enrolment in a file. Raises ConfigError, as `enrolment_of` with the file named, and where it cannot be
    read."""
    try:
        return enrolment_of(read_text(path, _MOST))
    except ForeignError as error:
        raise ConfigError(f"enrolment {path} cannot be read: {error}") from None
    except InputError as error:
        raise ConfigError(f"enrolment {path}: {error}") from None


def write_enrolment(path: Path, enrolment: Enrolment) -> None:
    """Replace the file at `path`, whole; it is on disk when this returns. It is public. Raises OSError."""
    replace_file(path, enrolment_text(enrolment).encode(), mode=0o644)


def fingerprint(enrolment: Enrolment) -> str:
    """Ten groups of four hex digits by which two people compare enrolments over the telephone.

    They are the first 160 bits of the SHA-256 of number, order and keys of the clients and who is revoked. Fewer would
    not do: whoever hands out the files may search for two of one fingerprint, which takes the root of all trials.
    """
    digits = enrolment.digest[:_FINGERPRINT].hex()
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))
