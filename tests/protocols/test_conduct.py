"""The server's loop: a client that misbehaves costs itself, never the round; attack by attack, then all at random."""

import itertools
import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import LEAST, Cohort, hybrid, malicious, plain_sum, semi_honest
from faulty import WAYS, Faulty
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    ClientAdvertise,
    Code,
    MisuseError,
    PeerError,
    RoundAborted,
    TooFewSurvivors,
    Trip,
    UnsoundShares,
    WrongShares,
    conduct,
    drive,
    run_round,
    set_up,
)
from flora_protocols.keys import Box

profiles = pytest.mark.parametrize("make", [semi_honest, malicious])
kinds = pytest.mark.parametrize("make", [semi_honest, malicious, hybrid])
HARARY = {"clients": 10, "neighbours": 8, "threshold": 5}


def trips_of(params):
    there = {Trip.ENCAPSULATE: params.suite.hybrid, Trip.AGREE: params.malicious}
    return [trip for trip in Trip if there.get(trip, True)]


def params_of(make, clients=9, threshold=5, **more):
    """Nine hold shares of everybody; five are needed, so that up to two wrong shares of a secret are found."""
    return make(clients, threshold=threshold, **more)


def summed(faulty, **more):
    """The result of the first round, which has the sum of just the survivors."""
    result = faulty.run(**more)
    assert (result.sum == plain_sum(faulty.params, faulty.vectors, result.survivors)).all()
    return result


def aborted(faulty, **more):
    with pytest.raises(RoundAborted) as caught:
        faulty.run(**more)
    error = caught.value
    assert error.__cause__ is error.cause
    assert error.code is Code.ABORTED
    assert "\n" not in str(error)
    assert error.announced == faulty.exchanges[-1].announced == (error.trip > Trip.MASK)
    assert ("count the round as released" in str(error)) == error.announced
    return error


@kinds
def test_everybody_behaves(make):
    faulty = Faulty(params_of(make))
    result = summed(faulty)
    assert result.survivors == tuple(range(9))
    assert (result.refused, result.left) == ({}, {})
    assert [exchange.trip for exchange in faulty.exchanges] == trips_of(faulty.params)
    assert [exchange.announced for exchange in faulty.exchanges] == [t > Trip.MASK for t in trips_of(faulty.params)]
    assert repr(faulty.exchanges[0]) == "<Exchange ADVERTISE, 9 clients>"


PLAIN = ("garbage", "text", "flipped", "long", "short", "second", "late")
SIMPLE = [(how, trip) for how, (trips, code) in WAYS.items() for trip in trips if code and how in PLAIN]


@kinds
@pytest.mark.parametrize("graph", ["complete", "Harary"])
@pytest.mark.parametrize(("how", "trip"), SIMPLE, ids=[f"{how} {trip.name}" for how, trip in SIMPLE])
def test_what_is_refused_costs_its_sender(make, graph, how, trip):
    """In every trip: the others' sum comes, the culprit is named, and nothing more is said to it or heard from it."""
    faulty = Faulty(params_of(make) if graph == "complete" else make(**HARARY), {3: (trip, how)})
    if trip not in trips_of(faulty.params):
        return
    result = summed(faulty)
    assert list(result.refused) == [3]
    assert result.refused[3].culprit == 3
    assert result.refused[3].code in WAYS[how][1]
    uploaded = trip > Trip.MASK or (trip is Trip.MASK and how == "second")  # its one upload came before the second
    assert (3 in result.survivors) == uploaded
    for exchange in faulty.exchanges:
        assert (3 in exchange.outbox) == (exchange.trip <= trip)


@profiles
def test_a_true_message_after_a_refused_one_is_not_taken(make):
    """Refused is refused: the second try of a client that has sent rubbish changes nothing."""
    faulty = Faulty(params_of(make))

    def carry(exchange):
        replies = list(faulty(exchange))
        if exchange.trip is Trip.MASK:
            return [(0, b"rubbish"), *replies]
        return replies

    prepared = drive(set_up(faulty.params), carry)
    result = drive(conduct(prepared, prepared.next_round(1, bytes(32))), carry)
    assert result.survivors == tuple(range(1, 9))
    assert result.refused[0].code is Code.NOT_A_MESSAGE
    assert (result.sum == plain_sum(faulty.params, faulty.vectors, result.survivors)).all()


