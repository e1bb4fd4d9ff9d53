"""The hybrid suite: KEM keys and ciphertexts that were changed, and that a channel rests on both of its secrets.

Attacks with rosters and inboxes that are the same in both suites are in the other files, for both.
"""

import hashlib
from unittest.mock import Mock

import pytest
from attacker import (
    at,
    body_of,
    boxes_of,
    closed,
    collected,
    entries_of,
    inbox,
    others_send,
    reframed,
    refused,
    replaced,
)
from cohorts import LEAST, Cohort, hybrid, malicious, semi_honest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from flora_protocols import (
    Bitmap,
    ClientAdvertise,
    Code,
    PeerError,
    ServerAdvertise,
    ServerShare,
    Suite,
    TooFewSurvivors,
    Trip,
    UnsoundShares,
    client,
    suites,
)
from flora_protocols.member import Member
from flora_protocols.suites import CIPHERTEXT, KEM_KEY, kem_public

KEM = Suite.X25519_MLKEM768
Q = 3329


def signed_hybrid(clients=4, **more):
    return malicious(clients, suite=KEM, **more)


profiles = pytest.mark.parametrize("make", [hybrid, signed_hybrid])


# KEM keys


def not_canonical(key):
    """The KEM key with its first coefficient q more, or q itself where that does not fit 12 bits."""
    coefficient = int.from_bytes(key[:2], "little") & 0xFFF
    larger = coefficient + Q if coefficient + Q < 1 << 12 else Q
    return (int.from_bytes(key[:2], "little") & 0xF000 | larger).to_bytes(2, "little") + key[2:]


@profiles
def test_a_kem_key_that_is_not_canonical_is_not_taken(make):
    """C-22, at the server: coefficients of q and more, in every place."""
    cohort = Cohort(make())
    good = cohort.move_again(1)
    key = body_of(good)[32 : 32 + KEM_KEY]
    last = bytearray(key)
    last[1150], last[1151] = 0xFF, 0xFF  # of the last coefficient, 4095
    for bad in (not_canonical(key), bytes(last), b"\xff" * 1152 + key[1152:], (b"\x01\x0d\0" + key[3:])):
        assert bad != key
        with pytest.raises(PeerError, match="client 1: not an ML-KEM-768 public key") as caught:
            cohort.server.receive(1, reframed(good, body_of(good)[:32] + bad + body_of(good)[32 + KEM_KEY :]))
        assert caught.value.code is Code.BAD_KEY
    cohort.finish()


def kem_roster(cohort, whose, key, entry_too=True):
    """Client 0's roster with another KEM key of client 1 or 2, and its hash in the entry."""
    present, entries, kem_keys = entries_of(cohort)
    place = KEM_KEY * (whose - 1)
    assert len(kem_keys) == 2 * KEM_KEY
    if entry_too:
        entries[whose] = entries[whose][:32] + hashlib.sha256(key).digest() + entries[whose][64:]
    changed = kem_keys[:place] + key + kem_keys[place + KEM_KEY :]
    return reframed(cohort.mail[0], present + b"".join(entries) + changed)


def kem_keys_of(cohort):
    kem_keys = entries_of(cohort)[2]
    return kem_keys[:KEM_KEY], kem_keys[KEM_KEY:]


def test_a_kem_key_that_is_not_canonical_in_the_roster():
    """C-22, at the client, hash right: encapsulating to it must not be tried."""
    cohort = Cohort(hybrid()).trip()
    bad = kem_roster(cohort, 2, not_canonical(kem_keys_of(cohort)[1]))
    refused(cohort, 0, bad, match="not an ML-KEM-768 public key")


@profiles
def test_a_kem_key_without_its_hash_in_the_roster(make):
    """The key of the server's, or of another client; the entries, which everybody sees and signs, are the true ones."""
    cohort = Cohort(make()).trip()
    first, second = kem_keys_of(cohort)
    flipped = second[:-1] + bytes((second[-1] ^ 1,))  # in rho: a sound key, but another one
    for key in (first, kem_public(b"k" * 64), flipped):
        with pytest.raises(PeerError, match="client 2's KEM key is not the one of its entry") as caught:
            replaced(cohort, 0, kem_roster(cohort, 2, key, entry_too=False))
        assert (caught.value.culprit, caught.value.code) == ("server", Code.BAD_KEY)
    refused(cohort, 0, kem_roster(cohort, 1, second, entry_too=False), match="client 1's KEM key is not")


