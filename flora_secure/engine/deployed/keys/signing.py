"""The server's signing key: the Ed25519 secret that signs receipts, in a file that stays at the server.

Its public half, in hex, is `signing.pub`: the coordinator hands it to the sites with their certificates, so that a
server cannot give each of them a key of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from flora_protocols import identity_public
from flora_secure.boundary.foreign import read_text
from flora_secure.engine.deployed.keys.identity import new_identity, public_key_of
from flora_secure.engine.deployed.keys.secret_file import read_secret, secret_text
from flora_secure.errors import ConfigError, ForeignError, first_line, require
from flora_secure.records.durable import PRIVATE, create_file
from flora_secure.records.receipts.head import Signer

NAME, PUBLIC_NAME = "signing.key", "signing.pub"
_HEAD = "flora-secure/signing/1 secret, stays at the server"
_MOST = 1 << 10


def signing_pair() -> tuple[bytes, bytes]:
    """A fresh signing key: what `signing.key` and what `signing.pub` hold."""
    secret = new_identity()
    return secret_text(_HEAD, secret), _public_text(secret)


def _public_text(secret: bytes) -> bytes:
    return f"{identity_public(secret).hex()}\n".encode()


def read_signing(path: Path) -> Signer:
    """The key in a file. Raises ConfigError, which never holds any of the file, as `secret_file.read_secret`."""
    return Signer(read_secret(path, _HEAD, "signing key", "take it from a copy"), lasting=True)


def new_signer() -> Signer:
    """A key for one run, which no file holds."""
    return Signer(new_identity(), lasting=False)


def signer_in(path: Path, log: Callable[[str], None]) -> Signer:
    """The key in the file at `path`, made where there is none, with its public half beside it, which `log` is told.
    Raises ConfigError for one that cannot be read or made."""
    if not os.path.lexists(path):
        secret, public = signing_pair()
        beside = path.with_suffix(".pub")
        require(beside != path, f"signing key {path} has the name of a public half: name it signing.key, say")
        require(not os.path.lexists(beside), f"{beside} is there without {path}; bring that back, or move it away")
        try:
            create_file(path, secret, mode=PRIVATE)
            create_file(beside, public)
        except (OSError, ValueError) as error:
            raise ConfigError(f"signing key {path} cannot be written: {first_line(error)}") from None
        log(f"made {path}; give {beside} to sites and auditors by a way on which nobody can change it")
    signer = read_signing(path)
    log(f"receipts are signed by {signer.public} ({path})")
    return signer


def server_signer(folder: Path, log: Callable[[str], None], certificates: Path | None = None) -> Signer:
    """The server's key: from `certificates`, or from `certs/` in its folder or beside it, where the coordinator has
    made one, else its own in the folder. As `signer_in`."""
    places = [folder / "certs", folder.parent / "certs", folder]
    if certificates is not None:
        places.insert(0, certificates)
    found = next((place for place in places if os.path.lexists(place / NAME)), folder)
    return signer_in(found / NAME, log)


def read_public(folder: Path) -> str | None:
    """The server's public key, hex, as a site was given it in `signing.pub`; None where it was not. Raises ConfigError
    for a file that holds none."""
    path = folder / PUBLIC_NAME
    if not os.path.lexists(path):
        return None
    try:
        text = read_text(path, _MOST)
    except ForeignError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return public_key_of(text.removesuffix("\n"), str(path)).hex()
