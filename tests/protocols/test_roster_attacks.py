"""Attacks with the roster of keys, and with the advertisements that it is made of."""

import hashlib
from dataclasses import replace

import pytest
from attacker import at, body_of, boxes_of, entries_of, inbox, reframed, refused, under
from cohorts import IDENTITIES, LEAST, Cohort, hybrid, malicious, semi_honest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from flora_protocols import ClientAdvertise, Code, MisuseError, PeerError, Suite, TooFewSurvivors, Trip, UnsoundShares
from flora_protocols.keys import SMALL_ORDER
from flora_protocols.suites import KEM_KEY, kem_public

SUITES = {"X25519": semi_honest, "hybrid": hybrid}
suites = pytest.mark.parametrize("make", SUITES.values(), ids=SUITES)
PROFILES = {"X25519": malicious, "hybrid": lambda **more: malicious(suite=Suite.X25519_MLKEM768, **more)}
signed = pytest.mark.parametrize("make", PROFILES.values(), ids=PROFILES)
X25519_KEY = X25519PrivateKey.from_private_bytes(b"k" * 32).public_key().public_bytes_raw()
FOREIGN_KEM_KEY = kem_public(b"k" * 64)


def roster_with(cohort, change, kem_keys=None):
    present, entries, true_kem_keys = entries_of(cohort)
    change(entries)
    return reframed(cohort.mail[0], present + b"".join(entries) + (true_kem_keys if kem_keys is None else kem_keys))


def entry(index, made):
    """A change of the entry of client `index` to what `made` makes of all entries."""
    return lambda entries: entries.__setitem__(index, made(entries))


def reads(cohort, mail):
    """Client 0 moves as if the server had sent `mail`."""
    cohort.mail, truth = dict(cohort.mail) | {0: mail}, cohort.mail
    try:
        return cohort.move(0)
    finally:
        cohort.mail = truth


@suites
@pytest.mark.parametrize("point", sorted(SMALL_ORDER))
def test_small_order_key_in_the_roster(make, point):
    cohort = Cohort(make()).trip()
    refused(cohort, 0, roster_with(cohort, entry(2, lambda e: point + e[2][32:])), match="small order")


@suites
def test_doubled_keys_in_the_roster(make):
    """A channel key, the client's own among them; and the hash of a KEM key."""
    cohort = Cohort(make()).trip()
    doubles = [lambda e: e[1][:32] + e[2][32:], lambda e: e[0][:32] + e[2][32:], lambda e: e[1]]
    if make is hybrid:
        doubles += [lambda e: e[2][:32] + e[3][32:], lambda e: e[2][:32] + e[0][32:]]
    for double in doubles:
        bad = roster_with(cohort, entry(2, double))
        with pytest.raises(PeerError, match="one public key twice") as caught:
            reads(cohort, bad)
        assert caught.value.code is Code.BAD_KEY
    cohort.finish()


@suites
def test_own_key_changed_or_absent(make):
    cohort = Cohort(make()).trip()
    size = len(entries_of(cohort)[1][0])
    for changed in range(0, size, 32):  # of the hybrid suite also the hash of its KEM key
        bad = entry(0, lambda e, first=changed: e[0][:first] + X25519_KEY + e[0][first + 32 :])
        with pytest.raises(PeerError, match="own advertisement"):
            reads(cohort, roster_with(cohort, bad))
    _, entries, kem_keys = entries_of(cohort)
    absent = reframed(cohort.mail[0], b"\x0e" + b"".join(entries[1:]) + kem_keys)
    refused(cohort, 0, absent, match="own advertisement")


@suites
def test_key_forged_in_the_roster_of_one_client(make):
    """Semi-honest profile: the server puts its own key in place of client 2's. The session ids part, nothing fits."""
    cohort = Cohort(make()).trip()
    forged = roster_with(cohort, entry(2, lambda e: X25519_KEY + e[2][32:]))
    with pytest.raises(PeerError, match="client 0: the message belongs to another session"):
        cohort.server.receive(0, reads(cohort, forged)[1])


def forged_harary(make, changed):
    """A cohort in a Harary graph where client 0 has been told another key of a neighbour; and who that is."""
    cohort = Cohort(make(8, neighbours=6, threshold=3)).trip()
    params, members = cohort.params, cohort.params.graph.members(0)
    whose = next(i for i in members if i != 0 and params.graph.encapsulates(0, i))
    body, size = bytearray(body_of(cohort.mail[0])), 64 if params.suite.hybrid else 32
    first = 1 + 32 + size * members.index(whose)
    if changed == "channel key":
        body[first : first + 32] = X25519_KEY
    else:
        body[first + 32 : first + 64] = hashlib.sha256(FOREIGN_KEM_KEY).digest()
        made = [i for i in members if i != 0 and params.graph.encapsulates(0, i)]
        first = 1 + 32 + size * len(members) + KEM_KEY * made.index(whose)
        body[first : first + KEM_KEY] = FOREIGN_KEM_KEY
    cohort.mail = dict(cohort.mail) | {0: reframed(cohort.mail[0], bytes(body))}
    return cohort, whose