@profiles
@pytest.mark.parametrize("how", ["own shares", "all shares"])
@pytest.mark.parametrize("liars", [(0,), (8,), (2, 7)])
def test_wrong_shares_are_set_aside(make, how, liars):
    result = summed(Faulty(params_of(make), dict.fromkeys(liars, (Trip.UNMASK, how))))
    assert result.survivors == tuple(range(9))
    assert set(result.refused) == set(liars)
    assert all(error.culprit == liar and error.code is Code.BAD_SHARE for liar, error in result.refused.items())


@profiles
def test_liars_about_different_clients_are_found_as_long_as_t_honest_holders_are_left(make):
    """Each lies about another owner: four of nine are set aside, and the five that are left are just enough."""
    liars = dict.fromkeys(range(4), (Trip.UNMASK, "own shares"))
    assert set(summed(Faulty(params_of(make), liars)).refused) == set(liars)
    error = aborted(Faulty(params_of(make), liars | {4: (Trip.UNMASK, "own shares")}))
    assert isinstance(error.cause, TooFewSurvivors)
    assert (error.cause.have, error.cause.need) == (4, 5)
    assert set(error.refused) == set(range(5))
    assert error.announced
    assert "refused: 5, client 0 first" in str(error)


@profiles
def test_more_liars_about_one_client_than_can_be_told(make):
    """Three wrong shares among nine of threshold five: nobody can say which, and nobody is named."""
    faulty = Faulty(params_of(make), dict.fromkeys((1, 4, 6), (Trip.UNMASK, "all shares")))
    error = aborted(faulty)
    assert isinstance(error.cause, UnsoundShares)
    assert "so nobody is named" in str(error)
    assert error.refused == {}
    assert error.announced


@profiles
def test_a_liar_without_surplus_ends_the_round(make):
    """Six reveal: one more than t, so that a lie is seen, but not whose it is."""
    faults = dict.fromkeys((6, 7, 8), (Trip.UNMASK, "silence")) | {2: (Trip.UNMASK, "own shares")}
    error = aborted(Faulty(params_of(make), faults))
    assert isinstance(error.cause, UnsoundShares)
    assert error.cause.owner == 2  # whose shares do not fit
    assert error.refused == {}


@profiles
@pytest.mark.parametrize("drops", [False, True])
def test_an_owner_who_dealt_rubbish_ends_the_round(make, drops):
    """Nobody is named, for it may as well have been the holders; the text says whose shares they were."""
    faulty = Faulty(params_of(make), {5: (Trip.SHARE, "dealt rubbish")})
    # its opener is needed if it drops, otherwise its seed
    error = aborted(faulty, faults={5: (Trip.MASK, "silence")} if drops else None)
    assert isinstance(error.cause, UnsoundShares)
    assert error.cause.owner == 5
    assert error.announced
    assert error.refused == {}
    assert "client 5's secret" in str(error)


@profiles
@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("how", ["dealt another secret", "other blobs"])
def test_an_owner_who_dealt_other_secrets_than_it_masks_with_is_named(make, how, drops):
    """Another seed than the one it committed to; an opener that opens nothing; or blobs of other keys, which matter
    only where it drops out."""
    faulty = Faulty(params_of(make), {5: (Trip.SHARE, how)})
    faults = {5: (Trip.MASK, "silence")} if drops else None
    if how == "other blobs" and not drops:
        assert summed(faulty).refused == {}
        return
    error = aborted(faulty, faults=faults)
    assert (error.cause.culprit, error.cause.code) == (5, Code.BAD_SHARE)
    assert ("left other keys than it masked with, say 8 of its neighbours" in str(error)) == drops
    assert ("not the seed that it committed to" in str(error)) == (not drops)
    assert error.announced


