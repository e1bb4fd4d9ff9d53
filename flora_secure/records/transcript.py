"""The messages of a run's masking protocol as its server saw them: one file a round, `transcript/round-00001.bin`.

    "flora-secure transcript 1\\n" · around u8 · clients u32 · identity keys (count u32, 32 bytes each)
    · invitation (length u32, its long form)
    · records: trip u8 · direction u8 (0 to clients, 1 to the server) · positions (count u32, u32 each)
               · message (length u32, its bytes)
    · end u8 (255)

All numbers are little-endian. A message that goes to several clients stands there once, with the positions of all; one
of no bytes says who was asked to begin. `around`: bytes that frame each reply on its way, which the log counts. The
line of the round in the log has the file's SHA-256, so that a file without its end is of a round that was in flight
when the run was killed, or was cut afterwards.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flora_protocols import Direction, Exchange, Replies, Trip
from flora_protocols.params import MAX_CLIENTS
from flora_secure.boundary.foreign import read_bytes
from flora_secure.errors import ConfigError, ForeignError
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, begin_file, end_file
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation

_MAGIC = b"flora-secure transcript 1\n"
_HEAD, _COUNT, _RECORD = struct.Struct("<BII"), struct.Struct("<I"), struct.Struct("<BBI")
_KEY = 32
_END = b"\xff"
_DIRECTIONS = (Direction.DOWN, Direction.UP)
MOST_TRANSCRIPT = 1 << 31  # bytes of one round that are read
_MOST_ENROLLED = 1 << 24


@dataclass(frozen=True)
class Transcript:
    """Where the messages of a run's rounds are written: the folder, of mode 0700 once there is a round."""

    folder: Path

    def begin(self, invitation: Invitation, enrolment: Enrolment, around: int) -> RoundTranscript:
        """The transcript of the round of `invitation`, instead of one that a killed run has left. `around`: bytes that
        frame each reply on its way. Raises ConfigError where the folder cannot be written."""
        identities = enrolment.identities
        said = invitation.to_bytes(enrolment)
        head = [_MAGIC, _HEAD.pack(around, enrolment.clients, len(identities)), *identities]
        with self._writing():
            self.folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
            path = path_of(self.folder, invitation.round)
            return RoundTranscript(self, path, b"".join((*head, _COUNT.pack(len(said)), said)))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"`out` {self.folder} cannot be written: {reason}; choose another folder") from None


class RoundTranscript:
    """The transcript of a round that is being run."""

    def __init__(self, transcript: Transcript, path: Path, head: bytes) -> None:
        self._transcript, self._path, self._digest = transcript, path, hashlib.sha256()
        self._stream: BinaryIO = begin_file(path, mode=PRIVATE)
        self._write(head)

    def carrying(self, carry: Callable[[Exchange], Replies]) -> Callable[[Exchange], Replies]:
        """`carry`, as `flora_protocols.drive` takes it; each exchange is written down, and each reply as it comes."""

        def carried(exchange: Exchange) -> Iterator[tuple[int, bytes]]:
            for positions, message in _alike(exchange.outbox.items()):
                self._take(exchange.trip, Direction.DOWN, positions, message)
            for position, message in carry(exchange):
                self._take(exchange.trip, Direction.UP, (position,), message)
                yield position, message

        return carried

    def end(self) -> str:
        """SHA-256 of the file, hex; it is complete, and on disk. Raises ConfigError where it cannot be written."""
        with self._transcript._writing():
            self._write(_END)
            end_file(self._path, self._stream)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Let go of a file that has come to no end."""
        with self._transcript._writing():
            self._stream.close()

    def _take(self, trip: Trip, direction: Direction, positions: Sequence[int], message: bytes) -> None:
        head = _RECORD.pack(trip, _DIRECTIONS.index(direction), len(positions))
        places = struct.pack(f"<{len(positions)}I", *positions)
        with self._transcript._writing():
            self._write(head + places + _COUNT.pack(len(message)))
            self._write(message)

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._digest.update(data)


@contextmanager
def recording(
    transcript: Transcript | None, invitation: Invitation, enrolment: Enrolment, *, around: int
) -> Iterator[RoundTranscript | None]:
    """The transcript of a round, for the time of the block; None where none is kept."""
    if transcript is None:
        yield None
        return
    found = transcript.begin(invitation, enrolment, around)
    try:
        yield found
    finally:
        found.close()


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
    if not data.startswith(_MAGIC):
        raise ForeignError("it is no transcript of this release: it begins with other bytes")
    at = len(_MAGIC)
    try:
        around, clients, count = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if count not in (0, clients) or not 2 <= clients <= _MOST_ENROLLED:
            raise ForeignError(f"it says {count} identity keys of {clients} clients")
        if len(data) < at + _KEY * count:
            raise ForeignError("it is cut short in its head")
        identities = tuple(bytes(view[place : place + _KEY]) for place in range(at, at + _KEY * count, _KEY))
        at += _KEY * count
        (size,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
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
            if view[at : at + 1] == _END:
                if len(view) > at + 1:
                    raise ForeignError(f"{len(view) - at - 1:,} bytes follow its end")
                return sent, True
            trip, direction, count = _RECORD.unpack_from(view, at)
            at += _RECORD.size
            if trip > max(Trip) or direction > 1 or not 1 <= count <= MAX_CLIENTS:
                raise ForeignError(f"record {len(sent) + 1} is of no trip, direction or number of clients that is")
            positions = struct.unpack_from(f"<{count}I", view, at)
            at += 4 * count
            (size,) = _COUNT.unpack_from(view, at)
            at += _COUNT.size
            if len(view) < at + size:
                return sent, False
            sent.append(Sent(Trip(trip), _DIRECTIONS[direction], positions, bytes(view[at : at + size])))
            at += size
    except struct.error:
        return sent, False


def _alike(outbox: Iterable[tuple[int, bytes]]) -> Iterator[tuple[list[int], bytes]]:
    """Runs of clients that are sent the same."""
    positions: list[int] = []
    before = b""
    for position, message in outbox:
        if positions and message != before:
            yield positions, before
            positions = []
        positions.append(position)
        before = message
    if positions:
        yield positions, before
