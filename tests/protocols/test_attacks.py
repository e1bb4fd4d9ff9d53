"""Attacks on one client with its inbox and with the set of survivors: never both secrets of one peer.

Each is refused with a typed error that names the culprit, changes nothing, and the round then ends in the right sum.
"""

from dataclasses import replace

import numpy as np
import pytest
from attacker import body_of, entries_of, reframed, refused
from cohorts import IDENTITIES, LEAST, Cohort, malicious, semi_honest

from flora_protocols import (
    MisuseError,
    PeerError,
    TooFewSurvivors,
    keys,
    messages,
    shamir,
)
from flora_protocols.codec import encode_subset

# The inbox


def test_swapped_and_foreign_shares(cohort):
    """Shares sealed for another recipient, by another sender, or of another session."""
    cohort.trip().trip()
    body, other = body_of(cohort.mail[0]), body_of(cohort.mail[1])
    size = messages.SEALED
    swapped = body[:1] + body[1 + size : 1 + 2 * size] + body[1 : 1 + size] + body[1 + 2 * size :]
    with pytest.raises(PeerError, match="do not open at client 0") as caught:
        cohort.clients[0].mask(reframed(cohort.mail[0], swapped), cohort.vectors[0])
    assert caught.value.culprit == 1
    refused(cohort, 0, reframed(cohort.mail[0], other), culprit=1, match="do not open at client 0")


def test_inbox_of_another_session(cohort):
    """Same parameters, other keys: refused by the session id, and by the seals when the header is forged."""
    cohort.trip().trip()
    old = Cohort(semi_honest()).trip().trip().mail[0]
    with pytest.raises(PeerError, match="another session"):
        cohort.clients[0].mask(old, cohort.vectors[0])
    refused(cohort, 0, reframed(cohort.mail[0], body_of(old)), culprit=1, match="do not open")


def test_inbox_that_denies_or_invents(cohort):
    cohort.trip(dropping={3}).trip()
    body = body_of(cohort.mail[0])
    with pytest.raises(PeerError, match="client 0 did not share, but it did"):
        cohort.clients[0].mask(reframed(cohort.mail[0], b"\x06" + body[1:]), cohort.vectors[0])
    invented = b"\x0f" + body[1:] + bytes(messages.SEALED)
    refused(cohort, 0, reframed(cohort.mail[0], invented), match=r"\[3\], who are not in the roster")


def test_left_over_bytes(cohort):
    """Fewer members in the bitmap than entries behind it: within the length limit, but not canonical."""
    cohort.trip()
    _, entries = entries_of(cohort)
    with pytest.raises(PeerError, match="64 bytes left over"):
        cohort.clients[0].share(reframed(cohort.mail[0], b"\x07" + b"".join(entries)))
    cohort.trip()
    body = body_of(cohort.mail[0])
    refused(cohort, 0, reframed(cohort.mail[0], b"\x07" + body[1:]), match="50 bytes left over")


def test_padding_of_bitmaps_is_zero(cohort):
    cohort.trip()
    body = body_of(cohort.mail[0])
    refused(cohort, 0, reframed(cohort.mail[0], b"\x1f" + body[1:]), match="beyond its 4 members")


def test_bad_vector_leaves_the_position_usable(cohort):
    cohort.trip().trip()
    for bad in (np.zeros(5), np.zeros(4, np.uint32), np.full(5, 512, np.uint32)):
        with pytest.raises(MisuseError):
            cohort.clients[0].mask(cohort.mail[0], bad)
    cohort.finish()


# The survivors: never both secrets of one peer


def survivors(cohort, members):
    return reframed(cohort.mail[0], encode_subset(range(cohort.params.clients), members))