def test_kem_keys_that_have_changed_places():
    """With their hashes: the roster is another one, and nobody takes what follows from it."""
    cohort = Cohort(hybrid()).trip()
    present, entries, kem_keys = entries_of(cohort)
    entries[1], entries[2] = entries[1][:32] + entries[2][32:], entries[2][:32] + entries[1][32:]
    swapped = kem_keys[KEM_KEY:] + kem_keys[:KEM_KEY]
    _, answer = replaced(cohort, 0, reframed(cohort.mail[0], present + b"".join(entries) + swapped))
    with pytest.raises(PeerError, match="client 0: the message belongs to another session"):
        cohort.server.receive(0, answer)
    cohort.finish()


@profiles
def test_missing_and_surplus_kem_keys(make):
    cohort = Cohort(make()).trip()
    body = body_of(cohort.mail[0])
    for bad, text in (
        (body[:-KEM_KEY], "truncated"),
        (body[:-1], "truncated"),
        (body + body[-KEM_KEY:], "1184 bytes left over"),
        (body + b"\0", "1 bytes left over"),
    ):
        with pytest.raises(PeerError, match=text) as caught:
            replaced(cohort, 0, reframed(cohort.mail[0], bad))
        assert caught.value.code is Code.BAD_BODY
    cohort.finish()


# Ciphertexts


def changed_delivery(cohort, index, change):
    """The DELIVERY of client `index` with a change of its ciphertexts, a list."""
    body = body_of(cohort.mail[index])
    made = [body[place : place + CIPHERTEXT] for place in range(1, len(body), CIPHERTEXT)]
    change(made)
    cohort.mail = dict(cohort.mail) | {index: reframed(cohort.mail[index], body[:1] + b"".join(made))}


def swap(made):
    made[0], made[1] = made[1], made[0]


def damage(made):
    made[0] = made[0][:500] + bytes((made[0][500] ^ 1,)) + made[0][501:]


@profiles
@pytest.mark.parametrize(("change", "harmed"), [(swap, 2), (damage, 1)], ids=["swapped", "damaged"])
def test_ciphertexts_changed_by_the_server(make, change, harmed):
    """Implicit rejection: client 5 has another secret than who made the ciphertext. Neither opens the other's box, and
    both say so with their upload. A round with both would be noise: nobody is announced. One without client 5 is
    right."""
    cohort = at(Cohort(make(6, threshold=4, slots=2, bits=32, dimension=50)), Trip.SHARE)
    makers = [peer for peer in range(5) if cohort.params.graph.encapsulates(peer, 5)]
    changed_delivery(cohort, 5, change)
    at(cohort, Trip.MASK).send()
    with pytest.raises(UnsoundShares, match="open nothing of each other"):
        cohort.server.close()
    hit = set(makers[:harmed])
    assert cohort.prepared.complaints == {5: hit} | {peer: {5} for peer in hit}
    others = [peer for peer in range(6) if peer != 5]
    if harmed == 2:  # one more than may be corrupt has complained: client 5 is left out by itself
        assert list(cohort.prepared.accused) == [5]
    assert set(cohort.prepared.clients) == set(others) - (hit if harmed == 1 else set())
    cohort.again(invited=Bitmap.of(6, others))
    cohort.mail = dict.fromkeys(others, b"")
    assert cohort.finish().survivors == tuple(others)


@profiles
def test_ciphertexts_of_another_session(make):
    """Made for keys of another set-up: the header is refused; forged, they decapsulate to nothing that anybody has."""
    old = at(Cohort(make(number=1)), Trip.SHARE).mail[0]
    cohort = at(Cohort(make()), Trip.SHARE)
    with pytest.raises(PeerError, match="another session"):
        replaced(cohort, 0, old)
    cohort.mail = dict(cohort.mail) | {0: reframed(cohort.mail[0], body_of(old))}
    closed(others_send(cohort))
    complaints = {}
    for index in range(4):
        complaints[index] = set(collected(cohort, index).unopened)
    makers = {peer for peer in range(1, 4) if cohort.params.graph.encapsulates(peer, 0)}
    assert complaints == {0: makers} | {index: {0} if index in makers else set() for index in range(1, 4)}