@profiles
def test_a_liar_and_an_owner_who_dealt_rubbish(make):
    """The liar is set aside first; of the owner nobody can say whether it was its holders."""
    faults = {5: (Trip.SHARE, "dealt rubbish"), 2: (Trip.UNMASK, "own shares")}
    error = aborted(Faulty(params_of(make), faults))
    assert isinstance(error.cause, UnsoundShares)
    assert error.cause.owner == 5
    assert set(error.refused) == {2}


@kinds
def test_tags_of_a_liar_are_set_aside_with_its_shares(make):
    """Client 1 drops out, and client 4 lies about shares and about the mask that it shares with client 1."""
    faulty = Faulty(params_of(make), {1: (Trip.MASK, "silence"), 4: (Trip.UNMASK, "own shares")})
    lying = faulty.lying
    faulty.lying = lambda *given: last_flipped(lying(*given))
    result = summed(faulty)
    assert set(result.refused) == {4}
    assert result.recovered == (1,)


def last_flipped(message):
    """With one bit of the body's last byte changed: of the last tag, in a REVEAL with tags."""
    body = bytearray(body_of(message))
    body[-1] ^= 1
    return reframed(message, bytes(body))


@profiles
def test_sealed_rubbish_names_its_dealer_and_costs_one_round(make):
    """Nobody holds shares of such a client: its round fails before anybody is told anything, and the next goes on
    without it."""
    faulty = Faulty(params_of(make, slots=3), {5: (Trip.SHARE, "sealed rubbish")})
    error = aborted(faulty)
    assert not error.announced
    assert error.trip is Trip.MASK
    assert {client: refused.code for client, refused in error.refused.items()} == {5: Code.BAD_SHARE}
    assert "at 8 of its holders" in str(error.refused[5])
    assert faulty.left == {}
    for _ in range(2):
        result = faulty.round({})
        assert 5 not in faulty.exchanges[0].outbox
        assert (result.survivors, result.refused) == ((0, 1, 2, 3, 4, 6, 7, 8), {})
        assert (result.sum == plain_sum(faulty.params, faulty.vectors, result.survivors)).all()


@profiles
def test_a_sum_of_too_few_is_never_announced(make):
    """Two of nine do not upload: with eight wanted nobody is told of seven, with seven the sum is there."""
    for least, announced in ((8, False), (7, True)):
        faulty = Faulty(params_of(make), dict.fromkeys((3, 4), (Trip.MASK, "silence")))
        if announced:
            assert summed(faulty, least_survivors=least).survivors == (0, 1, 2, 5, 6, 7, 8)
            continue
        error = aborted(faulty, least_survivors=least)
        assert isinstance(error.cause, TooFewSurvivors)
        assert (error.cause.have, error.cause.need, error.trip, error.survivors) == (7, 8, Trip.MASK, ())
        assert [exchange.trip for exchange in faulty.exchanges][-1] is Trip.MASK
    # Announced is announced: of those eight, five that reveal are enough.
    faults = {8: (Trip.MASK, "silence")} | dict.fromkeys((0, 1, 2), (Trip.UNMASK, "silence"))
    assert summed(Faulty(params_of(make), faults), least_survivors=8).survivors == tuple(range(8))
    with pytest.raises(MisuseError, match="least_survivors"):
        conduct(faulty.prepared, faulty.start, least_survivors="8")


@kinds
@pytest.mark.parametrize("trip", Trip)
def test_an_abort_says_whether_the_survivors_were_announced(make, trip):
    params = params_of(make)
    if trip not in trips_of(params):
        return
    error = aborted(Faulty(params, dict.fromkeys(range(5), (trip, "silence"))))
    assert error.trip is trip
    assert error.announced == (trip > Trip.MASK)
    assert error.survivors == (tuple(range(9)) if error.announced else ())
    assert isinstance(error.cause, TooFewSurvivors)
    assert str(error).startswith(f"aborted in trip {trip.name}: ")


