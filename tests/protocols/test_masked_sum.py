"""The masked sum equals the plain sum, or the round ends in RoundAborted: for every pattern of dropouts."""

import inspect
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cohorts import IDENTITIES, LEAST, MODEL, hybrid, malicious, plain_sum, semi_honest, vectors_for
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import Direction, LocalSession, MisuseError, RoundAborted, TooFewSurvivors, Trip, run_round

SEMI_HONEST_TRIPS = [Trip.ADVERTISE, Trip.SHARE, Trip.MASK, Trip.UNMASK]
ALL_TRIPS = {
    semi_honest: SEMI_HONEST_TRIPS,
    malicious: [*SEMI_HONEST_TRIPS[:3], Trip.AGREE, Trip.UNMASK],
    hybrid: [Trip.ADVERTISE, Trip.ENCAPSULATE, *SEMI_HONEST_TRIPS[1:]],
}


def run(params, fate, **more):
    """`fate`: for each client the trip in which it vanishes, or None."""
    dropouts = {trip: {i for i, when in enumerate(fate) if when is trip} for trip in Trip}
    vectors = vectors_for(params)
    identities = IDENTITIES[: params.clients] if params.malicious else None
    result = run_round(params, vectors, dropouts=dropouts, identities=identities, **{"floors": LEAST} | more)
    assert (result.sum == plain_sum(params, vectors, result.survivors)).all()
    return result


def reached(fate, trip):
    return tuple(i for i, when in enumerate(fate) if when is None or when > trip)


def check_complete(params, fate, trips=SEMI_HONEST_TRIPS):
    """In the complete graph the round succeeds exactly if at least t clients are heard in every trip."""
    if any(len(reached(fate, trip)) < params.threshold for trip in trips):
        with pytest.raises(RoundAborted):
            run(params, fate)
        return
    result = run(params, fate)
    survivors = reached(fate, Trip.MASK)
    assert result.survivors == survivors
    assert result.dropped == tuple(i for i in range(params.clients) if i not in survivors)
    assert result.recovered == tuple(i for i in reached(fate, Trip.SHARE) if i not in survivors)


@pytest.mark.parametrize(("clients", "threshold"), [(2, 2), (3, 2), (4, 2), (4, 3)])
def test_every_dropout_pattern(clients, threshold):
    params = semi_honest(clients, threshold=threshold, bits=11, dimension=3)
    for fate in product([None, *SEMI_HONEST_TRIPS], repeat=clients):
        check_complete(params, fate)


@pytest.mark.parametrize("make", [malicious, hybrid])
def test_every_dropout_pattern_of_the_malicious_profile_and_the_hybrid_suite(make):
    params = make(3, threshold=2, bits=11, dimension=3)
    for fate in product([None, *ALL_TRIPS[make]], repeat=3):
        check_complete(params, fate, ALL_TRIPS[make])


