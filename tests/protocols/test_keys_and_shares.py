"""Keys against the RFCs' answers; sharing against Lagrange in plain integers."""

import hashlib
import hmac
import random

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import MisuseError, PeerError, keys, shamir

SESSION = bytes(range(32))
PURPOSES = (
    keys.BOX,
    keys.PAIR_ROOT,
    keys.SHARING,
    keys.DERIVED,
    keys.CONFIRMATION,
    keys.OPENER,
    keys.COMMITMENT,
    keys.SELF_MASK,
    keys.PAIR_MASK,
    keys.PAIR_TAG,
    keys.ADVERTISEMENT,
    keys.SURVIVORS,
)


def test_x25519_answer_of_rfc_7748():
    """Section 6.1: what Alice and Bob agree on."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob_public = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    agreed = keys.exchange(X25519PrivateKey.from_private_bytes(alice), bob_public, 1)
    assert agreed.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_is_its_32_bytes(raw):
    """Canonical or not: what is refused is refused by the checks, not by the parser."""
    assert keys.public_key(raw) == X25519PublicKey.from_public_bytes(raw)
    for other in (raw[:31], raw + b"\0"):
        with pytest.raises(ValueError, match=r"\S"):
            keys.public_key(other)


def test_hkdf_answer_of_rfc_5869():
    """Test case 3 (no salt, no info), the first 32 bytes."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert keys.hkdf(b"\x0b" * 22, b"").hex() == expected


def test_derived_keys_are_bound_to_everything():
    """HKDF spelled out with HMAC, and a different key for every argument changed."""
    base = (b"\1" * 32, keys.PAIR_MASK, SESSION, 3, 7)
    extracted = hmac.digest(bytes(32), base[0], "sha256")
    info = keys.PAIR_MASK + SESSION + b"\3\0\0\0\7\0\0\0"
    assert keys.derive(*base) == hmac.digest(extracted, info + b"\1", "sha256")
    others = [
        (b"\2" * 32, *base[1:]),
        *((base[0], purpose, *base[2:]) for purpose in PURPOSES if purpose != keys.PAIR_MASK),
        (*base[:2], SESSION[::-1], 3, 7),
        (*base[:3], 4, 7),
        (*base[:3], 3, 8),
        (*base[:3], 7, 3),
    ]
    assert len({keys.derive(*other) for other in [base, *others]}) == len(others) + 1


def test_purposes_are_apart():
    """None begins another: what is hashed or signed for one purpose is nothing for the others."""
    assert len({*PURPOSES}) == len(PURPOSES)
    for one in PURPOSES:
        assert one.startswith(b"flora-secure/2 ")
        assert one.endswith(b"\0")
        assert not any(other.startswith(one) for other in PURPOSES if other != one)


def test_a_pair_has_one_mask_and_one_tag():
    """The same at both ends, another for every slot key, round and pair; the tag tells nothing but itself."""
    key, scope = b"\1" * 16, SESSION
    mask = keys.pair_mask(key, scope, 3, 7)
    assert mask == keys.pair_mask(key, scope, 7, 3) == keys.derive(key, keys.PAIR_MASK, scope, 3, 7)
    others = [(b"\2" * 16, scope, 3, 7), (key, scope[::-1], 3, 7), (key, scope, 3, 8), (key, scope, 2, 7)]
    assert len({mask, *(keys.pair_mask(*other) for other in others)}) == 5
    assert keys.pair_tag(mask) == hashlib.sha256(keys.PAIR_TAG + mask).digest()[:8]


def test_a_commitment_binds_seed_client_slot_and_session():
    base = (b"\1" * 16, SESSION, 3, 7)
    text = keys.COMMITMENT + SESSION + b"\3\0\0\0\7\0\0\0" + base[0]
    assert keys.commitment(*base) == hashlib.sha256(text).digest()[:16]
    others = [(b"\2" * 16, *base[1:]), (base[0], SESSION[::-1], 3, 7), (*base[:2], 4, 7), (*base[:2], 3, 8)]
    assert len({keys.commitment(*one) for one in [base, *others]}) == 5


def test_every_small_order_point_is_refused():
    """The list is complete and right: the library gives zero, which it refuses, for these and their other encodings."""
    private = X25519PrivateKey.from_private_bytes(SESSION)
    assert len(keys.SMALL_ORDER) == 5
    for raw in keys.SMALL_ORDER:
        with pytest.raises(ValueError):
            private.exchange(X25519PublicKey.from_public_bytes(raw))
        with pytest.raises(PeerError, match="small order"):
            keys.exchange(private, raw, 1)
        with pytest.raises(PeerError, match="client 1: public key has small order"):
            keys.check_publics([raw], 1)


