"""Attacks on one client with its inbox and with the set of survivors: never both secrets of one peer.

Each is refused with a typed error that names the culprit, changes nothing, and the round then ends in the right sum. A
box that does not open is no reason to refuse the others: the client complains, and goes on.
"""

from dataclasses import replace

import numpy as np
import pytest
from attacker import at, body_of, boxes_of, collected, entries_of, inbox, reframed, refused, under
from cohorts import IDENTITIES, LEAST, Cohort, duplicate, hybrid, malicious, semi_honest

from flora_protocols import Bitmap, Code, MisuseError, PeerError, Suite, TooFewSurvivors, Trip, keys, round_messages
from flora_protocols.codec import encode_subset
from flora_protocols.shamir import SHARE

SUITES = {"X25519": semi_honest, "hybrid": hybrid}
suites = pytest.mark.parametrize("make", SUITES.values(), ids=SUITES)


# The inbox


recipients = pytest.mark.parametrize("recipient", ["deriver", "of sealed boxes"])
"""In a complete graph the first clients derive all their shares, and the last ones none (SPEC.md, section 7)."""


def place(cohort, recipient):
    return 0 if recipient == "deriver" else cohort.params.clients - 1


@suites
@recipients
@pytest.mark.parametrize("slots", [1, 3])
def test_swapped_boxes_are_complained_of(make, recipient, slots):
    """Sealed, or confirmed, by another sender: both stay closed, the client says so, and the sum is right; nobody is
    accused."""
    cohort = at(Cohort(make(6, threshold=3, slots=slots)), Trip.MASK)
    index = place(cohort, recipient)
    boxes = boxes_of(cohort, index)
    one, other = [i for i in boxes if i not in (0, 5)][1:3]
    assert len(boxes[one]) == len(boxes[other]) == (16 if index == 0 else 16 + 34 * slots)
    boxes[one], boxes[other] = boxes[other], boxes[one]
    cohort.mail = dict(cohort.mail) | {index: inbox(cohort, index, boxes.values())}
    assert collected(cohort, index).unopened == {one, other}
    assert cohort.finish().survivors == tuple(range(6))
    assert cohort.prepared.complaints == {index: {one, other}}
    assert cohort.prepared.accused == {}


@suites
@recipients
def test_boxes_of_which_a_part_was_changed(make, recipient):
    """Any byte of a box, or the tag of the one with what the other has sealed."""
    cohort = at(Cohort(make(6, threshold=2)), Trip.MASK)
    index = place(cohort, recipient)
    boxes, client = boxes_of(cohort, index), cohort.clients[index]
    whose = 2
    for at_byte in range(len(boxes[whose])):
        bad = bytearray(boxes[whose])
        bad[at_byte] ^= 1
        mail = inbox(cohort, index, (boxes | {whose: bytes(bad)}).values())
        assert duplicate(client).collect(mail).unopened == {whose}
    mixed = boxes | {whose: boxes[3][:16] + boxes[whose][16:]}
    assert duplicate(client).collect(inbox(cohort, index, mixed.values())).unopened == {whose}
    cohort.finish()


@suites
@recipients
def test_foreign_boxes(make, recipient):
    """Sealed for another recipient: with fewer than t that open, the client does not go on."""
    cohort = at(Cohort(make(7, threshold=3)), Trip.MASK)
    index, other = (0, 1) if recipient == "deriver" else (6, 5)
    foreign = inbox(cohort, index, boxes_of(cohort, other).values())
    assert len(foreign) == len(cohort.mail[index])
    refused(cohort, index, foreign, match="boxes that opened: 1 left, 3 needed", error=TooFewSurvivors)


def test_a_box_that_comes_back_to_its_sender():
    """The keys of a pair are the same at both ends; what one has sealed does not open there, nor is the confirmation of
    shares that it deals one of those that it derives."""
    for index, peer in ((5, 4), (0, 1)):
        cohort = at(Cohort(semi_honest(6)), Trip.MASK)
        reflected = boxes_of(cohort, peer)[index]
        boxes = boxes_of(cohort, index)
        assert len(boxes[peer]) == len(reflected)
        cohort.mail = dict(cohort.mail) | {index: inbox(cohort, index, (boxes | {peer: reflected}).values())}
        assert collected(cohort, index).unopened == {peer}
        cohort.finish()


