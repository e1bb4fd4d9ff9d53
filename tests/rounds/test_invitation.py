"""Invitations: one encoding each, small, and nothing of a hostile one is computed with."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invitations import enrolment_of, invitation_of, secrets_of

from flora_protocols import Code, PeerError
from flora_secure.errors import ConfigError
from flora_secure.privacy.calibration import calibrate
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import decode_opening, encode_opening

PLAN = calibrate(clients=100, dimension=1920, rounds=20, epsilon=4.0, delta=1e-5, clip_norm=0.15, dropout_tolerance=0.1
)
ENROLMENT = enrolment_of(100)


def later(first: Invitation, **changes) -> Invitation:
    """The next round: another number and model, as a server makes it."""
    number, model_hash = first.round + 1, bytes([7]) * 32
    params = first.params and dataclasses.replace(first.params, round=number, model_hash=model_hash)
    return dataclasses.replace(first, round=number, model_hash=model_hash, params=params, **changes)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("masked", [True, False])
def test_both_forms_are_read_back_and_small(signed, masked) -> None:
    enrolment = enrolment_of(100, secrets_of(100) if signed else None)
    first = invitation_of(PLAN, enrolment, masked=masked)
    long = first.to_bytes(enrolment)
    assert Invitation.from_bytes(long, enrolment) == first
    assert len(long) <= 500
    second = later(first, plan=PLAN.with_clip(0.2))
    short = second.to_bytes(enrolment, first)
    assert Invitation.from_bytes(short, enrolment, first) == second
    assert len(short) <= 100
    assert (len(long), len(short)) == Invitation.sizes(100, first.placement, first.rule, masked=masked)


def test_what_the_short_form_cannot_say_takes_the_long_one() -> None:
    first = invitation_of(PLAN, ENROLMENT)
    for changed in (
        later(first, session=b"another session."),
        later(first, rotation_seed=5),
        later(first, plan=dataclasses.replace(PLAN, sigma_local=PLAN.sigma_local * 2)),
    ):
        encoded = changed.to_bytes(ENROLMENT, first)
        assert encoded == changed.to_bytes(ENROLMENT)
        assert Invitation.from_bytes(encoded, ENROLMENT, first) == changed


def refused(data: bytes, after: Invitation | None = None, enrolment: Enrolment = ENROLMENT) -> Code:
    with pytest.raises(PeerError) as caught:
        Invitation.from_bytes(data, enrolment, after)
    assert caught.value.culprit == "server"
    return caught.value.code


def test_other_bytes_are_refused_with_a_code_that_may_be_told() -> None:
    first = invitation_of(PLAN, ENROLMENT)
    long, short = first.to_bytes(ENROLMENT), later(first).to_bytes(ENROLMENT, first)
    assert refused(b"") is refused(b"hello") is Code.NOT_A_MESSAGE
    assert refused(long[:2] + b"\x02" + long[3:]) is Code.OTHER_VERSION
    assert refused(short) is Code.OTHER_SESSION  # follows none that is known
    assert refused(short, later(first, rotation_seed=9)) is Code.OTHER_SESSION
    assert refused(long + b"\0") is not None
    assert refused(long, enrolment=enrolment_of(90)) is not None
    revoked = Enrolment(clients=100, revoked=frozenset({3}))
    assert refused(long, enrolment=revoked) is Code.BAD_BODY


def test_an_enrolment_with_other_keys_makes_another_session() -> None:
    enrolment = enrolment_of(100, secrets_of(100))
    data = invitation_of(PLAN, enrolment).to_bytes(enrolment)
    assert refused(data, enrolment=enrolment_of(100, secrets_of(100))) is Code.OTHER_SESSION


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": math.nan},
        {"scale": 0.0},
        {"sigma_local": math.inf},
        {"sigma_local": 0.0},
        {"clip_norm": -1.0},
        {"upload_norm": PLAN.upload_norm * 2},  # the noise is counted for the clip norm
        {"clip_norm": PLAN.clip_norm / 2},
        {"delta": 1.0},
        {"sampling_rate": 0.0},
        {"sampling_rate": 0.5},
        {"colluders": 100},
        {"dimension": 0},
        {"bits": 40},
        {"count_coordinates": 3},
        {"dropout_tolerance": 1.0},
        {"epsilon": -1.0},
    ],
)
def test_impossible_numbers_are_refused(changes) -> None:
    first = invitation_of(PLAN, ENROLMENT)
    forged = dataclasses.replace(first, plan=dataclasses.replace(PLAN, **changes))
    assert refused(forged.to_bytes(ENROLMENT)) is Code.PARAMETERS


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_bytes_are_refused_or_are_another_invitation(data) -> None:
    """Never another error, and never two encodings of one invitation."""
    first = invitation_of(PLAN, ENROLMENT)
    encoded = bytearray(
        data.draw(st.sampled_from([first.to_bytes(ENROLMENT), later(first).to_bytes(ENROLMENT, first)]))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(encoded[: data.draw(st.integers(0, len(encoded)))]) if data.draw(st.booleans()) else bytes(encoded)
    try:
        found = Invitation.from_bytes(cut, ENROLMENT, first)
    except PeerError:
        return
    assert cut in (found.to_bytes(ENROLMENT), found.to_bytes(ENROLMENT, first))


def test_openings_hold_invitation_and_broadcast() -> None:
    assert decode_opening(encode_opening(b"invitation", b"adapter")) == (b"invitation", b"adapter")
    for wrong in (b"", b"fO", b"fO\xff\xff\0\0short", b"fS\x01\x01"):
        with pytest.raises(PeerError) as caught:
            decode_opening(wrong)
        assert caught.value.code is Code.NOT_A_MESSAGE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": 1}, "at least 2 clients"),
        ({"identities": (b"a" * 32,)}, "1 identity keys for 3 clients"),
        (
            {"identities": (b"a" * 32, b"b" * 32, b"c" * 31)},
            "must be Ed25519 public keys of 32 bytes; that of client 2",
        ),
        ({"identities": (b"a" * 32, b"b" * 32, b"a" * 32)}, "the same identity key"),
        ({"revoked": frozenset({3})}, "not among the 3"),
    ],
)
def test_enrolments_that_cannot_be(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Enrolment(**{"clients": 3, **changes})


def test_an_enrolment_knows_its_keys() -> None:
    keys = tuple(bytes([i]) * 32 for i in range(1, 4))
    enrolment = Enrolment(clients=3, identities=keys, revoked=frozenset({2}))
    assert enrolment.number_of(keys[1]) == 1
    assert enrolment.identities_of([2, 0]) == (keys[2], keys[0])
    for wrong, message in ((b"x" * 32, "not enrolled"), (keys[2], "client 2 is revoked")):
        with pytest.raises(ConfigError, match=message):
            enrolment.number_of(wrong)
    assert enrolment.digest != Enrolment(clients=3, identities=keys).digest