@pytest.mark.parametrize("point", [2**255 - 19, 2**255 - 18, 2**255 - 1, 2**255 + 9, 2**256 - 1])
def test_second_encodings_are_refused(point):
    with pytest.raises(PeerError, match="canonical"):
        keys.check_publics([point.to_bytes(32, "little")], 1)


def test_the_largest_canonical_key_is_accepted():
    keys.check_publics([(2**255 - 21).to_bytes(32, "little")], 1)


def test_a_box_opens_only_where_it_belongs():
    """AES-256-SIV under the box key and what it grows to, bound to session, sender and recipient."""
    box = keys.Box(b"\1" * 32, SESSION)
    sealed = box.seal(b"shares" * 9, 3, 7)
    assert box.open(sealed, 3, 7) == b"shares" * 9
    context = SESSION + b"\3\0\0\0\7\0\0\0"
    grown = b"\1" * 32 + hashlib.sha256(keys.BOX + b"\1" * 32).digest()
    assert sealed == AESSIV(grown).encrypt(b"shares" * 9, [context])
    assert len(sealed) == 54 + keys.TAG
    assert box.open(sealed, 7, 3) is None
    assert box.open(sealed, 3, 8) is None
    for other in (keys.Box(b"\2" * 32, SESSION), keys.Box(b"\1" * 32, SESSION[::-1])):
        assert other.open(sealed, 3, 7) is None
    for place in range(len(sealed)):
        bad = sealed[:place] + bytes((sealed[place] ^ 1,)) + sealed[place + 1 :]
        assert box.open(bad, 3, 7) is None
    for cut in (sealed[:-1], sealed[:16], sealed + b"\0"):
        assert box.open(cut, 3, 7) is None
    assert "01" * 8 not in repr(box)


def test_two_texts_in_one_box_show_that_they_differ_and_no_more():
    """No nonce that could come twice: the same text gives the same bytes, another one shares none with it."""
    box = keys.Box(b"\1" * 32, SESSION)
    one, same, other = (box.seal(text, 3, 7) for text in (bytes(680), bytes(680), bytes(679) + b"\1"))
    assert one == same
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 40  # 2.7 by chance; 40 never


def test_what_derivers_confirm():
    key = keys.derive(b"\1" * 128, keys.DERIVED, SESSION, 7, 3)
    assert keys.confirmation(key) == hashlib.sha256(keys.CONFIRMATION + key).digest()[:16]
    assert keys.derive(b"\1" * 128, keys.DERIVED, SESSION, 3, 7) != key  # who deals and who derives


def test_a_bad_source_of_randomness_is_misuse():
    for bad in (lambda size: b"short", lambda size: [0] * size):
        with pytest.raises(MisuseError):
            keys.draw(bad, 16)


# Shamir


def lagrange_in_plain_integers(points, values):
    """The polynomial's value at 0, limb by limb."""
    total = [0] * shamir.LIMBS
    for x, value in zip(points, values, strict=True):
        weight = 1
        for other in points:
            if other != x:
                weight = weight * -other * pow(x - other, -1, shamir.P) % shamir.P
        total = [(part + weight * int(limb)) % shamir.P for part, limb in zip(total, value, strict=True)]
    return total


def split(secrets, points, threshold, seed):
    """Shares at all `points`; those at the first t - 1 are drawn."""
    given, rest = points[: threshold - 1], points[threshold - 1 :]
    randomness = random.Random(seed).randbytes if isinstance(seed, int) else seed
    limbs = len(secrets) // 2
    values = shamir.uniform(limbs, [randomness for _ in given])
    drawn = shamir.encode(values.reshape(len(given), -1, shamir.LIMBS)).reshape(len(given), -1)
    return np.concatenate((drawn, shamir.split(secrets, given, values, rest)))


@settings(max_examples=40)
@given(st.data())
def test_any_t_shares_give_the_secret(data):
    points = tuple(sorted(data.draw(st.sets(st.integers(1, 65536), min_size=2, max_size=12))))
    threshold = data.draw(st.integers(2, len(points)))
    secrets = data.draw(st.binary(min_size=32, max_size=32))
    rows = split(secrets, points, threshold, data.draw(st.integers(0)))
    shares = rows.reshape(len(points), 2, shamir.SHARE).transpose(1, 0, 2)
    chosen = data.draw(st.permutations(range(len(points))))[: data.draw(st.integers(threshold, len(points)))]
    at = tuple(points[place] for place in chosen)
    found, sound = shamir.combine(np.array([at]), shares[None, :, chosen], threshold)
    assert found.tobytes() == secrets
    assert sound.all()
    limbs = lagrange_in_plain_integers(at[:threshold], shamir.decode(shares[0, chosen[:threshold]]))
    assert b"".join(limb.to_bytes(2, "little") for limb in limbs) == secrets[:16]


