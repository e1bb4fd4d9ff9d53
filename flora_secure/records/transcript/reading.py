"""The format of a round's messages, and reading them back."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from flora_protocols import Direction, Trip
from flora_protocols.params import MAX_CLIENTS
from flora_secure.boundary.foreign import read_bytes
from flora_secure.errors import ConfigError, ForeignError
from flora_secure.rounds.enrolment import Enrolment

MAGIC = b"flora-secure transcript 1\n"
HEAD, COUNT, RECORD = struct.Struct("<BII"), struct.Struct("<I"), struct.Struct("<BBI")
END = b"\xff"
DIRECTIONS = (Direction.DOWN, Direction.UP)
MOST_TRANSCRIPT = 1 << 31  # bytes of one round that are read
_KEY = 32
_MOST_ENROLLED = 1 << 24


@dataclass(frozen=True, repr=False)
class Sent:
    """One message: its trip, which way it went, between the server and the clients at which `positions`. One of no
    bytes to clients says whom the server has asked to begin."""

    trip: Trip
    direction: Direction
    positions: tuple[int, ...]
    message: bytes


@dataclass(frozen=True, repr=False)
class Recorded:
    """A round's transcript as it was read.

    Attributes:
        around: bytes that frame each reply on its way.
        enrolment: of the federation, as the transcript has it.
        invitation: the bytes of the invitation in its long form.
        sent: the messages in their order.
        complete: whether the file has its end.
        hash: SHA-256 of the file, hex.
    """

    around: int
    enrolment: Enrolment
    invitation: bytes
    sent: list[Sent]
    complete: bool
    hash: str


def path_of(folder: Path, number: int) -> Path:
    """The file of round `number` in the folder of transcripts."""
    return folder / f"round-{number:05d}.bin"


def read_transcript(path: Path, most: int = MOST_TRANSCRIPT) -> Recorded:
    """The transcript in a file, which may be cut short after a whole record or in one. Raises ForeignError for what is
    no transcript."""
    data = read_bytes(path, most)
    view = memoryview(data)
    if not data.startswith(MAGIC):
        raise ForeignError("it is no transcript of this release: it begins with other bytes")
    at = len(MAGIC)
    try:
        around, clients, count = HEAD.unpack_from(data, at)
        at += HEAD.size
        if count not in (0, clients) or not 2 <= clients <= _MOST_ENROLLED:
            raise ForeignError(f"it says {count} identity keys of {clients} clients")
        if len(data) < at + _KEY * count:
            raise ForeignError("it is cut short in its head")
        identities = tuple(bytes(view[place : place + _KEY]) for place in range(at, at + _KEY * count, _KEY))
        at += _KEY * count
        (size,) = COUNT.unpack_from(data, at)
        at += COUNT.size
        invitation = bytes(view[at : at + size])
        at += size
        enrolment = Enrolment(clients=clients, identities=identities)
    except struct.error:
        raise ForeignError("it is cut short in its head") from None
    except ConfigError as error:
        raise ForeignError(f"its enrolment cannot be: {error}") from None
    if len(invitation) != size:
        raise ForeignError("it is cut short in its head")
    sent, complete = _records(view, at)
    return Recorded(around, enrolment, invitation, sent, complete, hashlib.sha256(data).hexdigest())


def _records(view: memoryview, at: int) -> tuple[list[Sent], bool]:
    """The records from there on, and whether the end follows them."""
    sent: list[Sent] = []
    try:
        while True:
            if view[at : at + 1] == END:
                if len(view) > at + 1:
                    raise ForeignError(f"{len(view) - at - 1:,} bytes follow its end")
                return sent, True
            trip, direction, count = RECORD.unpack_from(view, at)
            at += RECORD.size
            if trip > max(Trip) or direction > 1 or not 1 <= count <= MAX_CLIENTS:
                raise ForeignError(f"record {len(sent) + 1} is of no trip, direction or number of clients that is")
            positions = struct.unpack_from(f"<{count}I", view, at)
            at += 4 * count
            (size,) = COUNT.unpack_from(view, at)
            at += COUNT.size
            if len(view) < at + size:
                return sent, False
            sent.append(Sent(Trip(trip), DIRECTIONS[direction], positions, bytes(view[at : at + size])))
            at += size
    except struct.error:
        return sent, False
