"""Packing against big integers; masks against AES in its plainest mode and against published answers."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from flora_protocols import MisuseError, ParameterError, SessionParams, keystream, ring, round_messages
from flora_protocols.codec import Kind, encode_frame

KEYS = [bytes([value]) * 32 for value in range(7)]


@given(st.integers(8, 32), st.data())
def test_packing_is_a_little_endian_bit_string(bits, data):
    values = data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=40))
    number = sum(value << (at * bits) for at, value in enumerate(values))
    expected = number.to_bytes((len(values) * bits + 7) // 8, "little")
    assert ring.pack(np.array(values, ring.lane(bits)), bits) == expected
    assert ring.unpack(expected, len(values), bits).tolist() == values


@pytest.mark.parametrize("bits", [9, 12, 15, 23, 31])
def test_packing_reduces_and_unpacking_refuses_padding(bits):
    full = np.full(1, -1 % (1 << (8 * ring.lane(bits).itemsize)), ring.lane(bits))
    packed = ring.pack(full, bits)
    assert int.from_bytes(packed, "little") == (1 << bits) - 1
    if bits % 8:
        assert ring.unpack(packed[:-1] + b"\xff", 1, bits) is None


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(4, np.int64),
        np.zeros(4, np.float32),
        [0, 0, 0, 0],
        np.zeros(3, np.uint32),
        np.zeros((4, 1), np.uint32),
        np.array([0, 512, 0, 0], np.uint32),
    ],
)
def test_vectors_that_are_refused(bad):
    with pytest.raises(MisuseError):
        ring.to_lanes(bad, 4, 9)


def test_the_vector_is_copied_not_masked_in_place():
    vector = np.zeros(4, np.uint32)
    ring.to_lanes(vector, 4, 32)[0] = 1
    assert not vector.any()


def test_headroom_states_the_numbers_and_three_ways_out():
    ring.require_headroom(clients=100, bound=81, bits=14)
    with pytest.raises(ParameterError, match=r"8200.*8192.*bits >= 15.*<= 81.*at most 99"):
        ring.require_headroom(clients=100, bound=82, bits=14)


@pytest.mark.parametrize("bits", [7, 33, 0, -8])
def test_bits_beyond_the_ring(bits):
    for call in (
        lambda: ring.lane(bits),
        lambda: ring.pack(np.zeros(1, np.uint32), bits),
        lambda: ring.unpack(bytes(8), 2, bits),
        lambda: ring.require_headroom(2, 1, bits),
    ):
        with pytest.raises(ParameterError, match=f"bits is {bits}; between 8 and 32"):
            call()


def test_misused_packing():
    with pytest.raises(MisuseError, match="values of 9 bits have dtype uint16, not uint32; see lane"):
        ring.pack(np.zeros(1, np.uint32), 9)
    with pytest.raises(MisuseError, match="5 bytes; 3 values of 9 bits are 4"):
        ring.unpack(bytes(5), 3, 9)


@pytest.mark.parametrize("bad", [float("nan"), 1.5, "1", True])
def test_a_bound_that_is_no_whole_number(bad):
    with pytest.raises(MisuseError, match="bound must be an int"):
        ring.require_headroom(clients=10, bound=bad, bits=16)
    with pytest.raises(ParameterError, match="bound is -1"):
        ring.require_headroom(clients=10, bound=-1, bits=16)


def by_hand(key, size):
    """The stream as the module's header words it, from AES on single blocks."""
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    out = b""
    for tile in range((size - 1) // keystream.TILE + 1):
        length = min(keystream.TILE, size - tile * keystream.TILE)
        counters = (tile.to_bytes(12, "big") + (2 + at).to_bytes(4, "big") for at in range((length + 15) // 16))
        out += aes.update(b"".join(counters))[:length]
    return out


def mask(key, dimension, bits):
    values = np.zeros(dimension, ring.lane(bits))
    keystream.apply_masks(values, [key], [])
    return values


def test_published_answer():
    """The GCM specification's test case 14: key, nonce and plaintext zero. That is the first block of our tile 0."""
    assert mask(bytes(32), 16, 8).tobytes().hex() == "cea7403d4d606b6e074ec5d3baf39d18"


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("size", [1, 3, 2560, 1 << 13, (1 << 13) + 1, 1 << 17, (1 << 17) + 5, 300_001])
def test_stream_at_every_length(size, bits):
    values = mask(KEYS[5], size, bits)
    assert values.tobytes() == by_hand(KEYS[5], values.nbytes)


@pytest.mark.parametrize("size", [1, 16, 100, 32_768])
def test_both_ways_to_make_the_stream_agree(size):
    streams = []
    for way in (keystream._by_ctr, keystream._by_gcm):
        out = memoryview(bytearray(size + 16))
        way(KEYS[3])(bytes(11) + b"\7", keystream._ZEROS[:size], None, out)
        streams.append(bytes(out[:size]))
    assert streams[0] == streams[1]


@pytest.mark.parametrize("dimension", [10, 140_000])
def test_masks_add_and_subtract(dimension):
    values = np.arange(dimension, dtype=np.uint32)
    expected = values.copy()
    for key in KEYS[:4]:
        expected += mask(key, dimension, 32)
    for key in KEYS[4:]:
        expected -= mask(key, dimension, 32)
    keystream.apply_masks(values, KEYS[:4], KEYS[4:])
    assert (values == expected).all()


@pytest.mark.parametrize("bits", [8, 11, 16, 21, 32])
@pytest.mark.parametrize("dimension", [1, 10, 140_001])
def test_a_tile_at_a_time_gives_the_same(bits, dimension):
    """Also in the bytes of the upload, where every tile is packed and folded by itself."""
    vector = np.random.default_rng(bits).integers(0, 1 << bits, dimension, np.uint32)
    kept = vector.copy()
    expected = ring.to_lanes(vector, dimension, bits)
    keystream.apply_masks(expected, KEYS[:4], KEYS[4:])
    params = SessionParams(clients=5, neighbours=4, threshold=3, bits=bits, dimension=dimension)
    tiles = keystream.masked_tiles(vector, ring.lane(bits), KEYS[:4], KEYS[4:])
    found = round_messages.encode_upload(params, bytes(32), tiles, range(5), (1, 4))
    assert found == encode_frame(Kind.UPLOAD, params.suite, bytes(32), ring.pack(expected, bits) + b"\x12")
    values, unopened = round_messages.decode_upload(params, bytes(32), found, 1)
    assert (ring.from_lanes(values, bits) == ring.from_lanes(expected, bits)).all()
    assert unopened == (1, 4)
    assert (vector == kept).all()


def test_more_streams_than_are_open_at_once(monkeypatch):
    expected = np.zeros(100, np.uint16)
    keystream.apply_masks(expected, KEYS, KEYS[:2])
    monkeypatch.setattr(keystream, "_GROUP", 3)
    values = np.zeros(100, np.uint16)
    keystream.apply_masks(values, KEYS, KEYS[:2])
    assert (values == expected).all()