@pytest.mark.parametrize(
    ("make", "changed"),
    [(semi_honest, "channel key"), (hybrid, "channel key"), (hybrid, "KEM key")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_key_forged_in_a_harary_roster(make, changed):
    """The claimed hash of all entries stays true, so the session id does; but channels bind the keys of both ends.

    Neither end opens the other's box, and both say so; and since the two mask with keys that part, a sum with both in
    it would be noise: nobody is announced. Where one of them is not, the others' sum is right.
    """
    cohort, whose = forged_harary(make, changed)
    at(cohort, Trip.MASK).send()
    with pytest.raises(UnsoundShares, match=f"clients 0 and {whose} open nothing of each other"):
        cohort.server.close()
    assert cohort.prepared.complaints == {0: {whose}, whose: {0}}
    assert cohort.prepared.accused == {}
    cohort, whose = forged_harary(make, changed)
    at(cohort, Trip.MASK)
    cohort.prepared._next = 0  # of another round, to which the one is not invited
    cohort.begin(slot=0, invited=type(cohort.start.invited).of(8, set(range(8)) - {whose}))
    cohort.mail.pop(whose)
    assert whose not in cohort.finish().survivors


@signed
def test_key_forged_in_a_signed_roster(make):
    cohort = Cohort(make()).trip()
    size = len(entries_of(cohort)[1][0]) - 64
    for first in range(0, size, 32):
        forged = entry(2, lambda e, first=first: e[2][:first] + X25519_KEY + e[2][first + 32 :])
        kem_keys = None
        if first:  # with the KEM key that belongs to the forged hash: client 0 encapsulates to 1 and 2
            forged = entry(2, lambda e: e[2][:32] + hashlib.sha256(FOREIGN_KEM_KEY).digest() + e[2][64:])
            kem_keys = entries_of(cohort)[2][:KEM_KEY] + FOREIGN_KEM_KEY
        with pytest.raises(PeerError, match="signature does not verify"):
            reads(cohort, roster_with(cohort, forged, kem_keys))
    cohort.finish()


@signed
def test_signed_advertisement_of_an_old_session(make):
    """The advertisement of session 0 is replayed in session 1."""
    old = body_of(Cohort(make()).move(2)[1])
    cohort = Cohort(make(number=1)).trip()
    kem_keys = None
    if cohort.params.suite.hybrid:
        kem_key = old[32 : 32 + KEM_KEY]
        old = old[:32] + hashlib.sha256(kem_key).digest() + old[32 + KEM_KEY :]
        kem_keys = entries_of(cohort)[2][:KEM_KEY] + kem_key
    replayed = roster_with(cohort, entry(2, lambda e: old), kem_keys)
    refused(cohort, 0, replayed, match="signature does not verify")


@suites
def test_old_roster_is_refused(make):
    old = Cohort(make()).trip().mail[0]
    cohort = Cohort(make()).trip()
    refused(cohort, 0, old, match="own advertisement")


@suites
def test_server_refuses_bad_advertisements(make):
    cohort = Cohort(make())
    good = cohort.move_again(1)
    with pytest.raises(PeerError, match="small order") as caught:
        cohort.server.receive(1, reframed(good, bytes(32) + body_of(good)[32:]))
    assert caught.value.culprit == 1
    late = cohort.clients[0]
    cohort.send(dropping={0})
    with pytest.raises(PeerError, match="client 0: advertises a public key that another"):
        cohort.server.receive(0, cohort.sent[2])
    own = late.advertise()[1]
    if make is hybrid:  # either key
        for stolen in (
            body_of(own)[:32] + body_of(cohort.sent[2])[32:],
            body_of(cohort.sent[2])[:32] + body_of(own)[32:],
        ):
            with pytest.raises(PeerError, match="client 0: advertises a public key that another"):
                cohort.server.receive(0, reframed(own, stolen))
    cohort.server.receive(0, own)


@signed
def test_server_refuses_an_advertisement_signed_by_another(make):
    cohort = Cohort(make())
    with pytest.raises(PeerError, match="client 1: signature"):
        cohort.server.receive(1, cohort.move_again(2))
    own, other = cohort.move_again(1), cohort.move_again(2)
    signature = body_of(own)[-64:]
    with pytest.raises(PeerError, match="client 1: signature"):
        cohort.server.receive(1, reframed(own, body_of(other)[:-64] + signature))


def test_identity_key_must_match_the_parameters():
    for identity in (None, IDENTITIES[1], b"short"):
        with pytest.raises(MisuseError):
            ClientAdvertise(malicious(), 0, floors=LEAST, identity=identity)
    with pytest.raises(MisuseError):
        ClientAdvertise(semi_honest(), 0, floors=LEAST, identity=IDENTITIES[0])


@suites
def test_roster_below_the_floor(make):
    cohort = Cohort(make(), floors=replace(LEAST, clients=4)).trip(dropping={3})
    with pytest.raises(TooFewSurvivors, match="3 left, 4 needed") as caught:
        cohort.move(0)
    assert caught.value.code is Code.BELOW_FLOOR


@suites
def test_too_few_holders_to_share_among_or_to_rely_on(make):
    """The client leaves before it entrusts its secrets to fewer than t holders."""
    cohort = Cohort(make()).trip()
    _, entries, kem_keys = entries_of(cohort)
    few = reframed(cohort.mail[0], b"\x03" + b"".join(entries[:2]) + kem_keys[:KEM_KEY])
    with pytest.raises(TooFewSurvivors, match="holders in the roster: 2 left, 3 needed"):
        reads(cohort, few)
    at(cohort, Trip.SHARE)
    if make is hybrid:
        few = reframed(cohort.mail[0], b"\x03")  # client 1 makes no ciphertext for 0
        with pytest.raises(TooFewSurvivors, match="holders that encapsulated: 2 left, 3 needed"):
            reads(cohort, few)
    at(cohort, Trip.MASK)
    few = inbox(cohort, 0, [boxes_of(cohort, 0)[1]], present=b"\x03")
    refused(cohort, 0, few, match="holders that shared: 2 left, 3 needed", error=TooFewSurvivors)


def test_a_roster_under_anothers_header(cohort):
    """Of a session of other parameters, whatever stands before it: the own entry is not in it."""
    other = Cohort(semi_honest(number=1)).trip().mail[0]
    cohort.trip()
    refused(cohort, 0, under(other, cohort.mail[0]), match="own advertisement")
