"""Openings and requests: their parts come back whole, and what is cut, over-long or something else is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flora_protocols import Code, PeerError
from flora_secure.rounds.opening import (
    OPENING_BYTES,
    REQUEST_BYTES,
    decode_opening,
    decode_request,
    encode_opening,
    encode_request,
    is_opening,
    is_request,
)

FORMS = pytest.mark.parametrize(
    ("encode", "decode", "head"),
    [(encode_opening, decode_opening, b"fO"), (encode_request, decode_request, b"fR")],
    ids=["opening", "request"],
)


def refused(decode, data: bytes) -> Code:
    with pytest.raises(PeerError) as caught:
        decode(data)
    assert caught.value.culprit == "server"
    return caught.value.code


@FORMS
@given(first=st.binary(max_size=40), second=st.binary(max_size=40))
def test_both_parts_come_back(encode, decode, head, first, second) -> None:
    message = encode(first, second)
    assert decode(message) == (first, second)
    assert len(message) - len(first) - len(second) == OPENING_BYTES == REQUEST_BYTES
    assert message[:2] == head
    assert (is_opening(message), is_request(message)) == (head == b"fO", head == b"fR")


@FORMS
def test_what_is_cut_anywhere_before_its_second_part_is_refused(encode, decode, head) -> None:
    message = encode(b"the first part", b"the second")
    for length in range(len(message) - len(b"the second")):
        assert refused(decode, message[:length]) is Code.NOT_A_MESSAGE


@FORMS
def test_a_first_part_that_claims_more_than_came_is_refused_and_not_looked_for(encode, decode, head) -> None:
    for claimed in (6, 1 << 16, (1 << 32) - 1):
        assert refused(decode, head + struct.pack("<I", claimed) + b"short") is Code.NOT_A_MESSAGE


@FORMS
def test_another_message_is_none_of_these(encode, decode, head) -> None:
    other = encode_request if encode is encode_opening else encode_opening
    for wrong in (b"", head[:1], head.lower() + encode(b"a", b"b")[2:], b"fS\x02\x01" + bytes(40), other(b"a", b"b")):
        assert refused(decode, wrong) is Code.NOT_A_MESSAGE
