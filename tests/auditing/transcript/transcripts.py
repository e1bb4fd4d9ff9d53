"""Transcripts to audit, and how one who keeps them falsifies them: checksums, hashes and chain mended."""

import hashlib
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from falsifying import chained, read

from flora_protocols import Direction, Trip
from flora_protocols.codec import CHECKSUM, HEADER, checksum
from flora_secure.auditing.findings import OK, VIOLATION, Block
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.transcript.checks import block
from flora_secure.records.reading import read_unverified
from flora_secure.records.transcript.reading import Recorded, Sent, path_of, read_transcript

Sents = list[Sent]
Change = Callable[[Sents], None]  # in place


def audited(folder: Path) -> Block:
    run, breaks = read_unverified(folder)
    return block(Case(folder, run.config, run.records, run.report, breaks))


def violations(folder: Path) -> dict[str, str]:
    return {f.check: f.evidence for f in audited(folder).findings if f.severity == VIOLATION}


def unclean(folder: Path) -> dict[str, str]:
    """Every finding that is not ok, but for the sums that no run here keeps."""
    return {f.check: f.evidence for f in audited(folder).findings if f.severity != OK and f.check != "T-11"}


def recorded(folder: Path, number: int) -> Recorded:
    return read_transcript(path_of(folder / "transcript", number))


def serialised(found: Recorded) -> bytes:
    """The format, written down a second time."""
    parts = [b"flora-secure transcript 1\n", bytes([found.around])]
    identities = found.enrolment.identities
    parts += [struct.pack("<II", found.enrolment.clients, len(identities)), *identities]
    parts += [struct.pack("<I", len(found.invitation)), found.invitation]
    for one in found.sent:
        way = int(one.direction is Direction.UP)
        places = struct.pack(f"<{len(one.positions)}I", *one.positions)
        parts += [struct.pack("<BBI", one.trip, way, len(one.positions)), places]
        parts += [struct.pack("<I", len(one.message)), one.message]
    return b"".join(parts) + b"\xff" * found.complete


def put(folder: Path, number: int, data: bytes) -> None:
    """Another transcript of that round, with hash and chain mended."""
    path_of(folder / "transcript", number).write_bytes(data)
    lines, report = read(folder)
    lines[number - 1]["transcript_hash"] = hashlib.sha256(data).hexdigest()
    chained(folder, lines, report)


def tampered(source: Path, target: Path, changes: dict[int, Change]) -> Path:
    """A copy of the run whose transcripts of these rounds are changed."""
    shutil.copytree(source, target)
    for number, change in changes.items():
        found = recorded(target, number)
        sent = list(found.sent)
        change(sent)
        put(target, number, serialised(replace(found, sent=sent)))
    return target


def mended(message: bytes) -> bytes:
    """The frame with the checksum that belongs to it."""
    frame = message[:-CHECKSUM]
    return frame + checksum(frame)


def flipped(message: bytes, at: int) -> bytes:
    """One bit of the body changed, the checksum mended."""
    raw = bytearray(message)
    raw[HEADER + at] ^= 1
    return mended(bytes(raw))


def up(sent: Sents, trip: Trip, nth: int = 0) -> int:
    """Where the nth reply of a trip stands."""
    return [at for at, one in enumerate(sent) if one.trip is trip and one.direction is Direction.UP][nth]


def down(sent: Sents, trip: Trip, nth: int = 0) -> int:
    """Where the nth message of a trip to clients stands."""
    return [at for at, one in enumerate(sent) if one.trip is trip and one.direction is Direction.DOWN][nth]


def renamed(message: bytes, scope: bytes) -> bytes:
    """The frame in another session or round, the checksum mended."""
    return mended(message[: HEADER - 8] + scope[:8] + message[HEADER:])


def body_of(message: bytes) -> bytes:
    return message[HEADER:-CHECKSUM]


def with_body(message: bytes, body: bytes) -> bytes:
    """The frame with another body, the checksum mended."""
    frame = message[:HEADER] + body
    return frame + checksum(frame)
