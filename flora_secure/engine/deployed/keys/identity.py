"""A client's identity key: the Ed25519 secret that it signs with in the protocol, in a file that stays at its site.

The file has two lines, what it is and the 32 secret bytes in base64. Public keys are written in hex everywhere, so that
the one is never taken for the other: a secret that is pasted where a public key belongs is refused, and not repeated.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from flora_protocols import identity_public
from flora_secure.engine.deployed.keys.secret_file import SECRET_BYTES, read_secret, secret_text
from flora_secure.errors import ConfigError
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, create_file

NAME = "identity.key"
_HEAD = "flora-secure/identity/1 secret, stays at its site"
_PUBLIC = re.compile(r"[0-9a-fA-F]{64}")


def new_identity() -> bytes:
    """A fresh Ed25519 secret key of 32 bytes, from the operating system's randomness."""
    return os.urandom(SECRET_BYTES)


def identity_text(identity: bytes) -> bytes:
    """What the file of a secret key of 32 bytes holds. It is as secret as the key."""
    return secret_text(_HEAD, identity)


def make_identity(folder: Path) -> bytes:
    """Make `identity.key` in a site's folder, of mode 0600, and give its public key of 32 bytes.

    The folder is made, of mode 0700, where it is missing. Raises ConfigError where a key is there already, which is
    never overwritten, and where it cannot be written.
    """
    path, identity = folder / NAME, new_identity()
    try:
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        create_file(path, identity_text(identity), mode=PRIVATE)
    except FileExistsError:
        if not os.path.lexists(path):
            raise ConfigError(f"{folder} is no folder; name the folder of the site") from None
        public = identity_public(read_identity(path)).hex()
        raise ConfigError(
            f"{path} is there and is not overwritten; its public key is {public}; choose another folder for a new key"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another folder") from None
    return identity_public(identity)


def read_identity(path: Path) -> bytes:
    """The secret key of 32 bytes in an identity file.

    Raises ConfigError, which never holds any of the file, for one that others may read, and for one that is not as
    `identity_text` writes it.
    """
    return read_secret(path, _HEAD, "identity key", "take it from a copy, or enrol a new one")


def public_key_of(text: str, where: str) -> bytes:
    """The 32 bytes of a public key in hex. `where`: what an error calls it, which does not show the text: it may be a
    secret by mistake. Raises ConfigError for other text."""
    if not _PUBLIC.fullmatch(text):
        raise ConfigError(f"{where} is no public identity key: that has 64 hex digits, and this {len(text)} characters")
    return bytes.fromhex(text)
