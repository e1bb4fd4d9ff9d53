"""The sizes that are promised are the sizes that are sent, and nothing is longer than the most."""

from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from cohorts import IDENTITIES, LEAST, MODEL
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    Direction,
    Kind,
    LocalSession,
    Profile,
    RoundAborted,
    SessionParams,
    Suite,
    Trip,
    identity_public,
    most_bytes,
    round_bytes,
    setup_bytes,
)
from flora_protocols.codec import OVERHEAD

# (n, k): complete and Harary graphs, of even and odd n, of more than eight members
GRAPHS = [(9, 4), (9, 8), (10, 9), (10, 6), (12, 10), (2, 1)]


def params_of(clients, neighbours, profile, suite, slots=1, threshold=None):
    holders = neighbours + (neighbours == clients - 1)
    least = holders // 2 + 1 if profile is Profile.MALICIOUS_SERVER else 2
    return SessionParams(
        clients=clients,
        neighbours=neighbours,
        threshold=max(least, 2) if threshold is None else threshold,
        bits=9,
        dimension=21,
        profile=profile,
        suite=suite,
        slots=slots,
        identities=tuple(map(identity_public, IDENTITIES[:clients])) if profile is Profile.MALICIOUS_SERVER else (),
    )


class Carried:
    """What went over the wire, by kind: the length of every frame, a START and its inbox apart."""

    def __init__(self):
        self.sizes, self.messages, self.start = defaultdict(list), [], 0

    def __call__(self, trip, client, direction, message):
        self.messages.append(len(message))
        kind = Kind(message[4])
        if kind is Kind.START and len(message) > self.start:
            self.sizes[Kind.INBOX].append(len(message) - self.start)
            message = message[: self.start]
        self.sizes[kind].append(len(message))


def run(params, dropouts, setup_dropouts=None):
    """A session of all its slots, `dropouts` in each of its rounds; what was carried, and how many rounds had a sum."""
    carried = Carried()
    carried.start = int(round_bytes(params)[Kind.START])
    session = LocalSession(
        params,
        floors=LEAST,
        carry=carried,
        dropouts=setup_dropouts,
        identities=IDENTITIES[: params.clients] if params.malicious else None,
    )
    sums = 0
    for number in range(params.slots):
        start = session.prepared.next_round(number, MODEL)
        try:
            session.round(start, [np.zeros(21, np.uint32)] * params.clients, dropouts)
            sums += 1
        except RoundAborted:
            pass
    return carried, sums


@pytest.mark.parametrize(("clients", "neighbours"), GRAPHS)
@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("slots", [1, 3])
def test_sizes_are_those_of_a_real_session(clients, neighbours, profile, suite, slots):
    """Where everybody takes part: of each kind the mean over all clients, exactly."""
    params = params_of(clients, neighbours, profile, suite, slots)
    carried, sums = run(params, {})
    assert sums == slots
    once, each = setup_bytes(params), round_bytes(params)
    assert carried.sizes.keys() == once.keys() | each.keys()
    for kind, sizes in carried.sizes.items():
        assert len(sizes) == clients * (1 if kind in once else slots)
        assert np.mean(sizes) == pytest.approx((once | each)[kind], rel=1e-12), kind
        assert min(sizes) >= OVERHEAD
    for kind in {Kind.ADVERTISEMENT, Kind.SHARES, *each}:  # not only in the mean
        assert set(carried.sizes[kind]) == {(once | each)[kind]}


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("profile", list(Profile))
def test_sizes_of_a_round_with_a_dropout(neighbours, profile):
    """On average, where some lose a neighbour and others do not."""
    params = params_of(9, neighbours, profile, Suite.X25519)
    carried, sums = run(params, {Trip.MASK: {2}})
    assert sums == 1
    near = sum(2 in params.graph.members(index) for index in range(9) if index != 2)
    expected = round_bytes(params, near / 8)
    for kind, size in expected.items():
        assert np.mean(carried.sizes[kind]) == pytest.approx(size), kind