@settings(max_examples=60)
@given(st.data())
def test_any_size_and_any_dropouts_on_a_harary_graph(data):
    clients = data.draw(st.integers(4, 12))
    neighbours = 2 * data.draw(st.integers(1, (clients - 2) // 2))
    threshold = data.draw(st.integers(2, neighbours))
    bits = data.draw(st.integers(8, 32))
    params = semi_honest(clients, neighbours, threshold, bits=bits, dimension=9)
    fate = data.draw(st.lists(st.sampled_from([None] * 9 + SEMI_HONEST_TRIPS), min_size=clients, max_size=clients))
    try:
        result = run(params, fate)
    except RoundAborted:
        assert set(fate) != {None}  # without dropouts every round succeeds
    else:
        assert set(result.survivors) <= set(reached(fate, Trip.MASK))


@pytest.mark.parametrize("bits", range(8, 33))
def test_every_ring(bits):
    assert run(semi_honest(bits=bits, dimension=131), [None, None, Trip.MASK, None]).recovered == (2,)


def test_vectors_longer_than_one_tile():
    assert run(semi_honest(3, threshold=2, bits=17, dimension=70_001), [None, Trip.MASK, None]).recovered == (1,)


def test_malicious_profile_on_a_harary_graph():
    params = malicious(8, neighbours=6, threshold=4)
    assert run(params, [Trip.MASK, Trip.AGREE, *[None] * 6]).survivors == tuple(range(1, 8))


def session_of(params, **more):
    identities = IDENTITIES[: params.clients] if params.malicious else None
    return LocalSession(params, floors=LEAST, identities=identities, **more)


@pytest.mark.parametrize("make", [semi_honest, malicious, hybrid])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_dropouts_in_any_round_of_a_session(make, data):
    """Each round is the sum of those that stay in it, or ends; and whoever vanished in one is in the next."""
    params = (
        make(data.draw(st.integers(4, 8)), threshold=3, slots=4, bits=13) if make is not malicious else make(slots=4)
    )
    session, trips = session_of(params), [trip for trip in ALL_TRIPS[make] if trip >= Trip.MASK]
    for number in range(3):
        fate = data.draw(st.lists(st.sampled_from([None] * 4 + trips), min_size=8, max_size=8))[: params.clients]
        dropouts = {trip: {i for i, when in enumerate(fate) if when is trip} for trip in trips}
        vectors, start = vectors_for(params, seed=number), session.prepared.next_round(number, MODEL)
        assert start.slot == number
        assert tuple(start.invited) == tuple(range(params.clients))
        if any(len(reached(fate, trip)) < params.threshold for trip in Trip):
            with pytest.raises(RoundAborted):
                session.round(start, vectors, dropouts)
            continue
        result = session.round(start, vectors, dropouts)
        assert result.survivors == reached(fate, Trip.MASK)
        assert result.recovered == result.dropped
        assert (result.sum == plain_sum(params, vectors, result.survivors)).all()
    vectors = vectors_for(params, seed=3)
    result = session.round(session.prepared.next_round(3, MODEL), vectors)
    assert result.survivors == tuple(range(params.clients))
    assert (result.sum == plain_sum(params, vectors, result.survivors)).all()
    with pytest.raises(MisuseError, match="all 4 slots are used; set up another session"):
        session.prepared.next_round(4, MODEL)


def test_a_slot_may_be_passed_over():
    """The server may begin with whichever it likes, and goes upwards from there."""
    params = semi_honest(slots=6)
    session, vectors = session_of(params), vectors_for(params)
    for slot in (1, 4, 5):
        start = replace(session.prepared.next_round(slot, MODEL), slot=slot)
        assert (session.round(start, vectors).sum == plain_sum(params, vectors, range(4))).all()
    for slot in (0, 3, 5):
        with pytest.raises(MisuseError, match=f"slot {slot} was used or passed over"):
            session.round(replace(start, slot=slot), vectors)


def test_only_some_are_invited():
    """The others send nothing, lose nothing, and cost no recovery."""
    params = semi_honest(6, slots=2)
    session, vectors = session_of(params), vectors_for(params)
    result = session.round(session.prepared.next_round(1, MODEL, invited=(0, 2, 3, 5)), vectors, {Trip.MASK: {2}})
    assert (result.survivors, result.dropped, result.recovered) == ((0, 3, 5), (2,), (2,))
    assert (result.sum == plain_sum(params, vectors, (0, 3, 5))).all()
    assert session.round(session.prepared.next_round(2, MODEL), vectors).survivors == tuple(range(6))


def test_a_session_tells_who_left_it_and_who_left_a_round():
    params = semi_honest(5, threshold=4, slots=2)
    with pytest.raises(RoundAborted) as caught:
        session_of(params, dropouts={Trip.ADVERTISE: {0, 1}})
    assert caught.value.left == {}
    session = session_of(params)
    assert session.left == {}
    with pytest.raises(RoundAborted) as caught:  # nobody is told of three survivors, where four are needed
        session.round(session.prepared.next_round(1, MODEL), vectors_for(params), {Trip.MASK: {0, 1}})
    assert not caught.value.announced
    with pytest.raises(RoundAborted) as caught:
        session.round(session.prepared.next_round(2, MODEL, invited=(0, 1, 2)), vectors_for(params))
    assert {client: type(error) for client, error in caught.value.left.items()} == dict.fromkeys(
        range(3), TooFewSurvivors
    )


def test_masks_differ_from_round_to_round_and_hide_the_vector():
    """No upload equals its vector, and two rounds with the same vector upload different bytes, of one session and of
    two."""
    uploads = []

    def carry(trip, client, direction, message):
        if (trip, direction) == (Trip.MASK, Direction.UP):
            uploads.append(message[13:-5])

    for number in (1, 2):
        session = session_of(semi_honest(3, threshold=2, bits=32, dimension=64, number=number, slots=2), carry=carry)
        for round in (1, 2):
            session.round(session.prepared.next_round(round, MODEL), [np.zeros(64, np.uint32)] * 3)
    assert len(set(uploads)) == 12
    for upload in uploads:
        assert len(set(np.frombuffer(upload, "<u4"))) > 60  # 64 words of keystream, hardly any twice


def test_carry_sees_every_message_and_vectors_may_be_lazy():
    params = semi_honest()
    seen, asked = [], []

    def vector(index):
        asked.append(index)
        return np.full(params.dimension, index, np.uint32)

    result = run_round(
        params, vector, floors=LEAST, dropouts={Trip.MASK: {3}}, carry=lambda *event: seen.append(event[:3])
    )
    assert asked == [0, 1, 2]
    assert result.sum.tolist() == [3] * params.dimension
    up, down = Direction.UP, Direction.DOWN
    assert [event for event in seen if event[1] == 0] == [
        (Trip.ADVERTISE, 0, up),
        *((trip, 0, way) for trip in (Trip.SHARE, Trip.MASK, Trip.UNMASK) for way in (down, up)),
    ]
    assert (Trip.MASK, 3, up) not in seen
    assert (Trip.MASK, 3, down) in seen


def test_same_randomness_same_bytes():
    def replay():
        counter, messages = iter(range(10**6)), []

        def randomness(size):
            return np.random.default_rng(next(counter)).bytes(size)

        params = semi_honest()
        run_round(
            params,
            vectors_for(params),
            floors=LEAST,
            randomness=randomness,
            carry=lambda *event: messages.append(event),
        )
        return messages

    assert replay() == replay()


def test_clients_leave_below_their_own_floor():
    with pytest.raises(RoundAborted):
        run(semi_honest(5, threshold=3), [Trip.ADVERTISE, None, None, None, None], floors=replace(LEAST, clients=5))
    with pytest.raises(RoundAborted):
        run(semi_honest(5, threshold=3), [Trip.MASK, None, None, None, None], floors=replace(LEAST, survivors=5))


def test_one_vector_and_one_identity_each():
    with pytest.raises(MisuseError, match="3 vectors for 4 clients"):
        run_round(semi_honest(), vectors_for(semi_honest())[:3], floors=LEAST)
    with pytest.raises(MisuseError, match="3 identity keys for 4 clients"):
        run_round(malicious(), vectors_for(malicious()), floors=LEAST, identities=IDENTITIES[:3])


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.zeros(5), "client 3: the vector must be a uint32 array, not float64; round it and reduce it mod 2\\^9"),
        (np.full(5, np.nan, np.float32), "client 3: the vector must be a uint32 array, not float32; round it"),
        (np.zeros(4, np.uint32), r"client 3: the vector must have shape \(5,\), not \(4,\); reshape or pad it"),
        (np.full(5, 512, np.uint32), r"client 3: the vector has elements that do not fit 9 bits; reduce it mod 2\^9"),
        ([0] * 5, "client 3: the vector must be a uint32 array, not list"),
        (np.ma.zeros(5, np.uint32), "client 3: the vector must be a plain array, not a masked one; fill it first"),
        (np.ma.masked_all(5, np.uint32), "client 3: the vector must be a plain array, not a masked one; fill it first"),
    ],
)
def test_bad_vectors_are_refused_before_any_key_is_made(bad, text):
    drawn = []
    with pytest.raises(MisuseError, match=text):
        run_round(semi_honest(), [*vectors_for(semi_honest())[:3], bad], floors=LEAST, randomness=drawn.append)
    assert drawn == []


