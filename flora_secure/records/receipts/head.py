"""The signed head of a run: what its server's key stands for, in a fixed number of bytes.

    label · key 32 · lasting u8 · session 16 · size u64 · root 32 · report 32 · adapter 32 · time, ASCII

All of it is public. Ed25519 (RFC 8032).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flora_protocols import MisuseError, check_identities, identity_public
from flora_secure.errors import PlainError

_LABEL, _SALT = b"flora-secure receipt 1\0", b"flora-secure receipt salt 1\0"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MOST_SIZE = 1 << 32  # leaves


def require_hex(key: str, text: str, length: int) -> None:
    """Raises `PlainError` that names the key unless the text is so many bytes in lower-case hex."""
    if re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text) is None:
        raise PlainError(f"{key} must have {2 * length} hex digits, got {text!r:.80}")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What is signed of a run that has ended; hashes and names are hex.

    Attributes:
        key: the Ed25519 public key that signs.
        lasting: whether the key is one that its owner keeps from run to run, or was made for this run and is gone.
        session: the 16 bytes by which server and clients call the run.
        size: leaves of the tree, config.toml and every line of rounds.jsonl.
        root: of the tree.
        report: of report.json, blinded as the leaves are.
        adapter: SHA-256 of the trained adapter's weights.
        time: of the signing, UTC, by the signer's own clock.
    """

    key: str
    lasting: bool
    session: str
    size: int
    root: str
    report: str
    adapter: str
    time: str

    def __post_init__(self) -> None:
        """Raises `PlainError` that names the first key whose value cannot be."""
        for key in ("key", "root", "report", "adapter"):
            require_hex(key, getattr(self, key), 32)
        require_hex("session", self.session, 16)
        try:
            check_identities((bytes.fromhex(self.key),))
        except MisuseError:
            raise PlainError("key is no Ed25519 public key that anybody could have alone") from None
        if not 1 <= self.size <= _MOST_SIZE:
            raise PlainError(f"size must be 1 to {_MOST_SIZE:,}, got {self.size}")
        try:
            same = datetime.strptime(self.time, _TIME).strftime(_TIME) == self.time
        except ValueError:
            same = False
        if not same or len(self.time) != 20:
            raise PlainError(f"time must look like 2026-01-31T09:00:00Z, got {self.time!r:.60}")

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over."""
        key, session, *hashes = (
            bytes.fromhex(text) for text in (self.key, self.session, self.root, self.report, self.adapter)
        )
        numbers = bytes([self.lasting]) + session + struct.pack("<Q", self.size)
        return _LABEL + key + numbers + b"".join(hashes) + self.time.encode("ascii")

    def signed_by(self, signature: str) -> bool:
        """Whether this is a signature, in hex, of this head by its key."""
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key)).verify(bytes.fromhex(signature), self.signed)
        except (InvalidSignature, ValueError):
            return False
        return True

    def contradicts(self, other: Head) -> bool:
        """Whether both cannot be of the one run that they name: an honest key signs a run once."""
        mine, theirs = ((head.size, head.root, head.report, head.adapter) for head in (self, other))
        return (self.key, self.session) == (other.key, other.session) and mine != theirs


@dataclass(frozen=True)
class Signer:
    """An Ed25519 secret key of 32 bytes, and whether it lasts: see `Head`."""

    secret: bytes = field(repr=False)
    lasting: bool

    @property
    def public(self) -> str:
        """The public key, hex."""
        return identity_public(self.secret).hex()

    def salt(self, session: bytes) -> bytes:
        """What a run's leaves are blinded with, 32 bytes: the same each time that the run is signed."""
        return hmac.digest(self.secret, _SALT + session, "sha256")

    def sign(self, head: Head) -> str:
        """The signature of a head of this key, 64 bytes in hex."""
        assert head.key == self.public
        return Ed25519PrivateKey.from_private_bytes(self.secret).sign(head.signed).hex()


def blinded(salt: bytes, place: int, data: bytes) -> bytes:
    """An entry of the tree: whoever knows its hash and not the salt can confirm no guess of the data."""
    return hashlib.sha256(salt + struct.pack("<Q", place)).digest() + data


def now() -> str:
    """The time of this machine's clock as a head has it."""
    return datetime.now(UTC).strftime(_TIME)