@profiles
def test_missing_and_surplus_ciphertexts(make):
    """In CIPHERTEXTS, culprit the client, and in DELIVERY, culprit the server."""
    cohort = at(Cohort(make()), Trip.ENCAPSULATE)
    good = cohort.move_again(0)
    for bad in (body_of(good)[:-CIPHERTEXT], body_of(good)[:-1], b"", body_of(good) + bytes(CIPHERTEXT)):
        with pytest.raises(PeerError) as caught:
            cohort.server.receive(0, reframed(good, bad))
        assert caught.value.culprit == 0
        assert caught.value.code in (Code.BAD_BODY, Code.NOT_A_MESSAGE)
    at(cohort, Trip.SHARE)
    body = body_of(cohort.mail[0])
    for bad in (body[:-CIPHERTEXT], body[:-1], body[:1], body + bytes(CIPHERTEXT), body + b"\0"):
        with pytest.raises(PeerError) as caught:
            replaced(cohort, 0, reframed(cohort.mail[0], bad))
        assert (caught.value.culprit, caught.value.code) == ("server", Code.BAD_BODY)
    cohort.finish()


@profiles
def test_delivery_that_denies_or_invents(make):
    """C-34, C-35, C-38: without the client itself, of who is not in the roster, of fewer than t holders."""
    cohort = at(Cohort(make(5, threshold=3)).trip(dropping={4}), Trip.SHARE)
    body = body_of(cohort.mail[0])
    invented = bytes(CIPHERTEXT) * cohort.params.graph.encapsulates(4, 0)
    for bad, text, code in (
        (b"\x0e" + body[1:], "DELIVERY says that client 0 sent nothing, but it did", Code.BAD_INBOX),
        (b"\x1f" + body[1:] + invented, r"the delivery is of \[4\], who are not in the roster", Code.BAD_INBOX),
    ):
        with pytest.raises(PeerError, match=text) as caught:
            replaced(cohort, 0, reframed(cohort.mail[0], bad))
        assert (caught.value.culprit, caught.value.code) == ("server", code)
    few = reframed(cohort.mail[0], b"\x03")  # of client 1, which client 0 has encapsulated to
    refused(cohort, 0, few, match="holders that encapsulated: 2 left, 3 needed", error=TooFewSurvivors)


@profiles
def test_who_drops_in_encapsulate_is_nobodys_peer(make):
    cohort = at(Cohort(make(6, threshold=4, slots=2)), Trip.ENCAPSULATE).trip(dropping={2})
    assert isinstance(cohort.server, ServerShare)
    at(cohort, Trip.MASK)
    assert 2 not in collected(cohort, 0)._slots.peers
    assert cohort.finish().survivors == (0, 1, 3, 4, 5)


# What the channel rests on


def shares_of(channel, kem, randomness=1):
    """Client 0's SHARES where its channel secret and its KEM's secrets are these; all else is the same."""
    draws = iter([bytes([randomness]) * 32, channel, b"s" * 64])
    params = hybrid(threshold=2)
    positions = {i: ClientAdvertise(params, i, floors=LEAST) for i in range(4)}
    server, moved = ServerAdvertise(params), {}
    for i, position in positions.items():
        fixed = iter([bytes([i + 10]) * 32, bytes([i + 20]) * 32, bytes([i + 30]) * 64])
        moved[i], message = position.advertise(lambda size, fixed=fixed, i=i: next(draws if i == 0 else fixed))
        server.receive(i, message)
    server, rosters = server.close()
    for i in moved:
        secret = kem if i == 0 else bytes([i]) * 32
        made = [(secret, bytes([i, number]) * 544) for number in range(2)]
        moved[i], message = moved[i].encapsulate(rosters[i], Mock(side_effect=made))
        server.receive(i, message)
    _, deliveries = server.close()
    position, shares = moved[0].share(deliveries[0])
    return position, shares


