"""Attacks on one position at a time.

Each is refused with a typed error that names the culprit, changes nothing, and the round then ends in the right sum.
"""

import copy
import pickle

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import IDENTITIES, Cohort, malicious, semi_honest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    ClientAdvertise,
    Floors,
    MisuseError,
    PeerError,
    ProtocolError,
    TooFewSurvivors,
    keys,
    messages,
    shamir,
)
from flora_protocols.codec import CHECKSUM, FOLD, HEADER, Kind, decode_frame, encode_frame, encode_subset
from flora_protocols.keys import SMALL_ORDER

TRIPS = {"semi-honest": 4, "malicious-server": 5}


def refused(cohort, index, mail, culprit="server", match="", error=PeerError):
    """Client ``index`` refuses ``mail``; afterwards the round goes on with the true message."""
    truth = cohort.mail[index]
    cohort.mail = dict(cohort.mail) | {index: mail}
    with pytest.raises(error, match=match) as caught:
        cohort.move(index)
    if error is PeerError:
        assert caught.value.culprit == culprit
    cohort.mail[index] = truth
    return cohort.finish()


# Any message, damaged


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bursts_of_errors_in_long_bodies(data):
    """Bodies longer than a block are folded before the checksum: no burst of 32 bits goes unseen, wherever it is."""
    size = data.draw(st.sampled_from([FOLD, FOLD + 1, 2 * FOLD, 5 * FOLD + 77]))
    message = encode_frame(Kind.UPLOAD, bytes(32), np.random.default_rng(size).bytes(size))
    assert decode_frame(message, Kind.UPLOAD, bytes(32), 1, size).take(size) == message[HEADER:-CHECKSUM]
    at = data.draw(st.integers(0, len(message) - 4))
    burst = data.draw(st.binary(min_size=4, max_size=4).filter(any))
    bad = bytearray(message)
    for place, error in enumerate(burst, at):
        bad[place] ^= error
    with pytest.raises(PeerError):
        decode_frame(bytes(bad), Kind.UPLOAD, bytes(32), 1, size)


@pytest.mark.parametrize("make", [semi_honest, malicious])
@pytest.mark.parametrize("trip", range(5))
def test_damaged_messages(make, trip):
    """Bit flips, truncation, appended bytes: refused by client and server, state unchanged, the sum right."""
    cohort = Cohort(make())
    if trip >= TRIPS[cohort.params.profile.value]:
        return
    for _ in range(trip):
        cohort.trip()

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.data())
    def damage(data):
        received = trip > 0 and data.draw(st.booleans())
        good = cohort.mail[0] if received else cohort.move_again(0)
        kind = data.draw(st.sampled_from(["flip", "cut", "grow"]))
        if kind == "flip":
            at = data.draw(st.integers(0, 8 * len(good) - 1))
            bad = bytearray(good)
            bad[at // 8] ^= 1 << at % 8
            bad = bytes(bad)
        elif kind == "cut":
            bad = good[: data.draw(st.integers(0, len(good) - 1))]
        else:
            bad = good + data.draw(st.binary(min_size=1, max_size=40))
        if received:
            cohort.mail = dict(cohort.mail) | {0: bad}
            with pytest.raises(PeerError):
                cohort.move(0)
            cohort.mail[0] = good
        else:
            with pytest.raises(PeerError):
                cohort.server.receive(0, bad)

    damage()
    assert cohort.finish().survivors == (0, 1, 2, 3)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([semi_honest, malicious]), st.integers(0, 4), st.data())
