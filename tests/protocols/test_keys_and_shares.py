"""Keys against the RFCs' answers; sharing against Lagrange in plain integers; the graph."""

import hmac
import random

import numpy as np
import pytest
from cohorts import semi_honest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import MisuseError, PeerError, keys, shamir
from flora_protocols.codec import Bitmap, Reader, encode_subset
from flora_protocols.graph import Graph

SESSION = bytes(range(32))


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
        *((base[0], purpose, *base[2:]) for purpose in (keys.SELF_MASK, keys.MASK_KEY, keys.TRANSPORT)),
        (*base[:2], SESSION[::-1], 3, 7),
        (*base[:3], 4, 7),
        (*base[:3], 3, 8),
        (*base[:3], 7, 3),
    ]
    assert len({keys.derive(*other) for other in [base, *others]}) == len(others) + 1


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


def test_sealed_shares_open_only_where_they_belong():
    masks = b"\2" * 32, b"\3" * 32
    channel = keys.Channel.between(b"\1" * 32, masks, SESSION, 3, 7)
    sealed = channel.seal(b"pair", 3, 7)
    assert channel.open(sealed, 3, 7) == b"pair"
    assert channel.seal(b"pair", 7, 3) != sealed
    elsewhere = keys.Channel.between(b"\1" * 32, masks, SESSION[::-1], 3, 7)
    swapped = keys.Channel.between(b"\1" * 32, masks, SESSION, 3, 8)
    forged = keys.Channel.between(b"\1" * 32, (masks[0], masks[0]), SESSION, 3, 7)
    wrong = (channel, 7, 3), (channel, 3, 8), (elsewhere, 3, 7), (swapped, 3, 7), (forged, 3, 7)
    for other, sender, recipient in wrong:
        with pytest.raises(PeerError) as caught:
            other.open(sealed, sender, recipient)
        assert caught.value.culprit == sender
    moved = keys.Channel.between(b"\1" * 32, masks, SESSION, 3, 7)
    moved._session = bytes(32)  # the same key under another session's name: the associated data differ
    with pytest.raises(PeerError):
        moved.open(sealed, 3, 7)
    assert "01" * 8 not in repr(channel) + str(caught.value)


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


@settings(max_examples=40)
@given(st.data())
def test_any_t_shares_give_the_secret(data):
    points = tuple(sorted(data.draw(st.sets(st.integers(1, 65536), min_size=2, max_size=12))))
    threshold = data.draw(st.integers(2, len(points)))
    secrets = data.draw(st.binary(min_size=32, max_size=32))
    rows = shamir.split(secrets, points, threshold, random.Random(data.draw(st.integers(0))).randbytes)
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
    shares = shamir.split(bytes(16), points, 3, random.Random(1).randbytes)[None]
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
    good = shamir.split(bytes(range(32)), points, 4, random.Random(2).randbytes)
    for holder in range(7):
        bad = good.copy()
        bad[holder, 3] ^= 1
        _, sound = shamir.combine(np.array([points]), bad.reshape(1, 7, 2, shamir.SHARE).transpose(0, 2, 1, 3), 4)
        assert sound.tolist() == [[False, True]]


def test_groups_at_different_points():
    """Three groups of two secrets, each group at points of its own, one share of one secret wrong."""
    points = [(1, 5, 9, 11), (2, 3, 4, 65536), (7, 8, 20, 30)]
    secrets = [bytes([value]) * 32 for value in (1, 2, 3)]
    rows = [shamir.split(secret, at, 3, random.Random(4).randbytes) for secret, at in zip(secrets, points, strict=True)]
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


def test_coefficients_are_exactly_uniform():
    """The one 32-bit word that would favour a remainder is drawn again."""
    draws = iter([b"\xff" * 8, b"\1\0\1\0" + b"\5\0\0\0"])
    assert shamir._uniform(2, lambda size: next(draws)).tolist() == [0.0, 5.0]
    assert (2**32 - 1) % shamir.P == 0


def test_products_stay_exact_at_the_largest_threshold():
    assert (1 << 16) * shamir.P**2 < 2**53
    points = tuple(range(65_000, 65_400))
    secret = b"\xff" * 16
    shares = shamir.split(secret, points, 390, lambda size: b"\0\0\1\0" * (size // 4))  # every coefficient p - 1
    found, sound = shamir.combine(np.array([points]), shares[None, None], 390)
    assert found.tobytes() == secret
    assert sound.all()


# Graph


@pytest.mark.parametrize(("clients", "neighbours"), [(5, 2), (8, 4), (9, 6), (100, 12)])
def test_harary_graph(clients, neighbours):
    graph = Graph(clients, neighbours, SESSION)
    near = {node: set(graph.holders(node)) for node in range(clients)}
    assert all(len(others) == neighbours and node not in others for node, others in near.items())
    assert all(node in near[other] for node, others in near.items() for other in others)
    assert all(graph.members(node) == tuple(sorted(near[node] | {node})) for node in near)
    assert graph.neighbourhoods.tolist() == [list(graph.members(node)) for node in near]
    assert graph.holdings.tolist() == [list(graph.holders(node)) for node in near]
    chosen = random.Random(1)
    for _ in range(100):  # k - 1 dropouts never disconnect it
        gone = chosen.sample(range(clients), neighbours - 1)
        left, reached = set(range(clients)).difference(gone), set()
        frontier = {min(left)}
        while frontier:
            reached |= frontier
            frontier = set().union(*(near[node] for node in frontier)) & left - reached
        assert reached == left


def test_the_graph_follows_from_its_seed():
    one, again, other = (Graph(50, 8, seed) for seed in (SESSION, SESSION, SESSION[::-1]))
    assert [one.members(i) for i in range(50)] == [again.members(i) for i in range(50)]
    assert [one.members(i) for i in range(50)] != [other.members(i) for i in range(50)]
    seeds = {tuple(semi_honest(9, 4, round=number).graph.members(0)) for number in range(12)}
    assert len(seeds) > 3


def test_the_server_cannot_grind_the_graph_through_the_model():
    graphs = [semi_honest(30, 4, model_hash=bytes([value]) * 32).graph for value in (1, 2)]
    assert [graphs[0].members(i) for i in range(30)] == [graphs[1].members(i) for i in range(30)]


# Bitmaps


@given(st.integers(1, 70), st.data())
def test_a_bitmap_is_a_set(size, data):
    """As written and as kept: the same bytes, the same members; and bits beyond are refused."""
    one, other = (data.draw(st.sets(st.integers(0, size - 1))) for _ in range(2))
    raw = encode_subset(range(size), one)
    assert int.from_bytes(raw, "little") == sum(1 << member for member in one)
    bitmap = Reader(memoryview(raw), 1).bitmap(size)
    assert (bitmap.raw, list(bitmap), len(bitmap)) == (raw, sorted(one), len(one))
    assert {member for member in range(size) if member in bitmap} == one
    assert Reader(memoryview(raw), 1).subset(range(size)) == tuple(sorted(one))
    assert set(bitmap.without(Bitmap(encode_subset(range(size), other)))) == one - other
    members = tuple(3 * at + 1 for at in range(size))
    assert encode_subset(members, [3 * at + 1 for at in one]) == raw
    if size % 8:
        beyond = raw[:-1] + bytes((raw[-1] | 128,))
        for read in (lambda reader: reader.bitmap(size), lambda reader: reader.subset(members)):
            with pytest.raises(PeerError, match=f"beyond its {size} members"):
                read(Reader(memoryview(beyond), 1))