def test_replies_are_taken_one_by_one_and_no_more_than_needed():
    """As they come; and once everybody has been heard or refused, nobody waits for patience to end."""
    faulty, taken = Faulty(semi_honest()), []

    def carry(exchange):
        for index, message in itertools.chain(faulty(exchange), itertools.repeat((0, b"again"))):
            taken.append((exchange.trip, index))
            yield index, message

    prepared = drive(set_up(faulty.params), carry)
    result = drive(conduct(prepared, prepared.next_round(1, bytes(32))), carry)
    assert (result.sum == plain_sum(faulty.params, faulty.vectors, range(4))).all()
    assert result.refused == {}
    assert len(taken) == 4 * 4


def test_uploads_are_added_up_as_they_arrive():
    """The server holds the sum and the upload at hand, however many there are."""
    params = semi_honest(12, threshold=2, bits=32, dimension=1 << 18)
    vector, peaks = np.zeros(1 << 18, np.uint32), []
    faulty = Faulty(semi_honest(12, threshold=2))
    faulty.params, faulty.vectors = params, [vector] * 12
    faulty.clients = {i: ClientAdvertise(params, i, floors=LEAST) for i in range(12)}
    prepared = faulty.prepare().prepared

    def carry(exchange):
        if exchange.trip is not Trip.MASK:
            yield from list(faulty(exchange))
            return
        faulty.sent.clear()
        base = tracemalloc.get_traced_memory()[0]
        for index, message in faulty(exchange):
            faulty.sent.clear()
            peaks.append(tracemalloc.get_traced_memory()[0] - base)
            yield index, message
            del message

    tracemalloc.start()
    try:
        assert not drive(conduct(prepared, prepared.next_round(1, bytes(32))), carry).sum.any()
    finally:
        tracemalloc.stop()
    assert peaks[-1] - peaks[0] < 2 * params.payload_bytes  # the one before is let go when the next is there


def test_what_a_driver_must_not_do():
    with pytest.raises(MisuseError, match="params must be SessionParams"):
        set_up(None)  # at once, not at the first step
    prepared = Faulty(semi_honest()).prepare().prepared
    with pytest.raises(MisuseError, match="prepared must be what set_up gives, not SessionParams"):
        conduct(semi_honest(), prepared.next_round(1, bytes(32)))
    with pytest.raises(MisuseError, match="round must be RoundParams, not int"):
        conduct(prepared, 1)
    assert prepared.next_slot == 0  # none of it has taken the slot
    loops = [lambda: set_up(semi_honest()), lambda: round_of(Faulty(semi_honest()))]
    for make in loops:
        loop = make()
        next(loop)
        with pytest.raises(MisuseError, match="replies must be an iterable"):
            next(loop)
        for index in (4, -1, "0", None, True):
            loop = make()
            next(loop)
            with pytest.raises(MisuseError, match="client index"):
                loop.send([(index, b"")])


def round_of(faulty):
    """The loop of the first round of a session."""
    prepared = faulty.prepare().prepared
    return conduct(prepared, prepared.next_round(1, bytes(32)))


def test_the_transport_may_end_the_round():
    class BrokenError(Exception):
        pass

    def carry(exchange):
        raise BrokenError

    with pytest.raises(BrokenError):
        drive(set_up(semi_honest()), carry)
    faulty = Faulty(semi_honest(slots=2))
    with pytest.raises(BrokenError):
        drive(round_of(faulty), carry)
    assert faulty.prepared.next_slot == 1  # the slot is used, the session goes on
    assert faulty.round().survivors == (0, 1, 2, 3)


def test_nothing_but_a_liar_that_was_found_can_be_set_aside(cohort):
    cohort.trip().trip().trip()
    with pytest.raises(MisuseError, match="has revealed nothing"):
        cohort.server.set_aside(0)
    cohort.send()
    cohort.server.set_aside(0)
    assert cohort.server.heard == {1, 2, 3}
    with pytest.raises(PeerError) as caught:
        cohort.server.receive(0, cohort.sent[0])
    assert caught.value.code is Code.STRANGER
    cohort.result()


