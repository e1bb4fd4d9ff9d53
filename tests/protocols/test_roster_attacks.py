"""Attacks with the roster of keys, and with the advertisements that it is made of."""

from dataclasses import replace

import pytest
from attacker import body_of, entries_of, reframed, refused
from cohorts import IDENTITIES, LEAST, Cohort, malicious, semi_honest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from flora_protocols import (
    ClientAdvertise,
    MisuseError,
    PeerError,
    TooFewSurvivors,
    messages,
)
from flora_protocols.keys import SMALL_ORDER


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
            ClientAdvertise(malicious(), 0, floors=LEAST, identity=identity)
    with pytest.raises(MisuseError):
        ClientAdvertise(semi_honest(), 0, floors=LEAST, identity=IDENTITIES[0])


def test_roster_below_the_floor():
    cohort = Cohort(semi_honest(), floors=replace(LEAST, clients=4)).trip(dropping={3})
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