@pytest.mark.parametrize(("clients", "neighbours"), GRAPHS)
def test_every_threshold(clients, neighbours):
    """How many derive their shares depends on it."""
    for threshold in range(2, neighbours + 1 + (neighbours == clients - 1)):
        params = params_of(clients, neighbours, Profile.SEMI_HONEST, Suite.X25519, 2, threshold)
        carried, _ = run(params, {})
        for kind in (Kind.SHARES, Kind.INBOX):
            assert np.mean(carried.sizes[kind]) == pytest.approx(setup_bytes(params)[kind], rel=1e-12)
        assert max(carried.messages) <= most_bytes(params)


@settings(max_examples=25)
@given(st.data())
def test_nothing_is_longer_than_the_most(data):
    """Whoever drops out, and whenever."""
    clients, neighbours = data.draw(st.sampled_from(GRAPHS))
    params = params_of(clients, neighbours, *(data.draw(st.sampled_from(kind)) for kind in (Profile, Suite)), slots=2)
    some = st.sets(st.integers(0, clients - 1), max_size=2)
    trips = [data.draw(st.fixed_dictionaries(dict.fromkeys(part, some))) for part in (list(Trip)[:3], list(Trip)[3:])]
    try:
        carried, _ = run(params, trips[1], trips[0])
    except RoundAborted:
        return
    assert max(carried.messages) <= most_bytes(params)


def test_the_most_is_not_idle():
    """Within the signatures and the KEM key that it allows for, and the boxes that who derives least may get."""
    for (clients, neighbours), profile, suite in product([(9, 4), (10, 9)], Profile, Suite):
        params = params_of(clients, neighbours, profile, suite, slots=4)
        carried, _ = run(params, {Trip.MASK: {0}})
        slack = 1184 * params.suite.hybrid + 64 * neighbours * params.malicious + 34 * 4 * params.threshold
        assert max(carried.messages) <= most_bytes(params) <= max(carried.messages) + slack + 8 * neighbours


def test_what_a_client_sends_as_the_specification_counts_it():
    """Section 8, last paragraph."""
    for (clients, neighbours), slots in product([(9, 4), (9, 8)], [1, 5]):
        params = params_of(clients, neighbours, Profile.MALICIOUS_SERVER, Suite.X25519_MLKEM768, slots)
        k, t, once, each = neighbours, params.threshold, setup_bytes(params), round_bytes(params, 2)
        assert once[Kind.ADVERTISEMENT] == 17 + 32 + 1184 + 64
        assert once[Kind.CIPHERTEXTS] == 17 + 1088 * k / 2
        assert once[Kind.SHARES] == 17 + k * (16 + 16 * slots) + (k - t + 1) * 34 * slots + 16 * slots
        assert each[Kind.UPLOAD] == 17 + 24 + (k + 1 + 7) // 8
        assert each[Kind.REVEAL] == 17 + 17 * params.holders + 8 * 2
        assert each[Kind.ENDORSEMENT] == 81


def test_directions_and_kinds():
    """Who sends what: half of the kinds go up."""
    params = params_of(9, 4, Profile.MALICIOUS_SERVER, Suite.X25519_MLKEM768)
    seen = {}
    session = LocalSession(
        params,
        floors=LEAST,
        identities=IDENTITIES[:9],
        carry=lambda trip, client, way, message: seen.setdefault(Kind(message[4]), (trip, way)),
    )
    session.round(session.prepared.next_round(0, MODEL), [np.zeros(21, np.uint32)] * 9)
    up = {kind: trip for kind, (trip, way) in seen.items() if way is Direction.UP}
    assert up == {
        Kind.ADVERTISEMENT: Trip.ADVERTISE,
        Kind.CIPHERTEXTS: Trip.ENCAPSULATE,
        Kind.SHARES: Trip.SHARE,
        Kind.UPLOAD: Trip.MASK,
        Kind.ENDORSEMENT: Trip.AGREE,
        Kind.REVEAL: Trip.UNMASK,
    }
    assert set(seen) - set(up) == {Kind.ROSTER, Kind.DELIVERY, Kind.START, Kind.SURVIVORS, Kind.AGREEMENT}
