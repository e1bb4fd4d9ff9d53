"""Broadcasts: one encoding each, in the sizes that were counted on, and nothing of a hostile one is computed with."""

import dataclasses
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import Code, PeerError, pack
from flora_secure.rounds.broadcast import Broadcast, Form, FullState, Layout
from flora_secure.rounds.optimiser import MomentumAverage, ServerState
from flora_secure.rounds.step import ReleasedSum

LAYOUT = Layout(dimension=13, length=21, bits=11)
OPTIMISER = MomentumAverage(0.3, 0.5)
VALUES = np.linspace(-1.1, 2.3, 13)
ZEROS = np.zeros(13)


def released(number: int, **changes) -> ReleasedSum:
    rng = np.random.default_rng(number)
    packed = pack(rng.integers(0, 1 << 11, 21).astype(np.uint16), 11)
    given = {"round": number, "clip_norm": 0.15, "scale": 90.5, "contributions": 10.0, "packed": packed}
    return ReleasedSum(**{**given, **changes})


def start(adapter=VALUES, momentum=ZEROS, optimiser=OPTIMISER) -> FullState:
    return FullState(ServerState(adapter, momentum), optimiser)


HALF = VALUES.astype(np.float16).astype(np.float64)
GOOD = {
    "sums": Broadcast(since=3, sums=(released(3), released(5))),
    "no sum": Broadcast(since=3),
    "half": Broadcast(since=1, start=start(HALF), sums=(released(4),)),
    "steady": Broadcast(since=6, start=start()),
    "moving": Broadcast(since=6, start=start(momentum=VALUES)),
    "adapter": Broadcast(since=6, adapter=HALF.astype("<f2").tobytes()),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_broadcast_is_read_back_and_as_long_as_counted_on(name) -> None:
    one = GOOD[name]
    data = one.to_bytes()
    found = Broadcast.from_bytes(data, LAYOUT, 6)
    assert len(data) == LAYOUT.size(one.form, len(one.sums))
    assert (found.since, found.sums, found.adapter, found.form) == (one.since, one.sums, one.adapter, one.form)
    if one.start is not None:
        assert found.start.optimiser == OPTIMISER
        for part in ("adapter", "momentum"):
            assert getattr(found.start.state, part).tobytes() == getattr(one.start.state, part).tobytes()


def test_a_state_takes_no_more_bytes_than_it_needs() -> None:
    sizes = [LAYOUT.size(form) for form in (Form.SUMS, Form.HALF, Form.STEADY, Form.MOVING, Form.ADAPTER)]
    assert sizes == [8, 24 + 2 * 13, 24 + 8 * 13, 24 + 16 * 13, 8 + 2 * 13]
    assert start(HALF).form is Form.HALF
    assert start(np.full(13, 1e9)).form is Form.STEADY  # beyond float16
    assert start(HALF, -ZEROS).form is Form.MOVING  # zeros of the other sign are other bytes


def refused(data: bytes, number: int = 6, layout: Layout = LAYOUT) -> Code:
    with pytest.raises(PeerError) as caught:
        Broadcast.from_bytes(data, layout, number)
    assert caught.value.culprit == "server"
    return caught.value.code


@pytest.mark.parametrize("name", GOOD)
def test_other_bytes_are_refused_with_a_code_that_may_be_told(name) -> None:
    data = GOOD[name].to_bytes()
    assert refused(b"") is refused(b"fO" + data[2:]) is Code.NOT_A_MESSAGE
    assert refused(data[:2] + b"\x02" + data[3:]) is Code.OTHER_VERSION
    assert refused(data[:3] + b"\x05" + data[4:]) is Code.BAD_BODY
    for length in {*range(3, 8), len(data) - 1}:
        assert refused(data[:length]) is Code.BAD_BODY
    assert refused(data + b"\0") is Code.BAD_BODY
    if len(data) > 8:
        assert refused(data, layout=Layout(14, 23, 11)) is not None  # of other values
    for since in (0, 7):
        assert refused(data[:4] + struct.pack("<I", since) + data[8:]) in {Code.PARAMETERS, Code.BAD_BODY}


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            Broadcast(since=3, sums=(released(3, **{name: value}),))
            for name in ("clip_norm", "scale", "contributions")
            for value in (0.0, -1.0, math.nan, math.inf)
        ),
        Broadcast(since=3, sums=(released(5), released(3))),
        Broadcast(since=3, sums=(released(4), released(4))),
        Broadcast(since=3, sums=(released(2),)),
        Broadcast(since=3, sums=(released(6),)),  # the round that it opens has no sum yet
        *(
            Broadcast(since=6, start=start(optimiser=MomentumAverage(*numbers)))
            for numbers in ((0.0, 0.5), (-1.0, 0.5), (math.nan, 0.5), (math.inf, 0.5), (1.0, 1.0), (1.0, -0.1))
        ),
        Broadcast(since=6, start=start(np.full(13, math.nan))),
        Broadcast(since=6, start=start(momentum=np.full(13, math.inf))),
        Broadcast(since=6, start=start(momentum=VALUES, optimiser=MomentumAverage(0.3, 0.0))),
        Broadcast(since=6, adapter=np.full(13, math.inf, "<f2").tobytes()),
        Broadcast(since=5, adapter=HALF.astype("<f2").tobytes()),
        Broadcast(since=6, adapter=HALF.astype("<f2").tobytes(), sums=(released(5),)),
    ],
)
def test_impossible_numbers_are_refused(wrong) -> None:
    assert refused(wrong.to_bytes()) in {Code.PARAMETERS, Code.BAD_BODY}


def test_what_could_be_said_shorter_is_refused() -> None:
    head, optimiser = b"fB\x01%c\x06\0\0\0", struct.pack("<dd", 0.3, 0.5)
    assert refused(head % 2 + optimiser + HALF.tobytes()) is Code.BAD_BODY
    assert refused(head % 3 + optimiser + VALUES.tobytes() + ZEROS.tobytes()) is Code.BAD_BODY
    odd = dataclasses.replace(released(3), packed=released(3).packed[:-1] + b"\xff")  # bits beyond the last value
    assert refused(Broadcast(since=3, sums=(odd,)).to_bytes()) is Code.BAD_BODY


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_bytes_are_refused_or_are_another_broadcast(data) -> None:
    """Never another error, and never two encodings of one broadcast."""
    encoded = bytearray(GOOD[data.draw(st.sampled_from(sorted(GOOD)))].to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(encoded[: data.draw(st.integers(0, len(encoded)))]) if data.draw(st.booleans()) else bytes(encoded)
    try:
        found = Broadcast.from_bytes(cut, LAYOUT, 6)
    except PeerError:
        return
    assert found.to_bytes() == cut