def test_one_answer_per_peer_and_session(cohort):
    """Two survivor sets, one after the other: the second finds a spent position, and no peer is told twice."""
    cohort.trip().trip().trip()
    client, held = cohort.clients[0], dict(cohort.clients[0]._uploaded.held)
    _, answer = client.unmask(cohort.mail[0])
    revealed = body_of(answer)
    for owner, pair in held.items():
        share = revealed[owner * shamir.SHARE : (owner + 1) * shamir.SHARE]
        assert share == pair[shamir.SHARE :]  # all survived: seed shares only
        assert pair[: shamir.SHARE] not in revealed
    for members in ((0, 1, 2), (0, 1, 2, 3)):
        with pytest.raises(MisuseError, match="cannot unmask again"):
            client.unmask(survivors(cohort, members))
    assert not hasattr(client, "_uploaded")


def test_key_share_of_the_dropped_only(cohort):
    cohort.trip().trip().trip(dropping={2})
    held = dict(cohort.clients[0]._uploaded.held)
    revealed = body_of(cohort.clients[0].unmask(cohort.mail[0])[1])
    expected = [pair[: shamir.SHARE] if owner == 2 else pair[shamir.SHARE :] for owner, pair in sorted(held.items())]
    assert revealed == b"".join(expected)


def test_false_survivors(cohort):
    cohort.trip().trip(dropping={3}).trip()
    for members, match in (((1, 2), "lack client 0"), ((0, 1, 2, 3), r"\[3\], who did not share")):
        with pytest.raises(PeerError, match=match):
            cohort.clients[0].unmask(survivors(cohort, members))
    refused(cohort, 0, survivors(cohort, (0, 1)), match="2 left, 3 needed", error=TooFewSurvivors)


def test_survivors_below_the_floor():
    cohort = Cohort(semi_honest(), floors=replace(LEAST, survivors=4)).trip().trip().trip(dropping={3})
    with pytest.raises(TooFewSurvivors, match="3 left, 4 needed"):
        cohort.move(0)


def test_equivocation_about_the_survivors():
    """Two halves are told two stories. Each half lacks t signatures for its own, so nobody reveals anything."""
    cohort = Cohort(malicious(5, threshold=3)).trip().trip().trip()
    stories = {0: (0, 1, 2, 3), 1: (0, 1, 2, 3), 2: (0, 1, 2, 4), 4: (0, 1, 2, 4)}
    agreed, signed = {}, {}
    for index, members in stories.items():
        agreed[index], message = cohort.clients[index].agree(survivors(cohort, members))
        signed[index] = body_of(message)
    session = cohort.clients[3]._uploaded.session
    for index, members in stories.items():
        honest = {i: signed[i] for i in stories if i != index and stories[i] == members}
        with pytest.raises(TooFewSurvivors, match="signatures over the survivors: 2 left, 3 needed"):
            agreed[index].unmask(messages.encode_agreement(session, range(5), honest))
        mixed = {i: signed[i] for i in stories if i != index and i in members}
        with pytest.raises(PeerError, match="signature does not verify"):
            agreed[index].unmask(messages.encode_agreement(session, range(5), mixed))


def test_agreement_signed_by_the_dropped_or_by_oneself():
    cohort = Cohort(malicious(5, threshold=3)).trip().trip().trip(dropping={4}).trip()
    session = cohort.clients[0]._uploaded.session
    text = messages.endorsed_text(cohort.params, session, (0, 1, 2, 3))
    signed = {i: keys.sign(IDENTITIES[i], keys.SURVIVORS, text) for i in range(5)}
    for signers in ((1, 4), (0, 1)):
        bad = messages.encode_agreement(session, range(5), {i: signed[i] for i in signers})
        with pytest.raises(PeerError, match="others than surviving neighbours"):
            cohort.clients[0].unmask(bad)
    cohort.finish()


def test_server_refuses_an_endorsement_of_other_survivors(signed_cohort):
    cohort = signed_cohort.trip().trip().trip()
    _, message = cohort.clients[0].agree(survivors(cohort, (0, 1, 2)))
    with pytest.raises(PeerError, match="client 0: signature does not verify"):
        cohort.server.receive(0, message)
