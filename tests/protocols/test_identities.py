"""Identity keys under which signatures mean nothing are refused, wherever they enter."""

import edwards
import pytest
from cohorts import IDENTITIES, malicious, semi_honest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from flora_protocols import Code, ParameterError, Profile, SessionParams, check_identities, identity_public
from flora_secure.errors import ConfigError
from flora_secure.rounds.enrolment import Enrolment

# All 14 strings of 32 bytes that a lenient decoder takes for a point of order 1, 2, 4 or 8: eight canonical ones, the
# neutral element and the point of order 2 with a wrong sign, and y + p where that fits.
SMALL = [
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
]
GOOD = tuple(identity_public(key) for key in IDENTITIES[:3])


def test_each_listed_key_has_small_order():
    for raw in SMALL:
        assert edwards.order_at_most_8(edwards.decoded(raw)), raw.hex()
    for raw in GOOD:
        assert not edwards.order_at_most_8(edwards.decoded(raw))


def test_the_list_is_complete():
    """Every encoding of each of the eight points, found from the curve alone."""
    points, found = edwards.torsion(), set()
    assert len(set(points)) == 8
    for x, y in points:
        for number in (y, y + edwards.P):
            for sign in (0, 1):
                raw = (number % (1 << 255) + (sign << 255)).to_bytes(32, "little")
                if number < 1 << 255 and edwards.decoded(raw) == (x, y):
                    found.add(raw)
    assert found == set(SMALL)


def test_anybody_signs_for_the_neutral_element():
    """The attack: one signature for every text, made without any key."""
    for text in (b"the survivors", b"other survivors"):
        Ed25519PublicKey.from_public_bytes(SMALL[0]).verify(SMALL[0] + bytes(32), text)


@pytest.mark.parametrize("small", SMALL, ids=lambda raw: raw.hex()[:4] + raw.hex()[-2:])
def test_small_identities_are_refused_wherever_they_enter(small):
    identities = (*GOOD, small)
    for enter in (
        lambda: check_identities(identities),
        lambda: SessionParams(
            clients=4,
            neighbours=3,
            threshold=3,
            bits=9,
            dimension=5,
            profile=Profile.MALICIOUS_SERVER,
            identities=identities,
        ),
        lambda: SessionParams.from_bytes(malicious().to_bytes(), identities),
        lambda: SessionParams.from_bytes(semi_honest().to_bytes(), identities),
    ):
        with pytest.raises(ParameterError, match="identity key of client 3 ") as caught:
            enter()
        assert caught.value.code is Code.BAD_KEY
    with pytest.raises(ConfigError, match="identity key of client 3 "):
        Enrolment(clients=4, identities=identities)


@pytest.mark.parametrize("number", [2**255 - 19, 2**255 - 18, 2**255 - 1, 2**256 - 1, 2**255 - 19 + 2**255])
def test_second_encodings_are_refused(number):
    with pytest.raises(ParameterError, match="not canonically encoded"):
        check_identities((number.to_bytes(32, "little"),))


def test_sound_keys_are_taken():
    check_identities(GOOD)
    check_identities(((2**255 - 21).to_bytes(32, "little"), (2**256 - 22).to_bytes(32, "little")))
