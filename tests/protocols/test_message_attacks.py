"""Any message, damaged or of another session: refused with a typed error, and the round ends in the right sum."""

import pytest
from attacker import at, body_of, collected, reframed
from cohorts import Cohort, hybrid, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import ClientCollect, Code, MisuseError, PeerError, ProtocolError, RoundParams, Suite, Trip, shamir
from flora_protocols.codec import CHECKSUM, HEADER


def signed_hybrid(clients=4, **more):
    return malicious(clients, suite=Suite.X25519_MLKEM768, **more)


MAKES = [semi_honest, malicious, hybrid, signed_hybrid]
makes = pytest.mark.parametrize("make", MAKES)
CASES = [
    (make, trip)
    for make in MAKES
    for trip in Trip
    if (make().suite.hybrid or trip is not Trip.ENCAPSULATE) and (make().malicious or trip is not Trip.AGREE)
]


@pytest.mark.searches
@pytest.mark.parametrize(("make", "trip"), CASES)
def test_damaged_messages(make, trip):
    """Bit flips, truncation, appended bytes: refused by client and server, state unchanged, the sum right."""
    cohort = at(Cohort(make(slots=2)), trip)

    @settings(max_examples=60)
    @given(st.data())
    def damage(data):
        received = trip is not Trip.ADVERTISE and data.draw(st.booleans())
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
@given(st.sampled_from([case for case in CASES if case[1] is not Trip.ADVERTISE]), st.data())
def test_tampered_bodies_with_a_right_checksum(case, data):
    """A server that changes bits inside a message and mends the checksum: a typed error, or the message was equivalent
    for that client (another survivor set, say) and it still gives away at most one share per peer."""
    make, trip = case
    cohort = at(Cohort(make()), trip)
    body = bytearray(body_of(cohort.mail[1]))
    place = data.draw(st.integers(0, 8 * len(body) - 1))
    body[place // 8] ^= 1 << place % 8
    truth = cohort.mail[1]
    cohort.mail = dict(cohort.mail) | {1: reframed(truth, bytes(body))}
    try:
        _, answer = cohort.move(1)
    except ProtocolError:
        cohort.mail[1] = truth
        if type(cohort.clients[1]) is not ClientCollect or not cohort.clients[1].spent:
            cohort.finish()
    else:
        if trip is Trip.UNMASK:
            assert len(body_of(answer)) in (4 * shamir.SHARE, 4 * shamir.SHARE + 8)  # and the tag of who is gone


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_tampered_starts_with_a_right_checksum(place, signed):
    """A START whose bits are changed: refused, or another round, whose masks fit nobody else's."""
    cohort = at(Cohort((malicious if signed else semi_honest)(slots=2)), Trip.MASK)
    client, params = collected(cohort, 1), cohort.params
    truth = cohort.start.to_bytes(params, cohort.prepared.session)
    body = bytearray(body_of(truth))
    body[place // 8 % len(body)] ^= 1 << place % 8
    try:
        start = RoundParams.from_bytes(params, client.session, reframed(truth, bytes(body)))
        position, upload = client.mask(start, cohort.vectors[1])
    except ProtocolError:
        assert cohort.finish().survivors == (0, 1, 2, 3)
        return
    with pytest.raises(PeerError, match="client 1: the message belongs to another session or round"):
        cohort.server.receive(1, upload)
    cohort.clients[1] = position
    cohort.trip(dropping={1})
    while cohort.server.trip is not Trip.UNMASK:
        cohort.trip()
    assert cohort.finish().survivors == (0, 2, 3)


@makes
def test_messages_of_another_kind_session_version_suite(make):
    """Also of the other suite: whoever speaks it takes no part, and nothing is negotiated."""
    cohort = Cohort(make())
    first = cohort.move_again(0)
    cohort.trip()
    roster, waits = cohort.mail[0], cohort.server.trip
    expected = {Trip.SHARE: "SHARES", Trip.ENCAPSULATE: "CIPHERTEXTS"}[waits]
    with pytest.raises(PeerError, match="kind 1; " + expected):
        cohort.server.receive(0, first)
    suite = cohort.params.suite
    for place, value, what, code in (
        (0, 1, "not a message", Code.NOT_A_MESSAGE),
        (2, 3, "wire version 1; this side speaks 2", Code.OTHER_VERSION),
        (3, 3, f"cipher suite {suite ^ 3}; this session's is {suite:d}", Code.OTHER_SUITE),
        (3, 4, f"cipher suite {suite ^ 4}", Code.OTHER_SUITE),
        (5, 1, "another session", Code.OTHER_SESSION),
    ):
        bad = bytearray(roster[:-CHECKSUM])
        bad[place] ^= value
        cohort.mail = dict(cohort.mail) | {0: reframed(bytes(bad[:HEADER]), bytes(bad[HEADER:]))}
        with pytest.raises(PeerError, match=what) as caught:
            cohort.move(0)
        assert caught.value.code is code
    cohort.mail[0] = roster
    cohort.finish()


def test_messages_must_be_bytes(cohort):
    for bad in ("text", bytearray(81), None, [1]):
        with pytest.raises(MisuseError):
            cohort.server.receive(0, bad)
    cohort.finish()


def test_other_sessions_and_parameters_do_not_mix():
    ours = Cohort(semi_honest())
    for other in (
        semi_honest(number=1),
        semi_honest(threshold=2),
        semi_honest(bits=10),
        semi_honest(slots=2),
        semi_honest(corrupt=1),
    ):
        with pytest.raises(PeerError, match="another session") as caught:
            ours.server.receive(2, Cohort(other).move(2)[1])
        assert caught.value.culprit == 2
    for other in (malicious(), hybrid()):
        with pytest.raises(PeerError) as caught:
            ours.server.receive(2, Cohort(other).move(2)[1])
        assert caught.value.culprit == 2
    ours.finish()


def test_other_rounds_do_not_mix():
    """An upload of another slot, model, number or invitation: refused by the round id, and the true one is taken."""
    cohort = at(Cohort(semi_honest(slots=3)), Trip.MASK)
    cohort.finish()
    cohort.again()
    truth = cohort.start
    for change in (
        {"slot": 2},
        {"model_hash": bytes(32)},
        {"round": 99},
        {"invited": type(truth.invited).of(4, (0, 1, 2))},
    ):
        cohort.start = RoundParams(
            **{name: getattr(truth, name) for name in ("slot", "round", "model_hash", "invited")} | change
        )
        other = cohort.move_again(2)
        cohort.start = truth
        with pytest.raises(PeerError, match="client 2: the message belongs to another session or round") as caught:
            cohort.server.receive(2, other)
        assert caught.value.code is Code.OTHER_SESSION
    cohort.finish()
