"""Any message, damaged or of another session: refused with a typed error, and the round ends in the right sum."""

import pytest
from attacker import body_of, reframed
from cohorts import Cohort, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    MisuseError,
    PeerError,
    ProtocolError,
    shamir,
)
from flora_protocols.codec import CHECKSUM, HEADER

TRIPS = {"semi-honest": 4, "malicious-server": 5}


@pytest.mark.searches
@pytest.mark.parametrize("make", [semi_honest, malicious])
@pytest.mark.parametrize("trip", range(5))
def test_damaged_messages(make, trip):
    """Bit flips, truncation, appended bytes: refused by client and server, state unchanged, the sum right."""
    cohort = Cohort(make())
    if trip >= TRIPS[cohort.params.profile.value]:
        return
    for _ in range(trip):
        cohort.trip()

    @settings(max_examples=60)
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


@settings(max_examples=150)
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
