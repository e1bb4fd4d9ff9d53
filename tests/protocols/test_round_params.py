"""Parameters of a round, and the sets of clients that they speak of."""

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from attacker import body_of
from cohorts import MODEL, hybrid, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import Bitmap, MisuseError, ParameterError, RoundParams
from flora_protocols.round_params import start_bytes

SESSION = bytes(range(32))


def a_round(**changes):
    given = {"slot": 0, "round": 1, "model_hash": MODEL, "invited": Bitmap.of(4, range(4))}
    return RoundParams(**given | changes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"slot": -1}, "slot is -1; between 0 and 1023"),
        ({"slot": 1024}, "slot is 1024"),
        ({"slot": 10**5000}, "slot is int beyond printing"),
        ({"round": -1}, "round is -1; between 0 and 18446744073709551615"),
        ({"round": 2**64}, "round is 18446744073709551616"),
    ],
)
def test_numbers_out_of_range(change, text):
    with pytest.raises(ParameterError, match=text):
        a_round(**change)


@pytest.mark.parametrize("name", ["slot", "round"])
@pytest.mark.parametrize("value", ["1", 1.0, 2.5, float("nan"), None, True, np.True_, [1], b"s3cret" * 6])
def test_numbers_of_the_wrong_type(name, value):
    with pytest.raises(MisuseError, match=f"{name} must be an int, not ") as caught:
        a_round(**{name: value})
    assert not isinstance(caught.value, ParameterError)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_hash": b""}, "model_hash must be 32 bytes, such as a SHA-256, not 0 bytes"),
        ({"model_hash": bytes(33)}, "not 33 bytes"),
        ({"model_hash": "ab" * 16}, "model_hash must be 32 bytes, such as a SHA-256, not 'abab"),
        ({"model_hash": bytearray(32)}, "not 32 bytes"),
        ({"model_hash": None}, "not None"),
        ({"invited": range(4)}, "invited must be a Bitmap, not range; use Bitmap.of"),
        ({"invited": b"\x0f"}, "invited must be a Bitmap, not bytes; use Bitmap.of"),
        ({"invited": None}, "invited must be a Bitmap, not NoneType"),
    ],
)
def test_other_fields_of_the_wrong_type(change, text):
    with pytest.raises(MisuseError, match=text) as caught:
        a_round(**change)
    assert not isinstance(caught.value, ParameterError)


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.int32])
def test_numpy_integers_are_ints(kind):
    start = a_round(slot=kind(3), round=kind(7))
    assert (type(start.slot), type(start.round)) == (int, int)
    assert start == a_round(slot=3, round=7)
    invited = Bitmap.of(4, [kind(1), kind(3)])
    assert invited == Bitmap.of(4, (1, 3))


def test_the_layout_of_a_start():
    params = semi_honest(11, threshold=3, slots=600)
    start = a_round(slot=517, round=2**64 - 2, invited=Bitmap.of(11, (0, 3, 10)))
    body = struct.pack("<HQ", 517, 2**64 - 2) + MODEL + b"\x09\x04"
    message = start.to_bytes(params, SESSION)
    assert body_of(message) == body
    assert message[:13] == b"fS\2\1\7" + SESSION[:8]
    assert len(message) == start_bytes(params) == 17 + 42 + 2
    assert RoundParams.from_bytes(params, SESSION, message) == start
    assert start.id(params, SESSION) == hashlib.sha256(b"flora-secure/2 round\0" + SESSION + body).digest()


@settings(max_examples=100)
@given(st.data())
def test_there_and_back(data):
    clients, slots = data.draw(st.integers(3, 300)), data.draw(st.integers(1, 1024))
    params = data.draw(st.sampled_from([semi_honest, hybrid]))(clients, threshold=2, slots=slots)
    start = RoundParams(
        slot=data.draw(st.integers(0, slots - 1)),
        round=data.draw(st.integers(0, 2**64 - 1)),
        model_hash=data.draw(st.binary(min_size=32, max_size=32)),
        invited=Bitmap.of(clients, data.draw(st.sets(st.integers(0, clients - 1)))),
    )
    message = start.to_bytes(params, SESSION)
    assert RoundParams.from_bytes(params, SESSION, message) == start
    assert RoundParams.from_bytes(params, SESSION, message).to_bytes(params, SESSION) == message


def test_the_round_id_binds_everything():
    params, start = semi_honest(slots=3), a_round()
    ids = [start.id(params, SESSION), start.id(params, SESSION[::-1])]
    for change in (
        {"slot": 1},
        {"round": 2},
        {"model_hash": bytes(32)},
        {"invited": Bitmap.of(4, range(3))},
    ):
        ids.append(replace(start, **change).id(params, SESSION))
    assert len(set(ids)) == 6
    assert start.id(params, SESSION) == ids[0]  # kept, and the right one


def test_what_does_not_fit_the_session_has_no_id():
    params = semi_honest(slots=2)
    for bad in (a_round(slot=2), a_round(invited=Bitmap.of(9, range(4))), a_round(invited=Bitmap(b"\x1f"))):
        assert not bad.fits(params)
        for act in (lambda bad=bad: bad.id(params, SESSION), lambda bad=bad: bad.to_bytes(params, SESSION)):
            with pytest.raises(ParameterError, match="do not fit a session of 2 slots and 4 clients"):
                act()
    assert a_round(slot=1).fits(params)


# Sets of clients


def test_a_bitmap_of_its_members():
    assert Bitmap.of(11, ()).raw == b"\0\0"
    assert Bitmap.of(11, iter((10, 0, 0))).raw == b"\1\4"
    assert Bitmap.of(8, range(8)).raw == b"\xff"
    bitmap = Bitmap.of(11, {3, 9})
    assert (list(bitmap), len(bitmap), 3 in bitmap, 4 in bitmap) == ([3, 9], 2, True, False)
    assert repr(bitmap) == "<Bitmap of 2>"
    assert {bitmap, Bitmap.of(11, (9, 3))} == {bitmap}
    assert bitmap != {3, 9}


@pytest.mark.parametrize("member", [-1, 4, 2**70])
def test_members_beyond_the_cohort(member):
    with pytest.raises(ParameterError, match=r"a client's index is -?[0-9]+; between 0 and 3"):
        Bitmap.of(4, (0, member))


@pytest.mark.parametrize("member", ["0", 1.0, None, True, b"0"])
def test_members_of_the_wrong_type(member):
    with pytest.raises(MisuseError, match="a client's index must be an int, not ") as caught:
        Bitmap.of(4, (member,))
    assert not isinstance(caught.value, ParameterError)
