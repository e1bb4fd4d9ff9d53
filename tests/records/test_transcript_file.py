"""The file of a round's messages: who may read it, what is left of one that was cut, and what is no transcript."""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from invitations import enrolment_of, invitation_of, secrets_of

from flora_protocols import Direction, Exchange, Trip
from flora_secure.errors import ConfigError, ForeignError
from flora_secure.privacy.calibration import calibrate
from flora_secure.records.transcript.reading import path_of, read_transcript
from flora_secure.records.transcript.writing import RoundTranscript, Transcript, recording

HEAD = b"flora-secure transcript 1\n"


@pytest.fixture(scope="module")
def plan():
    return calibrate(clients=4, dimension=50, rounds=2, epsilon=4.0, delta=1e-3, clip_norm=1.0, dropout_tolerance=0.3)


def kept(folder: Path, plan) -> tuple[str, Path]:
    """The hash and the file of a round of two trips, whose clients answer twice."""
    enrolment = enrolment_of(4, secrets_of(4))
    with recording(Transcript(folder), invitation_of(plan, enrolment), enrolment, around=3) as record:
        assert isinstance(record, RoundTranscript)

        def carry(exchange: Exchange) -> Iterator[tuple[int, bytes]]:
            yield from ((position, bytes([position]) * 3) for position in exchange.outbox)

        carried = record.carrying(carry)
        assert len(list(carried(Exchange(Trip.ADVERTISE, dict.fromkeys(range(4), b""))))) == 4
        told = {0: b"all", 1: b"all", 2: b"one", 3: b"all"}
        replies = carried(Exchange(Trip.SHARE, told))
        assert next(iter(replies)) == (0, b"\0\0\0")  # and nobody asks for more
        digest = record.end()
    return digest, path_of(folder, 1)


def test_messages_come_back_as_they_were_carried(tmp_path: Path, plan) -> None:
    digest, path = kept(tmp_path / "transcript", plan)
    found = read_transcript(path)
    assert digest == found.hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.complete, found.around, found.enrolment.clients) == (True, 3, 4)
    sent = [(one.trip, one.direction, one.positions, one.message) for one in found.sent]
    assert sent == [
        (Trip.ADVERTISE, Direction.DOWN, (0, 1, 2, 3), b""),
        *((Trip.ADVERTISE, Direction.UP, (position,), bytes([position]) * 3) for position in range(4)),
        (Trip.SHARE, Direction.DOWN, (0, 1), b"all"),
        (Trip.SHARE, Direction.DOWN, (2,), b"one"),
        (Trip.SHARE, Direction.DOWN, (3,), b"all"),
        (Trip.SHARE, Direction.UP, (0,), b"\0\0\0"),
    ]


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_nobody_else_may_read_it(tmp_path: Path, plan) -> None:
    before = os.umask(0)
    try:
        _, path = kept(tmp_path / "transcript", plan)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_round_that_is_run_again_takes_the_place_of_the_one_that_was_cut(tmp_path: Path, plan) -> None:
    (tmp_path / "transcript").mkdir()
    path_of(tmp_path / "transcript", 1).write_bytes(b"what a killed run has left" * 1000)
    _, path = kept(tmp_path / "transcript", plan)
    assert read_transcript(path).complete


def test_nothing_is_written_through_a_link(tmp_path: Path, plan) -> None:
    (tmp_path / "transcript").mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    path_of(tmp_path / "transcript", 1).symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match="cannot be written"):
        kept(tmp_path / "transcript", plan)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_every_beginning_of_a_transcript_is_read_as_what_it_is(tmp_path: Path, plan) -> None:
    _, path = kept(tmp_path / "transcript", plan)
    data, cut = path.read_bytes(), tmp_path / "cut"
    counts = []
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        try:
            found = read_transcript(cut)
        except ForeignError:
            assert not counts  # only the head must be whole
            continue
        assert not found.complete
        counts.append(len(found.sent))
    assert counts == sorted(counts)
    assert set(counts) == set(range(10))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "begins with other bytes"),
        (b"flora-secure transcript 2\n" + bytes(99), "begins with other bytes"),
        (HEAD + struct.pack("<BII", 0, 1, 0), "0 identity keys of 1 clients"),
        (HEAD + struct.pack("<BII", 0, 1 << 31, 0), "identity keys"),
        (HEAD + struct.pack("<BII", 0, 3, 2), "2 identity keys of 3"),
        (HEAD + struct.pack("<BII", 0, 3, 3) + bytes(100), "cannot be"),
        (HEAD + struct.pack("<BII", 0, 3, 3) + bytes(95), "cut short"),
        (HEAD + struct.pack("<BIII", 0, 3, 0, 1 << 31), "cut short"),
        (HEAD + struct.pack("<BIII", 0, 3, 0, 0) + b"\xff\0", "1 bytes follow"),
        (HEAD + struct.pack("<BIII", 0, 3, 0, 0) + struct.pack("<BBI", 9, 0, 1), "record 1"),
        (HEAD + struct.pack("<BIII", 0, 3, 0, 0) + struct.pack("<BBI", 1, 2, 1), "record 1"),
        (HEAD + struct.pack("<BIII", 0, 3, 0, 0) + struct.pack("<BBI", 1, 0, 1 << 31), "record 1"),
        (HEAD + struct.pack("<BIII", 0, 3, 0, 0) + struct.pack("<BBI", 1, 0, 0), "record 1"),
    ],
)
def test_what_is_no_transcript_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ForeignError, match=says):
        read_transcript(path)


def test_one_that_is_too_long_is_refused(tmp_path: Path, plan) -> None:
    _, path = kept(tmp_path / "transcript", plan)
    with pytest.raises(ForeignError, match="the most that are read"):
        read_transcript(path, most=100)
