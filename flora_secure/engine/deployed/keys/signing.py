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
from flora_secure.errors import ConfigError, ForeignError
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


def server_signer(folder: Path, log: Callable[[str], None]) -> Signer:
    """The server's key: from `certs/` in its folder or beside it, where the coordinator has made one, else its own in
    the folder, which is made the first time. `log` is told its public key. Raises ConfigError for one that cannot be
    read or made."""
    places = (folder / "certs" / NAME, folder.parent / "certs" / NAME, folder / NAME)
    path = next((place for place in places if os.path.lexists(place)), None)
    if path is None:
        path = folder / NAME
        secret, public = signing_pair()
        try:
            create_file(path, secret, mode=PRIVATE)
            create_file(folder / PUBLIC_NAME, public)
        except OSError as error:
            raise ConfigError(f"signing key {path} cannot be written: {error.strerror}") from None
        log(f"made {path}; give {folder / PUBLIC_NAME} to all sites and auditors by a way that is not the server's")
    signer = read_signing(path)
    log(f"receipts are signed by {signer.public} ({path})")
    return signer


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