def test_the_channel_rests_on_both_secrets():
    """Box keys, derived keys and slot keys part when either X25519 or ML-KEM gives another secret. (A ciphertext that
    another made stays as it is here, so that only those to whom client 0 has encapsulated are concerned.)"""
    base, _ = shares_of(b"c" * 32, b"k" * 32)
    other_kem, _ = shares_of(b"c" * 32, b"K" * 32)
    other_channel, _ = shares_of(b"C" * 32, b"k" * 32)
    to = [peer for peer in range(1, 4) if hybrid(threshold=2).graph.encapsulates(0, peer)]
    assert base._session == other_kem._session
    for name in ("_box_keys", "_pair_keys", "_derived"):
        mine, kem, channel = (getattr(position, name) for position in (base, other_kem, other_channel))
        for peer in mine:
            assert (mine[peer] == kem[peer]) == (peer not in to), (name, peer)
            assert mine[peer] != channel[peer]


@pytest.mark.parametrize("make", [semi_honest, hybrid])
def test_the_channel_binds_both_public_keys(make):
    """In the order of their owners, whichever end it is: so that who was told another key has another secret even where
    X25519 gave the same."""
    params = make()
    private = {i: X25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 3)}
    public = {i: key.public_key().public_bytes_raw() for i, key in private.items()}
    joined = private[1].exchange(private[3].public_key()) + public[1] + public[3]
    for index, peer in ((1, 3), (3, 1)):
        assert client._agreed(Member(params, index, LEAST), private[index], {peer: public[peer]}) == {peer: joined}


@profiles
def test_what_is_dealt_follows_from_what_was_said(make):
    """Told the same again, a client deals the same bytes; told another DELIVERY, other secrets altogether: no two
    answers from one dump belong to one polynomial."""
    cohort = at(Cohort(make(6, threshold=4, slots=2)), Trip.SHARE)
    one, again = (replaced(cohort, 5, cohort.mail[5]) for _ in range(2))
    assert one[1] == again[1]
    changed_delivery(cohort, 5, damage)
    other, _ = replaced(cohort, 5, cohort.mail[5])
    seeds = {bytes(position._seeds[place : place + 16]) for position in (one[0], other) for place in (0, 16)}
    assert len(seeds) == 4


def test_a_roster_that_was_changed_gives_other_secrets():
    """In suite 1: what client 0 deals after a forged roster has nothing to do with what it deals after the true one."""
    cohort = Cohort(semi_honest(8, 6, threshold=3)).trip()
    true, _ = replaced(cohort, 0, cohort.mail[0])
    body = bytearray(body_of(cohort.mail[0]))
    body[1] ^= 1  # in the claimed hash of all entries
    forged, _ = replaced(cohort, 0, reframed(cohort.mail[0], bytes(body)))
    assert true._seeds != forged._seeds
    assert not set(true._box_keys.values()) & set(forged._box_keys.values())


def test_the_kem_is_the_published_one():
    """Sizes of FIPS 203, table 3; both ends agree, and another's ciphertext gives another secret."""
    seed = bytes(range(64))
    key = kem_public(seed)
    assert len(key) == KEM_KEY
    secret, ciphertext = suites.encapsulate(key)
    assert (len(secret), len(ciphertext)) == (suites.KEM_SECRET, CIPHERTEXT)
    opened = suites.decapsulator(seed)
    assert opened(ciphertext) == secret
    assert opened(bytes(CIPHERTEXT)) != opened(b"\1" * CIPHERTEXT)
    assert suites.decapsulator(seed[::-1])(ciphertext) != secret
    with pytest.raises(ValueError):
        suites.encapsulate(key[:-1])
    with pytest.raises(ValueError):
        suites.encapsulate(not_canonical(key))


def test_both_ends_of_a_box_in_both_suites():
    """A hybrid box does not open in the other suite, nor the other way round, whatever stands before it."""
    weak, strong = at(Cohort(semi_honest()), Trip.MASK), at(Cohort(hybrid()), Trip.MASK)
    boxes = boxes_of(weak, 3)
    with pytest.raises(TooFewSurvivors, match="boxes that opened"):
        strong.clients[3].collect(inbox(strong, 3, boxes.values()))
