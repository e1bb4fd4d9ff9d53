"""Who may take part in a federation: given to everybody out of band, never taken from a server.

A client's number is its place in the enrolment. The identity keys are Ed25519 public keys, with which the protocol's
malicious-server profile checks who advertised a key and who agreed on the survivors; the semi-honest profile has none.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from flora_protocols import MisuseError, check_identities
from flora_secure.errors import ConfigError, require

_LABEL = b"flora-secure enrolment 1\0"


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """The clients of a federation, in their order.

    Attributes:
        clients: how many there are; they are called 0 .. clients - 1.
        identities: everybody's Ed25519 public key of 32 bytes, by number; empty in the semi-honest profile.
        revoked: numbers of clients that must not be invited any more. They keep their place.

    Raises ConfigError for keys that are none or of small order, that occur twice or are not one a client, and for
    numbers that nobody has.
    """

    clients: int
    identities: tuple[bytes, ...] = ()
    revoked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        require(self.clients >= 2, f"an enrolment has at least 2 clients, got {self.clients}")
        require(
            len(self.identities) in (0, self.clients),
            f"{len(self.identities)} identity keys for {self.clients} clients; give one each, or none",
        )
        try:
            check_identities(self.identities)
        except MisuseError as error:
            raise ConfigError(str(error)) from None
        strangers = [client for client in self.revoked if not 0 <= client < self.clients]
        require(not strangers, f"revoked client {strangers[:1]} is not among the {self.clients} that are enrolled")

    @property
    def digest(self) -> bytes:
        """32 bytes that bind number, order and keys of the clients, and who is revoked."""
        numbers = struct.pack("<II", self.clients, len(self.identities))
        revoked = b"".join(struct.pack("<I", client) for client in sorted(self.revoked))
        return hashlib.sha256(_LABEL + numbers + b"".join(self.identities) + revoked).digest()

    def identities_of(self, members: Iterable[int]) -> tuple[bytes, ...]:
        """The identity keys of `members`, in their order; empty where nobody has one."""
        return tuple(self.identities[member] for member in members) if self.identities else ()

    def number_of(self, identity: bytes) -> int:
        """The number of the client with this public key. Raises ConfigError where it is not enrolled, or is revoked."""
        if identity not in self.identities:
            raise ConfigError("this identity key is not enrolled; hand its public key to whoever keeps the enrolment")
        client = self.identities.index(identity)
        require(client not in self.revoked, f"client {client} is revoked")
        return client