@recipients
def test_inbox_of_another_session(recipient):
    """Same parameters, other keys: refused by the session id, and by the seals when the header is forged."""
    cohort, other = (at(Cohort(semi_honest()), Trip.MASK) for _ in range(2))
    index = place(cohort, recipient)
    old = other.mail[index]
    with pytest.raises(PeerError, match="another session"):
        cohort.clients[index].collect(old)
    forged = under(old, cohort.mail[index])
    refused(cohort, index, forged, match="boxes that opened: 1 left, 3 needed", error=TooFewSurvivors)


@suites
def test_inbox_that_denies_or_invents(make):
    cohort = at(Cohort(make()).trip(dropping={3}), Trip.MASK)
    boxes = [*boxes_of(cohort, 0).values()]
    with pytest.raises(PeerError, match="INBOX says that client 0 sent nothing, but it did"):
        cohort.clients[0].collect(inbox(cohort, 0, boxes, present=b"\x06"))
    invented = inbox(cohort, 0, [*boxes, bytes(16)], present=b"\x0f")
    refused(cohort, 0, invented, match=r"\[3\], who are not in the session")


@suites
def test_left_over_bytes(make):
    """Fewer members in the bitmap than entries behind it: within the length limit, but not canonical."""
    cohort = Cohort(make()).trip()
    _, entries, kem_keys = entries_of(cohort)
    fewer = b"\x07" + b"".join(entries) + kem_keys
    with pytest.raises(PeerError, match=f"{len(entries[0])} bytes left over"):
        moved_with(cohort, reframed(cohort.mail[0], fewer))
    at(cohort, Trip.MASK)
    boxes = boxes_of(cohort, 3).values()
    refused(cohort, 3, inbox(cohort, 3, boxes, present=b"\x0b"), match="bytes left over")


def moved_with(cohort, mail):
    truth = cohort.mail[0]
    cohort.mail = dict(cohort.mail) | {0: mail}
    try:
        return cohort.move(0)
    finally:
        cohort.mail[0] = truth


@pytest.mark.parametrize("trip", [Trip.ENCAPSULATE, Trip.SHARE, Trip.MASK, Trip.AGREE, Trip.UNMASK])
def test_padding_of_bitmaps_is_zero(trip):
    """ROSTER, DELIVERY, INBOX, SURVIVORS, AGREEMENT."""
    cohort = at(Cohort(malicious(suite=Suite.X25519_MLKEM768)), trip)
    body = body_of(cohort.mail[0])
    bad = reframed(cohort.mail[0], bytes((body[0] | 0x10,)) + body[1:])
    refused(cohort, 0, bad, match="beyond its 4 members")


def test_bad_vector_leaves_the_position_usable(cohort):
    client = collected(at(cohort, Trip.MASK), 0)
    for bad in (np.zeros(5), np.zeros(4, np.uint32), np.full(5, 512, np.uint32)):
        with pytest.raises(MisuseError):
            client.mask(cohort.start, bad)
    assert client.next_slot == 0
    cohort.finish()


# The survivors: never both secrets of one peer


def survivors(cohort, members):
    return reframed(cohort.mail[0], encode_subset(range(cohort.params.clients), members))


@pytest.mark.parametrize("slots", [1, 2])
def test_one_answer_per_peer_and_round(slots):
    """Two survivor sets, one after the other: the second finds a spent position, and no peer is told twice."""
    cohort = at(Cohort(semi_honest(slots=slots)), Trip.UNMASK)
    client, held = cohort.clients[0], dict(cohort.clients[0]._uploaded.held)
    after, answer = client.unmask(cohort.mail[0])
    revealed = body_of(answer)
    for owner, pair in held.items():
        share = revealed[owner * SHARE : (owner + 1) * SHARE]
        assert share == pair[:SHARE]  # all survived: seed shares only
        assert pair[SHARE:] not in revealed
    for members in ((0, 1, 2), (0, 1, 2, 3)):
        with pytest.raises(MisuseError, match="cannot unmask again"):
            client.unmask(survivors(cohort, members))
    assert not hasattr(client, "_uploaded")
    assert not any(name in vars(after) for name in ("_uploaded", "_held"))


def test_the_openers_share_of_the_dropped_only():
    cohort = at(Cohort(semi_honest()), Trip.UNMASK, dropping={2})
    uploaded = cohort.clients[0]._uploaded
    revealed = body_of(cohort.clients[0].unmask(cohort.mail[0])[1])
    expected = [pair[SHARE:] if owner == 2 else pair[:SHARE] for owner, pair in sorted(uploaded.held.items())]
    assert revealed == b"".join(expected) + uploaded.tags[2]