def test_fewer_than_t_shares_fit_every_secret():
    """Two of three shares: for any other secret there is exactly one third share, so they say nothing."""
    points = (1, 2, 3)
    shares = split(bytes(16), points, 3, 1)[None]
    rng = np.random.default_rng(0)
    candidates = set()
    for _ in range(20):
        forged = shares.copy()
        forged[0, 2, :16] = rng.integers(0, 256, 16)
        forged[0, 2, 16] = 0
        candidates.add(shamir.combine(np.array([points]), forged[None], 3)[0].tobytes())
    assert len(candidates) == 20


def test_shares_beyond_the_threshold_must_lie_on_the_polynomial():
    points = tuple(range(1, 8))
    good = split(bytes(range(32)), points, 4, 2)
    for holder in range(7):
        bad = good.copy()
        bad[holder, 3] ^= 1
        _, sound = shamir.combine(np.array([points]), bad.reshape(1, 7, 2, shamir.SHARE).transpose(0, 2, 1, 3), 4)
        assert sound.tolist() == [[False, True]]


def test_shares_are_those_of_a_polynomial_of_degree_t_minus_1():
    """The values that are given, the secret and the rest, limb by limb in plain integers, at several points."""
    points, secret = (1, 4, 9, 65_536, 77, 5), bytes(range(16))
    rows = shamir.decode(split(secret, points, 3, 5)[:, None])[:, 0]
    limbs = np.frombuffer(secret, "<u2")
    for chosen in ((0, 1, 2), (3, 4, 5), (0, 3, 5)):
        assert lagrange_in_plain_integers([points[c] for c in chosen], rows[list(chosen)]) == limbs.tolist()


def test_as_many_derivers_as_holders():
    """All shares but the owner's own are drawn: there is nothing to send."""
    values = shamir.uniform(16, [random.Random(6).randbytes] * 3)
    assert shamir.split(bytes(32), (2, 3, 4), values, (1,)).shape == (1, 34)


def test_groups_at_different_points():
    """Three groups of two secrets, each group at points of its own, one share of one secret wrong."""
    points = [(1, 5, 9, 11), (2, 3, 4, 65536), (7, 8, 20, 30)]
    secrets = [bytes([value]) * 32 for value in (1, 2, 3)]
    rows = [split(secret, at, 3, 4) for secret, at in zip(secrets, points, strict=True)]
    shares = np.stack(rows).reshape(3, 4, 2, shamir.SHARE).transpose(0, 2, 1, 3).copy()
    shares[1, 1, 3, 0] ^= 1
    found, sound = shamir.combine(np.array(points), shares, 3)
    assert found.tobytes() == b"".join(secrets)
    assert sound.tolist() == [[True, True], [True, False], [True, True]]


def test_every_logarithm():
    logarithm, power = shamir._logarithms()
    assert sorted(power) == list(range(1, shamir.P))
    assert (power[logarithm[1:]] == np.arange(1, shamir.P)).all()
    assert logarithm[0] == 0
    assert all(power[exponent] == pow(3, exponent, shamir.P) for exponent in range(0, shamir.P - 1, 97))


def test_encoding_of_shares():
    values = np.array([[0, 1, 65535, 65536, 2, 65536, 0, 7]])
    raw = shamir.encode(values)
    assert raw.tobytes() == bytes.fromhex("0000 0100 ffff 0000 0200 0000 0000 0700 28")
    assert (shamir.decode(raw) == values).all()
    assert shamir.canonical(raw)
    raw[0, 6] = 1  # limb 3 would be 65537
    assert not shamir.canonical(raw)


def test_drawn_values_are_exactly_uniform():
    """The one 32-bit word that would favour a remainder is drawn again."""
    draws = iter([b"\xff" * 8, b"\1\0\1\0" + b"\5\0\0\0"])
    assert shamir.uniform(2, [lambda size: next(draws)]).tolist() == [[0, 5]]
    assert shamir.uniform(0, [lambda size: b""]).tolist() == [[]]
    assert (2**32 - 1) % shamir.P == 0


def test_products_stay_exact_at_the_largest_threshold():
    assert (1 << 16) * shamir.P**2 < 2**53
    points = tuple(range(65_000, 65_400))
    secret = b"\xff" * 16
    shares = split(secret, points, 390, lambda size: b"\0\0\1\0" * (size // 4))  # all that is drawn is p - 1
    found, sound = shamir.combine(np.array([points]), shares[None, None], 390)
    assert found.tobytes() == secret
    assert sound.all()
