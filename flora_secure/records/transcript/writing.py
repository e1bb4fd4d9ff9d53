"""Writing the messages of a round down while it is run."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flora_protocols import Direction, Exchange, Replies, Trip
from flora_secure.errors import ConfigError
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, begin_file, end_file
from flora_secure.records.transcript.reading import COUNT, DIRECTIONS, END, HEAD, MAGIC, RECORD, path_of
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation


@dataclass(frozen=True)
class Transcript:
    """Where the messages of a run's rounds are written: the folder, of mode 0700 once there is a round."""

    folder: Path

    def begin(self, invitation: Invitation, enrolment: Enrolment, around: int) -> RoundTranscript:
        """The transcript of the round of `invitation`, instead of one that a killed run has left. `around`: bytes that
        frame each reply on its way. Raises ConfigError where the folder cannot be written."""
        identities = enrolment.identities
        said = invitation.to_bytes(enrolment)
        head = [MAGIC, HEAD.pack(around, enrolment.clients, len(identities)), *identities]
        with self._writing():
            self.folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
            path = path_of(self.folder, invitation.round)
            return RoundTranscript(self, path, b"".join((*head, COUNT.pack(len(said)), said)))

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
            self._write(END)
            end_file(self._path, self._stream)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Let go of a file that has come to no end."""
        with self._transcript._writing():
            self._stream.close()

    def _take(self, trip: Trip, direction: Direction, positions: Sequence[int], message: bytes) -> None:
        head = RECORD.pack(trip, DIRECTIONS.index(direction), len(positions))
        places = struct.pack(f"<{len(positions)}I", *positions)
        with self._transcript._writing():
            self._write(head + places + COUNT.pack(len(message)))
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