def test_tampered_bodies_with_a_right_checksum(make, trip, data):
    """A server that changes bits inside a message and mends the checksum: a typed error, or the message was equivalent
    for that client (another survivor set, say) and it still gives away at most one share per peer."""
    cohort = Cohort(make())
    trip = min(trip, TRIPS[cohort.params.profile.value] - 1)
    if trip == 0:
        return
    for _ in range(trip):
        cohort.trip()
    body = bytearray(body_of(cohort.mail[1]))
    at = data.draw(st.integers(0, 8 * len(body) - 1))
    body[at // 8] ^= 1 << at % 8
    truth = cohort.mail[1]
    cohort.mail = dict(cohort.mail) | {1: reframed(truth, bytes(body))}
    try:
        _, answer = cohort.move(1)
    except ProtocolError:
        cohort.mail[1] = truth
        cohort.finish()
    else:
        if trip == TRIPS[cohort.params.profile.value] - 1:
            assert len(body_of(answer)) == 4 * shamir.SHARE


def test_messages_of_another_kind_session_version(cohort):
    first = cohort.move_again(0)
    cohort.trip()
    roster = cohort.mail[0]
    with pytest.raises(PeerError, match="kind 1; SHARES"):
        cohort.server.receive(0, first)
    for at, what in ((0, "not a message"), (2, "wire version"), (3, "cipher suite"), (5, "another session")):
        bad = bytearray(roster[:-CHECKSUM])
        bad[at] ^= 1
        cohort.mail = dict(cohort.mail) | {0: reframed(bytes(bad[:HEADER]), bytes(bad[HEADER:]))}
        with pytest.raises(PeerError, match=what):
            cohort.move(0)
    cohort.mail[0] = roster
    cohort.finish()


def test_messages_must_be_bytes(cohort):
    for bad in ("text", bytearray(81), None, [1]):
        with pytest.raises(MisuseError):
            cohort.server.receive(0, bad)
    cohort.finish()


def test_other_models_rounds_and_parameters_do_not_mix():
    ours = Cohort(semi_honest())
    for other in (
        semi_honest(model_hash=b"m" * 32),
        semi_honest(round=1),
        semi_honest(threshold=2),
        semi_honest(bits=10),
        malicious(),
    ):
        with pytest.raises(PeerError) as caught:
            ours.server.receive(2, Cohort(other).move(2)[1])
        assert caught.value.culprit == 2
    ours.finish()


# The roster


def entries_of(cohort, index=0):
    size = 128 if cohort.params.malicious else 64
    body = body_of(cohort.mail[index])
    return body[:1], [body[1 + at : 1 + at + size] for at in range(0, len(body) - 1, size)]


def roster_with(cohort, change):
    present, entries = entries_of(cohort)
    change(entries)
    return reframed(cohort.mail[0], present + b"".join(entries))


@pytest.mark.parametrize("point", sorted(SMALL_ORDER))
def test_small_order_key_in_the_roster(cohort, point):
    cohort.trip()
    refused(cohort, 0, roster_with(cohort, lambda e: e.__setitem__(2, point + e[2][32:])), match="small order")


def test_doubled_keys_in_the_roster(cohort):
    cohort.trip()
    for double in (lambda e: e[1][:32] + e[2][32:], lambda e: e[2][:32] + e[0][32:], lambda e: e[1]):
        bad = roster_with(cohort, lambda e, double=double: e.__setitem__(2, double(e)))
        with pytest.raises(PeerError, match="one public key twice"):
            cohort.clients[0].share(bad)
    same = roster_with(cohort, lambda e: e.__setitem__(2, e[2][:32] * 2))
    refused(cohort, 0, same, match="mask key and transport key are the same")


def test_own_key_changed_or_absent(cohort):
    cohort.trip()
    with pytest.raises(PeerError, match="own advertisement"):
        cohort.clients[0].share(roster_with(cohort, lambda e: e.__setitem__(0, X25519_KEY + e[0][32:])))
    _, entries = entries_of(cohort)
    refused(cohort, 0, reframed(cohort.mail[0], b"\x0e" + b"".join(entries[1:])), match="own advertisement")


X25519_KEY = X25519PrivateKey.from_private_bytes(b"k" * 32).public_key().public_bytes_raw()


def test_key_forged_in_the_roster_of_one_client(cohort):
    """Semi-honest profile: the server puts its own key in place of client 2's. The session ids part, nothing fits."""
    cohort.trip()
    forged = roster_with(cohort, lambda e: e.__setitem__(2, e[2][:32] + X25519_KEY))
    cohort.mail = dict(cohort.mail) | {0: forged}
    _, answer = cohort.move(0)
    with pytest.raises(PeerError, match="client 0: the message belongs to another session"):
        cohort.server.receive(0, answer)


@pytest.mark.parametrize("at", [0, 32])
def test_key_forged_in_a_harary_roster(at):
    """The claimed hash of all entries stays true, so the session id does; but channels bind the keys of both ends.

    Otherwise a forged mask key (at 0) would only be noticed by a sum that is noise.
    """
    cohort = Cohort(semi_honest(8, 6, threshold=3)).trip()
    near = [index for index in cohort.params.graph.members(0) if index != 0]
    body = bytearray(body_of(cohort.mail[0]))
    start = 1 + 32 + 64 * sorted([0, *near]).index(near[2]) + at
    body[start : start + 32] = X25519_KEY
    cohort.mail = dict(cohort.mail) | {0: reframed(cohort.mail[0], bytes(body))}
    cohort.trip()
    for index, culprit in ((0, near[2]), (near[2], 0)):
        with pytest.raises(PeerError, match="do not open") as caught:
            cohort.move(index)
        assert caught.value.culprit == culprit
    stay = set(cohort.clients) - {0, near[2]}  # both leave, the others finish
    cohort.trip(dropping={0, near[2]})
    assert set(cohort.finish().survivors) == stay


def test_key_forged_in_a_signed_roster(signed_cohort):
    cohort = signed_cohort.trip()
    forged = roster_with(cohort, lambda e: e.__setitem__(2, e[2][:32] + X25519_KEY + e[2][64:]))
    refused(cohort, 0, forged, match="signature does not verify")


def test_signed_advertisement_of_an_old_round(signed_cohort):
    """The advertisement of round 0 is replayed in round 1."""
    old = body_of(signed_cohort.move(2)[1])
    cohort = Cohort(malicious(round=1)).trip()
    refused(cohort, 0, roster_with(cohort, lambda e: e.__setitem__(2, old)), match="signature does not verify")


def test_old_roster_is_refused(cohort):
    old = Cohort(semi_honest()).trip().mail[0]
    cohort.trip()
    refused(cohort, 0, old, match="own advertisement")


def test_server_refuses_bad_advertisements(cohort):
    good = cohort.move_again(1)
    with pytest.raises(PeerError, match="small order") as caught:
        cohort.server.receive(1, reframed(good, bytes(32) + body_of(good)[32:]))
    assert caught.value.culprit == 1
    cohort.send(dropping={0})
    with pytest.raises(PeerError, match="client 0: advertises a public key that another"):
        cohort.server.receive(0, cohort.sent[2])


def test_server_refuses_an_advertisement_signed_by_another(signed_cohort):
    with pytest.raises(PeerError, match="client 1: signature"):
        signed_cohort.server.receive(1, signed_cohort.move(2)[1])


def test_identity_key_must_match_the_parameters():
    for identity in (None, IDENTITIES[1], b"short"):
        with pytest.raises(MisuseError):
            ClientAdvertise(malicious(), 0, identity=identity)
    with pytest.raises(MisuseError):
        ClientAdvertise(semi_honest(), 0, identity=IDENTITIES[0])


def test_roster_below_the_floor():
    cohort = Cohort(semi_honest(), floors=Floors(clients=4)).trip(dropping={3})
    with pytest.raises(TooFewSurvivors, match="3 left, 4 needed"):
        cohort.move(0)


def test_too_few_holders_to_share_among_or_to_rely_on(cohort):
    """The client leaves before it entrusts its secrets to fewer than t holders."""
    cohort.trip()
    _, entries = entries_of(cohort)
    with pytest.raises(TooFewSurvivors, match="holders in the roster: 2 left, 3 needed"):
        cohort.clients[0].share(reframed(cohort.mail[0], b"\x03" + b"".join(entries[:2])))
    cohort.trip()
    few = reframed(cohort.mail[0], b"\x03" + body_of(cohort.mail[0])[1 : 1 + messages.SEALED])
    refused(cohort, 0, few, match="holders that shared: 2 left, 3 needed", error=TooFewSurvivors)


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
    cohort = Cohort(semi_honest(), floors=Floors(survivors=4)).trip().trip().trip(dropping={3})
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


# What clients may do to the server


def last_trip(clients=7, threshold=4, dropping=(5,)):
    cohort = Cohort(semi_honest(clients, threshold=threshold)).trip().trip().trip(dropping)
    cohort.send()
    return cohort


def revealing(cohort, liar, owner):
    """Client ``liar`` flips a bit of its share of ``owner``'s secret, with a right checksum."""
    body = bytearray(body_of(cohort.sent[liar]))
    body[owner * shamir.SHARE] ^= 1
    cohort.server._shares[liar], _ = messages.decode_reveal(
        cohort.server._state.session, reframed(cohort.sent[liar], bytes(body)), liar, cohort.params.clients, ()
    )


@pytest.mark.parametrize("owner", [0, 5])
@pytest.mark.parametrize("liar", [0, 4, 6])
def test_a_wrong_share_names_who_revealed_it(liar, owner):
    cohort = last_trip()
    revealing(cohort, liar, owner)
    with pytest.raises(PeerError, match=f"a wrong share of client {owner}") as caught:
        cohort.server.close()
    assert caught.value.culprit == liar


def test_shares_must_be_canonical(cohort):
    cohort.trip().trip().trip()
    _, message = cohort.move(0)
    bad = bytearray(body_of(message))
    bad[:2], bad[16] = b"\1\0", bad[16] | 1  # limb 0 would be 65537
    with pytest.raises(PeerError, match="client 0: a share is not canonically encoded"):
        cohort.server.receive(0, reframed(message, bytes(bad)))
    cohort.server.receive(0, message)


def test_a_wrong_share_that_cannot_be_attributed_names_the_owner():
    cohort = last_trip(clients=6, threshold=4)  # five reveal: one more than t
    revealing(cohort, 1, 5)
    with pytest.raises(PeerError, match="on no polynomial") as caught:
        cohort.server.close()
    assert caught.value.culprit == 5


def test_a_wrong_key_share_without_surplus_is_noticed_by_the_public_key():
    cohort = last_trip(clients=5, threshold=4, dropping=(4,))
    revealing(cohort, 1, 4)
    with pytest.raises(PeerError, match="does not belong to the mask key") as caught:
        cohort.server.close()
    assert caught.value.culprit == 4


def test_shares_of_a_secret_that_is_not_the_mask_key(monkeypatch):
    """A client deals shares of another secret than its mask key's, then drops."""
    cohort = Cohort(semi_honest()).trip()
    true = shamir.split

    def false(secrets, *rest):
        return true(bytes(16) + secrets[16:], *rest)

    with monkeypatch.context() as patched:
        patched.setattr("flora_protocols.client.split", false)
        cohort.clients[3], message = cohort.move(3)
    cohort.server.receive(3, message)
    for index in range(3):
        cohort.clients[index], message = cohort.move(index)
        cohort.server.receive(index, message)
    cohort.server, cohort.mail = cohort.server.close()
    cohort.trip(dropping={3}).send()
    with pytest.raises(PeerError, match="client 3: shared a secret that does not belong"):
        cohort.server.close()


def test_second_messages_strangers_and_impossible_indices(cohort):
    cohort.trip(dropping={3})
    cohort.send()
    with pytest.raises(PeerError, match="client 0: sent a second message in trip SHARE"):
        cohort.server.receive(0, cohort.sent[0])
    with pytest.raises(PeerError, match="client 3: is not in trip SHARE"):
        cohort.server.receive(3, cohort.sent[0])
    for index in (-1, 4, "0"):
        with pytest.raises(MisuseError):
            cohort.server.receive(index, cohort.sent[0])
    assert cohort.server.heard == {0, 1, 2}


def test_another_clients_reveal_changes_nothing_unseen():
    """Shares revealed under another client's name lie off the polynomials."""
    cohort = Cohort(semi_honest(7, threshold=4)).trip().trip().trip()
    moved = {i: cohort.move(i)[1] for i in range(7)}
    for index in range(7):
        cohort.server.receive(index, moved[0 if index == 1 else index])
    with pytest.raises(PeerError) as caught:
        cohort.server.close()
    assert caught.value.culprit == 1


# Positions


@pytest.mark.parametrize("make", [semi_honest, malicious])
def test_spent_positions_raise(make):
    cohort = Cohort(make())
    while True:
        old_clients, old_server, old_mail = dict(cohort.clients), cohort.server, cohort.mail
        if type(cohort.server).__name__ == "ServerUnmask":
            cohort.send().result()
        else:
            cohort.trip()
        cohort.clients, now = old_clients, cohort.clients
        cohort.mail, mail = old_mail, cohort.mail
        with pytest.raises(MisuseError, match="again"):
            cohort.move(0)
        cohort.clients, cohort.mail = now, mail
        assert old_server.spent
        assert old_server.heard == frozenset()
        for call in (old_server.close, lambda old=old_server: old.receive(0, b"")):
            with pytest.raises(MisuseError, match="again"):
                call()
        if old_server is cohort.server:
            return


def test_too_few_leaves_the_server_waiting(cohort):
    cohort.trip()
    cohort.send(dropping={2, 3})
    with pytest.raises(TooFewSurvivors, match="clients that shared: 2 left, 3 needed"):
        cohort.server.close()
    assert not cohort.server.spent


def test_too_few_answers_leave_the_server_waiting(cohort):
    cohort.trip().trip().trip().send(dropping={2, 3})
    with pytest.raises(TooFewSurvivors, match="clients that revealed shares: 2 left, 3 needed"):
        cohort.server.close()
    assert not cohort.server.spent


def test_a_round_that_cannot_be_unmasked_ends_before_anything_is_revealed():
    """Harary graph: enough clients uploaded, but one of them has too few surviving neighbours to hold its shares."""
    params = semi_honest(8, 2, threshold=2)
    cohort = Cohort(params).trip().trip()
    cohort.send(dropping={params.graph.holders(0)[0]})
    with pytest.raises(TooFewSurvivors, match=r"shares: 1 left, 2 needed"):
        cohort.server.close()


@pytest.mark.parametrize("make", [semi_honest, malicious])
def test_no_secret_in_repr_and_no_copies(make):
    """Nothing that a position holds, at any depth, shows in its repr; and it can be neither copied nor pickled."""
    cohort = Cohort(make())
    while cohort.server is not None:
        for position in [*cohort.clients.values(), cohort.server]:
            assert repr(position).startswith(f"<{type(position).__name__} ")
            assert len(repr(position)) < 80
            for value in vars(position).values():
                if not isinstance(value, str):
                    assert repr(value) not in repr(position)
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(MisuseError, match="cannot be copied"):
                    duplicate(position)
        own = vars(cohort.clients[0]).get("_own")
        if own is not None:
            assert own.mask_secret.hex() not in repr(own)
            assert repr(own.mask_secret) not in repr(own)
        if type(cohort.server).__name__ == "ServerUnmask":
            return
        cohort.trip()


def test_every_error_is_a_protocol_error():
    assert issubclass(MisuseError, ProtocolError)
    assert not issubclass(PeerError, MisuseError)
    assert PeerError("server", "x").culprit == "server"
    assert str(PeerError(3, "x")) == "client 3: x"
