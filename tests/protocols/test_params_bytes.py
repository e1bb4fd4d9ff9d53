"""Parameters as bytes: one set, one encoding, and nothing else is taken."""

import hashlib
import struct

import pytest
from cohorts import IDENTITIES, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    Code,
    MisuseError,
    ParameterError,
    PeerError,
    Profile,
    SessionParams,
    Suite,
    identity_public,
)
from flora_protocols.params import PARAMS_BYTES

ENROLLED = tuple(identity_public(key) for key in IDENTITIES[:4])


def refused(data, identities=()):
    with pytest.raises(PeerError) as caught:
        SessionParams.from_bytes(data, identities)
    assert caught.value.culprit == "server"
    return caught.value.code


def proposal(identities=b"", **changes):
    """Bytes as SPEC.md, section 16, has them, whatever they say."""
    fields = {"version": 2, "suite": 1, "malicious": 0, "bits": 9, "slots": 1}
    fields |= {"n": 4, "k": 3, "t": 3, "corrupt": 0, "d": 5, "number": 0} | changes
    head = struct.pack("<4BH5IQ", *fields.values())
    cohort = head + hashlib.sha256(identities).digest()
    return b"fP" + head + hashlib.sha256(b"flora-secure/2 set-up\0" + cohort).digest()[:8]


def test_layout():
    assert semi_honest().to_bytes() == proposal()
    params = malicious(number=2**64 - 1, slots=1024, corrupt=1, suite=Suite.X25519_MLKEM768)
    changes = {"malicious": 1, "slots": 1024, "corrupt": 1, "suite": 2, "number": 2**64 - 1}
    assert params.to_bytes() == proposal(b"".join(params.identities), **changes)
    assert len(params.to_bytes()) == PARAMS_BYTES == 44


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_there_and_back(data):
    clients = data.draw(st.integers(2, 16))
    complete = clients < 4 or data.draw(st.booleans())
    neighbours = clients - 1 if complete else 2 * data.draw(st.integers(1, (clients - 2) // 2))
    holders, secure = clients if complete else neighbours, data.draw(st.booleans())
    params = SessionParams(
        clients=clients,
        neighbours=neighbours,
        threshold=data.draw(st.integers(holders // 2 + 1 if holders > 2 else 2, holders)),
        bits=data.draw(st.integers(8, 32)),
        dimension=data.draw(st.integers(1, 1 << 30)),
        profile=Profile.MALICIOUS_SERVER if secure else Profile.SEMI_HONEST,
        suite=data.draw(st.sampled_from(Suite)),
        slots=data.draw(st.integers(1, 1024)),
        number=data.draw(st.integers(0, 2**64 - 1)),
        identities=tuple(identity_public(key) for key in IDENTITIES[:clients]) if secure else (),
    )
    read = SessionParams.from_bytes(params.to_bytes(), params.identities)
    assert read == params
    assert read.setup_id == params.setup_id
    assert not any(key in params.to_bytes() for key in params.identities)


def test_what_is_no_parameters():
    good = proposal()
    for bad in (b"", b"f", b"fS" + good[2:], b"fp" + good[2:], good[:-1], good + b"\0", good[:3]):
        assert refused(bad) is Code.NOT_A_MESSAGE
    assert refused(proposal(version=1)) is Code.OTHER_VERSION
    assert refused(proposal(version=1) + b"more") is Code.OTHER_VERSION
    for unknown in (0, 3, 255):
        assert refused(proposal(suite=unknown)) is Code.OTHER_SUITE
    for bad in (None, "fP", bytearray(good), memoryview(good)):
        with pytest.raises(MisuseError, match="parameters are bytes"):
            SessionParams.from_bytes(bad)


@pytest.mark.parametrize("changes", [{"malicious": 2}, {"malicious": 3}, {"malicious": 255}])
def test_flags_are_canonical(changes):
    assert refused(proposal(**changes)) is Code.BAD_BODY


@pytest.mark.parametrize(
    "changes",
    [
        *({"n": 1}, {"n": 1 << 17}, {"n": 2**32 - 1}, {"k": 0}, {"k": 4}, {"n": 9, "k": 3}, {"t": 1}, {"t": 5}),
        *({"bits": 7}, {"bits": 33}, {"d": 0}, {"d": 2**31}, {"corrupt": 3}, {"corrupt": 2**32 - 1}, {"malicious": 1}),
        *({"slots": 0}, {"slots": 1025}, {"slots": 65_535}, {"n": 65_536, "k": 65_535, "slots": 17}),
    ],
)
def test_impossible_proposals(changes):
    assert refused(proposal(**changes)) is Code.PARAMETERS


def test_a_proposal_cannot_do_away_with_identities():
    """Whoever is enrolled takes no session without signatures, nor one of a weaker threshold."""
    assert refused(semi_honest().to_bytes(), ENROLLED) is Code.PARAMETERS
    assert refused(malicious().to_bytes(), ()) is Code.PARAMETERS
    assert refused(malicious().to_bytes(), ENROLLED[:3]) is Code.PARAMETERS
    joined = b"".join(ENROLLED)
    assert refused(proposal(joined, malicious=1, t=2), ENROLLED) is Code.PARAMETERS
    assert SessionParams.from_bytes(proposal(joined, malicious=1), ENROLLED) == malicious()


def test_other_identities_are_noticed():
    """In another order, or with a key of the server's in it."""
    for other in (ENROLLED[::-1], (*ENROLLED[:3], identity_public(bytes(32)))):
        assert refused(malicious().to_bytes(), other) is Code.OTHER_SESSION


@pytest.mark.parametrize("params", [semi_honest(), malicious(suite=Suite.X25519_MLKEM768, slots=7)])
def test_every_flipped_bit_is_refused(params):
    good = params.to_bytes()
    for at in range(8 * len(good)):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        refused(bytes(bad), params.identities)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=100), st.binary(min_size=40, max_size=40).map(lambda body: b"fP\2\1" + body)))
def test_anything_at_all(data):
    refused(data)


def test_enrolled_identities_that_cannot_be_are_the_callers_mistake():
    data = malicious().to_bytes()
    for identities in (list(ENROLLED), (*ENROLLED[:3], b"short"), None):
        with pytest.raises(MisuseError, match="identities"):
            SessionParams.from_bytes(data, identities)
    with pytest.raises(ParameterError, match="two clients have the same identity key"):
        SessionParams.from_bytes(data, (*ENROLLED[:3], ENROLLED[0]))