def test_all_who_are_found_are_told_at_once():
    cohort = Cohort(semi_honest(9, threshold=5)).trip().trip().trip()
    cohort.send()
    for liar, owner in ((1, 2), (7, 0), (4, 8)):
        shares = cohort.server._shares[liar].copy()
        shares[owner, 0] ^= 1
        cohort.server._shares[liar] = shares
    with pytest.raises(WrongShares) as caught:
        cohort.server.close()
    assert set(caught.value.faults) == {1, 4, 7}
    assert caught.value.culprit == 1
    assert "client 2's secret, unless client 2 dealt it so" in str(caught.value)
    assert cohort.server.heard == set(range(9))


def test_run_round_tells_who_left_and_why():
    """A client that must refuse what it gets leaves, as one that sees too few others does; one whose boxes are bad
    stays."""
    params = semi_honest(6, threshold=3)
    vectors = Faulty(params).vectors
    true = Box.open

    def closed(self, sealed, sender, recipient):
        return None if recipient == 5 else true(self, sealed, sender, recipient)

    with patch.object(Box, "open", closed):
        result = run_round(params, vectors, floors=LEAST)
    assert result.survivors == (0, 1, 2, 3, 4)
    assert result.dropped == (5,)
    assert [(client, type(error), error.have) for client, error in result.left.items()] == [(5, TooFewSurvivors, 1)]
    assert result.refused == {}
    assert (result.sum == plain_sum(params, vectors, result.survivors)).all()

    with patch.object(Box, "open", lambda *_: None), pytest.raises(RoundAborted) as caught:
        run_round(params, vectors, floors=LEAST)
    assert set(caught.value.left) == set(range(3, 6))  # the others derive enough shares of one another
    assert not caught.value.announced


SHAPES = [{"clients": 9, "threshold": 5}, {"clients": 6, "threshold": 4}, HARARY]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_any_faults_at_all(data):
    """In a session of three rounds, a last one without faults among them: each loop ends; whom it refuses is guilty; a
    sum is the survivors' own; and who is silent in a round is in the next."""
    make = data.draw(st.sampled_from([semi_honest, malicious, hybrid]))
    params = make(**data.draw(st.sampled_from(SHAPES)), slots=3)
    possible = [(trip, how) for how, (trips, _) in WAYS.items() for trip in trips if trip in trips_of(params)]
    draw = st.dictionaries(st.integers(0, params.clients - 1), st.sampled_from(possible), max_size=4)
    faulty = Faulty(params, data.draw(draw))
    dealers = {i for i, (_, how) in faulty.faults.items() if how.startswith("dealt") or how in RUBBISH}
    guilty = faulty.faults
    try:
        faulty.prepare()
    except RoundAborted as error:
        blamed(error, guilty, dealers)
        assert guilty
        return
    for faults in (guilty, data.draw(draw), {}):
        faults = {i: (trip, how) for i, (trip, how) in faults.items() if trip >= Trip.MASK}
        try:
            result = faulty.round(faults)
        except RoundAborted as error:
            blamed(error, faults, dealers, guilty)
            assert faults or guilty
        else:
            blamed(result, faults, (), guilty)
            assert (result.sum == plain_sum(params, faulty.vectors, result.survivors)).all()
            if not faults:
                assert result.survivors == faulty.prepared.clients


RUBBISH = ("sealed rubbish", "other blobs")


def blamed(end, faults, dealers, before=()):
    """Whoever is named has done it, now or, where it comes late, in the set-up."""
    for client, refusal in end.refused.items():
        assert refusal.culprit == client
        ways = [dict(done)[client][1] for done in (faults, before) if client in done]
        assert client in dealers or any(refusal.code in WAYS[how][1] for how in ways)
    if not isinstance(end, RoundAborted):
        return
    liars = {i for i, (_, how) in faults.items() if how.endswith("shares")} | set(dealers)
    if isinstance(end.cause, PeerError):
        assert end.cause.culprit in liars
    if isinstance(end.cause, UnsoundShares):
        assert liars