@suites
def test_false_survivors(make):
    cohort = at(Cohort(make()).trip(dropping={3}), Trip.UNMASK)
    for members, match in (((1, 2), "lack client 0"), ((0, 1, 2, 3), r"\[3\], who did not share")):
        with pytest.raises(PeerError, match=match):
            cohort.clients[0].unmask(survivors(cohort, members))
    refused(cohort, 0, survivors(cohort, (0, 1)), match="2 left, 3 needed", error=TooFewSurvivors)


@pytest.mark.parametrize("near", [True, False])
def test_survivors_who_were_not_invited(near):
    """Of who shared: a neighbour, and one beyond the neighbourhood of a Harary graph."""
    params = semi_honest(9, 4, threshold=2)
    members = set(params.graph.members(0))
    absent = min(members - {0} if near else set(range(9)) - members)
    cohort = at(Cohort(params), Trip.MASK)
    cohort.prepared._next = 0  # the round is begun with others than all
    cohort.begin(slot=0, invited=Bitmap.of(9, set(range(9)) - {absent}))
    cohort.trip(dropping={absent})
    refused(cohort, 0, survivors(cohort, range(9)), match=rf"include \[{absent}\], who did not share or were not")


@suites
def test_a_survivor_that_was_invited_but_has_not_shared(make):
    """It advertised, so that it may be invited; but nobody has masked with it, and nobody holds its shares."""
    cohort = Cohort(make(5, threshold=3)).trip()
    at(at(cohort, Trip.SHARE).trip(dropping={4}), Trip.MASK)
    start = replace(cohort.start, invited=Bitmap.of(5, range(5)))
    client, _ = collected(cohort, 0).mask(start, cohort.vectors[0])
    scope = start.id(cohort.params, cohort.prepared.session)
    told = [round_messages.encode_survivors(cohort.params, scope, members) for members in (range(5), range(4))]
    with pytest.raises(
        PeerError, match=r"the survivors include \[4\], who did not share or were not invited"
    ) as caught:
        client.unmask(told[0])
    assert (caught.value.culprit, caught.value.code) == ("server", Code.BAD_SURVIVORS)
    assert client.unmask(told[1])[1]


def test_survivors_below_the_floor():
    cohort = at(Cohort(semi_honest(), floors=replace(LEAST, survivors=4)), Trip.UNMASK, dropping={3})
    with pytest.raises(TooFewSurvivors, match="3 left, 4 needed"):
        cohort.move(0)


def test_equivocation_about_the_survivors():
    """Two halves are told two stories. Each half lacks t signatures for its own, so nobody reveals anything."""
    cohort = at(Cohort(malicious(5, threshold=3)), Trip.AGREE)
    stories = {0: (0, 1, 2, 3), 1: (0, 1, 2, 3), 2: (0, 1, 2, 4), 4: (0, 1, 2, 4)}
    agreed, signed = {}, {}
    scope, params = cohort.clients[3]._uploaded.scope, cohort.params
    for index, members in stories.items():
        agreed[index], message = cohort.clients[index].agree(survivors(cohort, members))
        signed[index] = body_of(message)
    for index, members in stories.items():
        honest = {i: signed[i] for i in stories if i != index and stories[i] == members}
        with pytest.raises(TooFewSurvivors, match="signatures over the survivors: 2 left, 3 needed"):
            agreed[index].unmask(round_messages.encode_agreement(params, scope, range(5), honest))
        mixed = {i: signed[i] for i in stories if i != index and i in members}
        with pytest.raises(PeerError, match="signature does not verify"):
            agreed[index].unmask(round_messages.encode_agreement(params, scope, range(5), mixed))


def test_agreement_signed_by_the_dropped_or_by_oneself():
    cohort = at(Cohort(malicious(5, threshold=3)), Trip.UNMASK, dropping={4})
    scope, params = cohort.clients[0]._uploaded.scope, cohort.params
    text = round_messages.endorsed_text(params, scope, (0, 1, 2, 3))
    signed = {i: keys.sign(IDENTITIES[i], keys.SURVIVORS, text) for i in range(5)}
    for signers in ((1, 4), (0, 1)):
        bad = round_messages.encode_agreement(params, scope, range(5), {i: signed[i] for i in signers})
        with pytest.raises(PeerError, match="others than surviving neighbours"):
            cohort.clients[0].unmask(bad)
    cohort.finish()


def test_server_refuses_an_endorsement_of_other_survivors(signed_cohort):
    cohort = at(signed_cohort, Trip.AGREE)
    _, message = cohort.clients[0].agree(survivors(cohort, (0, 1, 2)))
    with pytest.raises(PeerError, match="client 0: signature does not verify"):
        cohort.server.receive(0, message)
