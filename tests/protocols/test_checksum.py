"""The checksum of a frame sees what was changed in it, and what has changed places in it."""

import os
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flora_protocols import Code, PeerError, Suite
from flora_protocols.codec import CHECKSUM, HEADER, Kind, decode_frame, encode_frame, encode_long_frame

ROW, BLOCK, CHUNK = 4084, 4096, 1 << 16


def frame_of(body):
    return encode_frame(Kind.UPLOAD, Suite.X25519, bytes(32), body)


def body_of(size):
    return np.random.default_rng(size).bytes(size)


def unseen(message, body):
    """Whether `body` passes in the place of that of `message`, whose checksum is left as it is."""
    bad = message[:HEADER] + bytes(body) + message[-CHECKSUM:]
    try:
        return decode_frame(bad, Kind.UPLOAD, Suite.X25519, bytes(32), 1, len(body)).take(len(body)) == body
    except PeerError as error:
        return error.code is not Code.NOT_A_MESSAGE


def cut(body, size):
    return [body[at : at + size] for at in range(0, len(body), size)]


def test_two_chunks_that_changed_places():
    """64 KiB each, as transports cut them: half of a vector would be wrong and nobody would notice."""
    body = body_of(400_000)
    chunks = cut(body, CHUNK)
    for one in range(len(chunks) - 1):
        for other in range(one + 1, len(chunks) - 1):
            moved = [*chunks]
            moved[one], moved[other] = moved[other], moved[one]
            assert not unseen(frame_of(body), b"".join(moved))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([64, 512, 1460, ROW, BLOCK, 16_384]), st.integers(2, 12), st.integers(0, 20), st.data())
@example(BLOCK, 4, 0, None)
def test_pieces_in_another_order(size, count, more, data):
    """Any order of pieces of any size, the frame's own rows and blocks of 4096 bytes among them."""
    body = body_of(size * count + more)
    pieces = cut(body, size)
    order = [1, 0, *range(2, count)] if data is None else data.draw(st.permutations(range(count)))
    moved = b"".join([*(pieces[place] for place in order), *pieces[count:]])
    assert unseen(frame_of(body), moved) == (list(order) == list(range(count)))


@pytest.mark.parametrize("size", [ROW, BLOCK, CHUNK])
@pytest.mark.parametrize("first", [0, 3])
def test_turned_doubled_and_dropped_pieces(size, first):
    pieces = cut(body_of(6 * size), size)
    message = frame_of(b"".join(pieces))
    assert unseen(message, b"".join(pieces))
    assert not unseen(message, b"".join([*pieces[1:], pieces[0]]))
    assert not unseen(message, b"".join(pieces[::-1]))
    doubled = [*pieces]
    doubled[first + 1] = doubled[first]  # one came twice, and the next not at all
    assert not unseen(message, b"".join(doubled))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5 * ROW), st.integers(0, 31), st.sampled_from([0, 1, 255]))
def test_any_bit_of_any_body(at, bit, fill):
    """Of bodies of one byte, too, where sums would have it easy: an error within one word is always seen."""
    body = bytearray([fill]) * (5 * ROW + 77)
    message = frame_of(bytes(body))
    body[at + bit // 8] ^= 1 << bit % 8
    assert not unseen(message, bytes(body))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bursts_of_errors(data):
    """32 bits in a row, wherever they are, in the header and in the checksum, too."""
    size = data.draw(st.sampled_from([ROW - HEADER, ROW - HEADER + 1, 2 * ROW - HEADER, 5 * ROW + 77]))
    message = frame_of(body_of(size))
    at = data.draw(st.integers(0, len(message) - 4))
    burst = data.draw(st.binary(min_size=4, max_size=4).filter(any))
    bad = bytearray(message)
    for place, error in enumerate(burst, at):
        bad[place] ^= error
    with pytest.raises(PeerError):
        decode_frame(bytes(bad), Kind.UPLOAD, Suite.X25519, bytes(32), 1, size)


def test_zeros_that_are_moved():
    """A sparse body: one byte in the place of another a whole number of rows or blocks away."""
    for step in (ROW, BLOCK, CHUNK):
        body = bytearray(3 * CHUNK)
        body[5] = 128
        message = frame_of(bytes(body))
        body[5], body[5 + step] = 0, 128
        assert not unseen(message, bytes(body))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3 * ROW), min_size=1, max_size=6))
def test_in_parts_it_is_the_same(sizes):
    body = body_of(sum(sizes))
    ends = np.cumsum(sizes).tolist()
    parts = [np.frombuffer(body[end - size : end], np.uint8) for size, end in zip(sizes, ends, strict=True)]
    assert encode_long_frame(Kind.UPLOAD, Suite.X25519, bytes(32), parts) == frame_of(body)


def test_short_frames_have_the_plain_crc():
    message = frame_of(os.urandom(ROW - HEADER))
    assert message[-CHECKSUM:] == zlib.crc32(message[:-CHECKSUM]).to_bytes(4, "little")
