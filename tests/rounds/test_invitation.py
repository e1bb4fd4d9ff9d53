"""Invitations: one encoding each, small, and nothing of a hostile one is computed with."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invitations import enrolment_of, invitation_of, secrets_of

from flora_protocols import Code, PeerError, Suite
from flora_secure.errors import ConfigError
from flora_secure.planning.masking import MaskingPlan
from flora_secure.privacy.calibration import calibrate
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import MAGIC, SHORT_MAGIC, Invitation

PLAN = calibrate(clients=100, dimension=1920, rounds=20, epsilon=4.0, delta=1e-5, clip_norm=0.15, dropout_tolerance=0.1)
ENROLMENT = enrolment_of(100)


def later(first: Invitation, **changes) -> Invitation:
    """The next round, in the next slot of the masking session: another number and model, as a server makes it."""
    return dataclasses.replace(first, **{"round": first.round + 1, "model_hash": bytes([7]) * 32, **changes})


def renewed(first: Invitation, **changes) -> Invitation:
    """The next round, with which another masking session begins."""
    params = first.params and dataclasses.replace(first.params, number=first.round + 1)
    return later(first, params=params, **changes)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("masked", [True, False])
def test_both_forms_are_read_back_and_small(signed, masked) -> None:
    enrolment = enrolment_of(100, secrets_of(100) if signed else None)
    first = invitation_of(PLAN, enrolment, masked=masked, slots=22, suite=Suite.X25519_MLKEM768)
    long = first.to_bytes(enrolment)
    assert Invitation.from_bytes(long, enrolment) == first
    assert len(long) <= 500
    for second in (later(first, plan=PLAN.with_clip(0.2)), renewed(first)):
        short = second.to_bytes(enrolment, first)
        assert Invitation.from_bytes(short, enrolment, first) == second
        assert len(short) <= 100
        assert (len(long), len(short)) == Invitation.sizes(100, first.placement, first.rule, masked=masked)


@pytest.mark.parametrize("signed", [False, True])
def test_both_forms_say_which_session_and_slot_a_round_takes(signed) -> None:
    enrolment = enrolment_of(100, secrets_of(100) if signed else None)
    first = invitation_of(PLAN, enrolment, number=4, slots=3)
    assert (first.params.number, first.slot) == (4, 0)
    for invitation, number, slot in (
        (later(first), 4, 1),
        (later(first, round=6), 4, 2),
        (renewed(first), 5, 0),
        (later(renewed(first)), 5, 1),
    ):
        for after in (None, first):
            data = invitation.to_bytes(enrolment, after)
            assert data[:2] == (MAGIC if after is None else SHORT_MAGIC)
            read = Invitation.from_bytes(data, enrolment, after)
            assert (read, read.params.number, read.slot) == (invitation, number, slot)


@pytest.mark.parametrize("after", [False, True], ids=["long", "short"])
@pytest.mark.parametrize("wrong", [7, 3, 1, 0])
def test_a_round_in_no_slot_of_its_session_is_refused(wrong, after) -> None:
    """A session of three slots that began in round 4: behind its last one, and before its first."""
    first = invitation_of(PLAN, ENROLMENT, number=4, slots=3)
    known = first if after else None
    forged = later(first, round=wrong)
    assert not 0 <= forged.slot < 3
    assert refused(forged.to_bytes(ENROLMENT, known), known) is Code.PARAMETERS
    assert Invitation.from_bytes(later(first, round=6).to_bytes(ENROLMENT, known), ENROLMENT, known).slot == 2


MASKING = MaskingPlan(neighbours=16, threshold=6, corrupt=2, slots=3, suite=Suite.X25519)


def changed() -> dict[str, dict[str, object]]:
    """A change of every field of an invitation, and of every number of its plan and of its session."""
    first = invitation_of(PLAN, ENROLMENT, number=4, slot=1, masking=MASKING)
    told: dict[str, dict[str, object]] = {
        "session": {"session": b"another session."},
        "round": {"round": first.round + 1},
        "members": {"members": tuple(range(1, 101))},
        "unit": {"unit": "example"},
        "placement": {"placement": "text-attention"},
        "rule": {"rule": "frozen-a"},
        "rotation_seed": {"rotation_seed": 5},
        "model_hash": {"model_hash": bytes([7]) * 32},
    }
    others = {"smallest_cohort"}  # as many as there are clients
    for field in dataclasses.fields(PLAN):
        value = getattr(PLAN, field.name)
        if field.name not in others:
            other = not value if isinstance(value, bool) else value + 1
            told[f"plan {field.name}"] = {"plan": dataclasses.replace(PLAN, **{field.name: other})}
    for name, value in (("threshold", 7), ("neighbours", 18), ("suite", Suite.X25519_MLKEM768), ("slots", 4),
                        ("number", 2), ("corrupt", 4), ("bits", 9), ("dimension", 7)):  # fmt: skip
        assert getattr(first.params, name) != value
        told[f"params {name}"] = {"params": dataclasses.replace(first.params, **{name: value})}
    # and whatever is there besides would have to stand here
    fields = {field.name for field in dataclasses.fields(Invitation)}
    assert {
        "plan" if key.startswith("plan ") else "params" if key.startswith("params ") else key for key in told
    } == fields
    return told


@pytest.mark.parametrize("changes", changed().values(), ids=changed())
def test_what_the_masks_are_bound_to_is_the_whole_invitation(changes) -> None:
    enrolment = enrolment_of(101)
    first = invitation_of(PLAN, enrolment, members=range(100), number=4, slot=1, masking=MASKING)
    start, other = (one.start(enrolment, range(100)) for one in (first, dataclasses.replace(first, **changes)))
    assert start == first.start(enrolment, range(100))
    assert (start.slot, start.round) == (1, 4)
    assert start.model_hash != other.model_hash
    assert first.start(enrolment, range(99)).model_hash == start.model_hash  # who takes part stands beside it
    assert first.start(enrolment, range(99)) != start


def test_what_the_short_form_cannot_say_takes_the_long_one() -> None:
    first = invitation_of(PLAN, ENROLMENT, slots=2)
    for changed in (
        later(first, params=dataclasses.replace(first.params, slots=3)),
        later(first, params=dataclasses.replace(first.params, suite=Suite.X25519_MLKEM768)),
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
    first = invitation_of(PLAN, ENROLMENT, slots=2)
    long, short = first.to_bytes(ENROLMENT), later(first).to_bytes(ENROLMENT, first)
    assert refused(b"") is refused(b"hello") is Code.NOT_A_MESSAGE
    assert long[2] == short[2] == 2
    for version in (b"\x01", b"\x03"):
        assert refused(long[:2] + version + long[3:]) is Code.OTHER_VERSION
        assert refused(short[:2] + version + short[3:], first) is Code.OTHER_VERSION
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
    first = invitation_of(PLAN, ENROLMENT, slots=3)
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
