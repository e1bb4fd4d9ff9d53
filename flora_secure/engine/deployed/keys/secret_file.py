"""A file of two lines that holds a secret: what it is, and 32 bytes in base64."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from flora_secure.boundary.foreign import read_text
from flora_secure.errors import ConfigError, ForeignError

SECRET_BYTES = 32
_MOST = 1 << 10


def secret_text(head: str, secret: bytes) -> bytes:
    """What the file of a secret of 32 bytes holds, under a line that says what it is. It is as secret as that."""
    return f"{head}\n{base64.b64encode(secret).decode()}\n".encode()


def read_secret(path: Path, head: str, what: str, remedy: str) -> bytes:
    """The secret of 32 bytes in a file. `what`: how errors call it; `remedy`: what to do where it is damaged.

    Raises ConfigError, which never holds any of the file, for one that others may read, and for one that is not as
    `secret_text` writes it.
    """
    try:
        text = read_text(path, _MOST)
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None
    except ForeignError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}") from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"{what} {path} may be read by others (mode {mode:04o}); chmod 600 it")
    found, _, rest = text.partition("\n")
    try:
        secret = base64.b64decode(rest.removesuffix("\n"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if found != head or len(secret) != SECRET_BYTES or text.encode() != secret_text(head, secret):
        raise ConfigError(f"{path} is damaged, or no {what}; {remedy}")
    return secret