def test_dropouts_of_clients_that_there_are():
    with pytest.raises(MisuseError, match=r"dropouts name client 4; 0 .. 3 are possible"):
        run_round(semi_honest(), vectors_for(semi_honest()), floors=LEAST, dropouts={Trip.MASK: {1, 4}})
    with pytest.raises(MisuseError, match="a dropout's index must be an int, not True"):
        run_round(semi_honest(), vectors_for(semi_honest()), floors=LEAST, dropouts={Trip.MASK: {True}})
    result = run_round(semi_honest(), vectors_for(semi_honest()), floors=LEAST, dropouts={Trip.MASK: np.array([1])})
    assert result.dropped == (1,)


def test_a_whole_session_is_short():
    """The protocol in two minutes: fewer than 120 lines, the signatures and the documentation included."""
    assert len(inspect.getsource(LocalSession).splitlines()) < 120


def test_traffic_of_a_hundred_clients():
    """Masking costs a client under 19 kB both ways in the complete graph of 100: the table in the documentation."""
    params, total = semi_honest(100, threshold=66, bits=9, dimension=2560), {}

    def carry(trip, client, direction, message):
        total[trip, direction] = total.get((trip, direction), 0) + len(message)

    run_round(params, vectors_for(params), floors=LEAST, dropouts={Trip.MASK: range(0, 100, 5)}, carry=carry)
    heard = dict.fromkeys(Trip, 100) | {Trip.MASK: 80, Trip.UNMASK: 80}
    mean = sum(size / heard[trip] for (trip, _), size in total.items())
    assert mean - params.payload_bytes < 19_000
    assert total[Trip.MASK, Direction.UP] / 80 <= 1.02 * params.payload_bytes
