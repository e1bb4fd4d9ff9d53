"""Complaints of boxes that do not open, true and false, and rounds that a server must not begin."""

import pytest
from attacker import at, body_of, closed, collected, others_send, reframed
from cohorts import Cohort, hybrid, semi_honest

from flora_protocols import (
    Bitmap,
    Code,
    MisuseError,
    ParameterError,
    PeerError,
    TooFewSurvivors,
    Trip,
    UnsoundShares,
    round_messages,
)
from flora_protocols.codec import encode_subset

# Complaints


def complaining(cohort, index, owners):
    """Client `index`'s upload, with complaints of these owners."""
    message = cohort.move_again(index)
    complaints = encode_subset(cohort.params.graph.members(index), owners)
    return reframed(message, body_of(message)[: -len(complaints)] + complaints)


def test_complaints_of_oneself_and_of_who_shared_nothing(cohort):
    """C-73: else a client could take shares away from clients that it has none of."""
    at(cohort.trip().trip(dropping={3}), Trip.MASK)
    for owners, who in (((0,), r"\[0\]"), ((3,), r"\[3\]"), ((0, 1, 3), r"\[0, 3\]")):
        with pytest.raises(PeerError, match=f"client 0: complains of the shares of {who}, who sent it none") as caught:
            cohort.server.receive(0, complaining(cohort, 0, owners))
        assert caught.value.code is Code.BAD_BODY
    assert cohort.prepared.complaints == {}
    cohort.finish()


def test_false_complaints_cost_holders_only():
    """As many as may be corrupt, of one client: it is not accused, the sum is right; one more, and it is."""
    for liars in (2, 3):
        cohort = at(Cohort(semi_honest(8, threshold=4, corrupt=2, slots=2)), Trip.MASK)
        for index in range(8):
            upload = complaining(cohort, index, (7,) if index < liars else ())
            client = collected(cohort, index)
            cohort.clients[index], _ = client.mask(cohort.start, cohort.vectors[index])
            if index < liars:
                del cohort.clients[index]._uploaded.held[7]  # it holds to its story
            cohort.server.receive(index, upload)
        cohort.server, cohort.mail = cohort.server.close()
        cohort.finish()
        accused = cohort.prepared.accused
        assert list(accused) == ([7] if liars > 2 else [])
        assert cohort.prepared.clients == tuple(range(8 - len(accused)))
        assert (7 in cohort.prepared.next_round(1, bytes(32)).invited) == (not accused)
        for error in accused.values():
            assert (error.culprit, error.code) == (7, Code.BAD_SHARE)


@pytest.mark.parametrize("make", [semi_honest, hybrid])
def test_rubbish_for_everybody_costs_the_dealer_its_place(make):
    """C-76. In the round of slot 0 it lacks holders, so that nobody is announced; slot 1 goes on without it."""
    cohort = at(Cohort(make(5, slots=2)), Trip.SHARE)
    client, message = cohort.move(4)
    body = body_of(message)
    boxes = 4 * 16 + 2 * 68  # all tags, and of the two that do not derive what is sealed
    cohort.server.receive(4, reframed(message, bytes(boxes) + body[boxes:]))
    cohort.clients[4] = client
    closed(others_send(cohort, 4)).send()
    with pytest.raises(TooFewSurvivors, match="holders of client 4's shares: 1 left, 3 needed"):
        cohort.server.close()
    assert {index: cohort.clients[index]._uploaded.left.unopened for index in range(5)} == {
        **{index: {4} for index in range(4)},
        4: set(),
    }
    assert list(cohort.prepared.accused) == [4]
    cohort.again()
    cohort.mail.pop(4, None)
    assert cohort.finish().survivors == (0, 1, 2, 3)


# Rounds that the server must not begin


def test_rounds_that_cannot_be_begun(cohort):
    """C-74, and what does not fit the session; the slots stay as they were."""
    at(cohort.trip().trip(dropping={3}), Trip.MASK)
    prepared, start = cohort.prepared, cohort.start
    with pytest.raises(MisuseError, match="slot 0 was used or passed over; the first that is left is 1 of 1") as caught:
        prepared.begin(start)
    assert caught.value.code is Code.SPENT
    with pytest.raises(MisuseError, match="all 1 slots are used; set up another session") as caught:
        prepared.next_round(2, bytes(32))
    assert caught.value.code is Code.SPENT
    prepared._next = 0
    first = prepared.next_round(2, bytes(32))
    assert list(first.invited) == [0, 1, 2]
    with pytest.raises(MisuseError, match=r"invites \[3\], who have not shared; see ServerPrepared.clients"):
        prepared.begin(prepared.next_round(2, bytes(32), range(4)))
    for wrong in (Bitmap.of(16, range(3)), Bitmap(b"\x17")):
        with pytest.raises(ParameterError, match="do not fit a session of 1 slots and 4 clients"):
            prepared.begin(type(first)(slot=0, round=2, model_hash=bytes(32), invited=wrong))
    with pytest.raises(ParameterError, match="slot 1 and a bitmap"):
        prepared.begin(type(first)(slot=1, round=2, model_hash=bytes(32), invited=first.invited))
    with pytest.raises(MisuseError, match="round must be RoundParams, not bytes"):
        prepared.begin(first.to_bytes(prepared.params, prepared.session))
    assert prepared.next_slot == 0
    assert prepared.begin(first).trip is Trip.MASK


def test_a_stranger_to_the_round(cohort):
    """C-62: who was not invited uploads nothing."""
    at(cohort, Trip.MASK)
    cohort.prepared._next = 0
    upload = cohort.move_again(3)
    cohort.begin(slot=0, invited=Bitmap.of(4, range(3)))
    with pytest.raises(PeerError, match="client 3: is not in trip MASK") as caught:
        cohort.server.receive(3, upload)
    assert caught.value.code is Code.STRANGER


def test_padding_of_uploads(cohort):
    """C-64: 45 bits are 6 bytes, of which three bits are none's; and nothing was added."""
    upload = at(cohort, Trip.MASK).move_again(0)
    body = bytearray(body_of(upload))
    body[5] |= 0x80
    with pytest.raises(PeerError, match="client 0: the padding after the packed vector is not zero"):
        cohort.server.receive(0, reframed(upload, bytes(body)))
    assert not cohort.server._sum.any()
    assert round_messages.decode_upload(cohort.params, cohort.server._scope, upload, 0)[1] == ()
    cohort.finish()


def test_who_complain_of_each_other_spoil_no_sum_and_are_left_out():
    """Their masks would not cancel, and a sum of noise would be released. A liar takes one honest client with it."""
    cohort = at(Cohort(semi_honest(7, threshold=3, slots=2)), Trip.MASK)
    cohort.prepared._deposits.uploaded(0, frozenset({6}))
    cohort.prepared._deposits.uploaded(6, frozenset({0}))
    cohort.send()
    with pytest.raises(UnsoundShares, match="clients 0 and 6"):
        cohort.server.close()
    assert cohort.prepared.clients == (1, 2, 3, 4, 5)
    assert cohort.again().finish().survivors == (1, 2, 3, 4, 5)


def test_who_is_in_most_estranged_pairs_is_left_out_alone():
    cohort = at(Cohort(semi_honest(7, threshold=3, corrupt=2)), Trip.MASK)
    for honest in (0, 1, 2):
        cohort.prepared._deposits.uploaded(honest, frozenset({6}))
    cohort.prepared._deposits.uploaded(6, frozenset({0, 1}))
    assert cohort.prepared.clients == (0, 1, 2, 3, 4, 5)
