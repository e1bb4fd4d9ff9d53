"""What goes over a connection, byte by byte: a greeting each way, then parcels.

    greeting   "flora-tls" · u16 version; the client's first, then the server's
    parcel     u8 kind · u64 number · u64 length · `length` bytes; integers are big-endian

| kind | from | number | bytes |
|---|---|---|---|
| REQUEST | server | the request's, used once | a message |
| REPLY | client | that of the request | a message |
| BEAT | both | 0 | none |
| DISMISSAL | server | why, a `Dismissal` | none |

A request that is sent again has the number that it had, and a reply whose number is not that of the request in hand is
left out: so late replies are told apart. Anything else is a breach, and ends the connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

MOST_BYTES = 1 << 31  # of one message
VERSION = 1
_MARK = b"flora-tls"
_GREETING = struct.Struct(f">{len(_MARK)}sH")
_HEADER = struct.Struct(">BQQ")
GREETING = _GREETING.pack(_MARK, VERSION)
HEADER_BYTES = _HEADER.size


class BreachError(Exception):
    """The peer does not keep to the protocol, or keeps silent; `str(error)` is the reason, without any of its bytes."""


class Kind(IntEnum):
    """The kinds of parcels, by their byte."""

    REQUEST = 1
    REPLY = 2
    BEAT = 3
    DISMISSAL = 4


class Dismissal(IntEnum):
    """Why a server ends a connection for good: the client does not come back."""

    OVER = 1
    UNKNOWN = 2
    REVOKED = 3
    REPLACED = 4


@dataclass(frozen=True)
class Header:
    """The beginning of a parcel: its kind, its number and the length in bytes of what follows."""

    kind: Kind
    number: int
    length: int

    def to_bytes(self) -> bytes:
        """The `HEADER_BYTES` bytes that stand before the message."""
        return _HEADER.pack(self.kind, self.number, self.length)

    @classmethod
    def from_bytes(cls, raw: bytes, allowed: frozenset[Kind], most: int) -> Self:
        """The header in `HEADER_BYTES` bytes of a peer that may send the kinds `allowed`, and messages of at most
        `most` bytes. Raises BreachError for all others."""
        byte, number, length = _HEADER.unpack(raw)
        if byte not in allowed:
            raise BreachError(f"a parcel of kind {byte}, which it may not send")
        kind = Kind(byte)
        longest = most if kind in (Kind.REQUEST, Kind.REPLY) else 0
        if length > longest:
            raise BreachError(f"a {kind.name.lower()} of {length:,} bytes, and {longest:,} are the most")
        if (kind is Kind.BEAT and number) or (kind is Kind.DISMISSAL and number not in iter(Dismissal)):
            raise BreachError(f"a {kind.name.lower()} with the number {number}")
        return cls(kind, number, length)


FROM_SERVER = frozenset({Kind.REQUEST, Kind.BEAT, Kind.DISMISSAL})
FROM_CLIENT = frozenset({Kind.REPLY, Kind.BEAT})


def require_greeting(raw: bytes) -> None:
    """Raises BreachError unless `raw`, as many bytes as `GREETING` has, is the greeting of this version."""
    mark, version = _GREETING.unpack(raw)
    if mark != _MARK:
        raise BreachError("it does not speak this protocol")
    if version != VERSION:
        raise BreachError(
            f"it speaks version {version} of the protocol, and this is version {VERSION}: update the older"
        )
