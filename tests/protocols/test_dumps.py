"""Positions written down and read back: a round of nothing else, and every way to spoil a dump."""

import hashlib
from dataclasses import replace

import pytest
from attacker import at, collected, step
from cohorts import IDENTITIES, LEAST, Cohort, hybrid, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    Bitmap,
    ClientAdvertise,
    ClientAgree,
    ClientCollect,
    ClientDecapsulate,
    ClientDone,
    ClientEncapsulate,
    ClientReady,
    ClientShare,
    ClientUnmask,
    Floors,
    MisuseError,
    PeerError,
    Suite,
    TooFewSurvivors,
    Trip,
    load_position,
    member,
)

CLASSES = (
    ClientAdvertise,
    ClientShare,
    ClientEncapsulate,
    ClientDecapsulate,
    ClientCollect,
    ClientReady,
    ClientAgree,
    ClientUnmask,
    ClientDone,
)
COHORTS = {
    "semi-honest complete": lambda **more: semi_honest(6, threshold=3, **more),
    "semi-honest Harary": lambda **more: semi_honest(9, 4, threshold=2, **more),
    "malicious complete": lambda **more: malicious(6, threshold=4, **more),
    "malicious Harary": lambda **more: malicious(9, neighbours=6, threshold=4, **more),
    "hybrid complete": lambda **more: hybrid(6, threshold=3, **more),
    "hybrid malicious Harary": lambda **more: malicious(
        9, neighbours=6, threshold=4, suite=Suite.X25519_MLKEM768, **more
    ),
}
cohorts = pytest.mark.parametrize("make", COHORTS.values(), ids=COHORTS)
SLOTS = 3
FLOORS = Floors(clients=3, threshold=2, survivors=3, suite=Suite.X25519)


def identity(params, index):
    return IDENTITIES[index] if params.malicious else None


def reload(cohort, index):
    """Client `index` goes through bytes; gives them."""
    position = cohort.clients[index]
    data = position.dump()
    cohort.clients[index] = type(position).load(cohort.params, data, identity=identity(cohort.params, index))
    return data


def stages(make, slots=SLOTS):
    """(cohort, dump of client 0 at that point) for every position of a session, in whose rounds client 5 drops, and
    client 4 is not invited to the second. Client 0 leaves the third."""
    cohort = Cohort(make(slots=slots), floors=FLOORS)
    while True:
        yield cohort, reload(cohort, 0)
        client, trip = cohort.clients[0], cohort.server.trip
        if type(client) is ClientDone:
            return
        if type(client) is ClientCollect:
            collected(cohort, 0)
        elif trip is Trip.UNMASK and cohort.start.slot == 2:
            cohort.clients[0] = client.leave()
        elif trip is Trip.UNMASK:
            cohort.finish()
            invited = [i for i in range(cohort.params.clients) if i != 4 or cohort.prepared.next_slot != 1]
            if cohort.prepared.next_slot < slots:
                cohort.again(invited=Bitmap.of(cohort.params.clients, invited))
                cohort.mail = dict.fromkeys(invited, b"")
        else:
            cohort.trip(dropping={5} if trip is Trip.MASK else ())


def named(stage):
    """The position that a cohort of `stages` stands at, with the slot that comes next or is under way."""
    cohort, _ = stage
    return type(cohort.clients[0]), None if cohort.start is None else cohort.start.slot


@cohorts
def test_every_position_is_dumped_in_every_slot(make):
    """So that what follows is of all of them."""
    params, points = make(), [named(stage) for stage in stages(make)]
    setup = [ClientEncapsulate, ClientDecapsulate] if params.suite.hybrid else [ClientShare]
    expected = [(cls, None) for cls in [ClientAdvertise, *setup]] + [(ClientCollect, 0)]
    for slot in range(SLOTS):
        expected += [(cls, slot) for cls in [ClientReady, *[ClientAgree] * params.malicious, ClientUnmask]]
    assert points == [*expected, (ClientDone, SLOTS - 1)]


def spread(size, count):
    """Some `count` numbers below `size`: all of the head of a dump, and behind it such as fall into every part."""
    head = range(min(size, member._HEAD.size))
    return sorted(
        {*head, *range(head.stop, size, max(1, (size - head.stop) // count)), *range(max(0, size - 33), size)}
    )


def mended(data):
    """`data` with the digest that belongs to it: what somebody does who knows this source."""
    return data + hashlib.sha256(b"flora-secure/2 dump\0" + data).digest()


@cohorts
@pytest.mark.parametrize("lost", [None, *Trip])
def test_a_session_of_reloaded_positions(make, lost):
    """Every client goes through bytes before every trip, and client 5 drops; the sums are right."""
    cohort = Cohort(make(slots=2), floors=FLOORS)
    while True:
        for index in cohort.clients:
            reload(cohort, index)
            assert cohort.clients[index]._me.floors == FLOORS
        trip = cohort.server.trip
        if trip is not Trip.UNMASK:
            cohort.trip(dropping={5} & set(cohort.clients) if trip is lost else ())
            continue
        result = cohort.send(dropping={5} if trip is lost else ()).result()
        there_is = cohort.params.suite.hybrid or lost is not Trip.ENCAPSULATE
        gone = {5} if there_is and lost is not None and lost <= Trip.MASK else set()
        assert set(result.survivors) == set(range(cohort.params.clients)) - gone
        for index in cohort.clients:
            reload(cohort, index)
        if cohort.prepared.next_slot == 2:
            break
        cohort.again()
        for index in gone & set(cohort.clients):  # never got its inbox
            del cohort.mail[index]
    left = {type(client) for index, client in cohort.clients.items() if index != 5}
    assert left == {ClientDone}


@cohorts
def test_reloaded_positions_answer_as_the_originals(make):
    """Byte for byte, but for those that draw."""
    compared = set()
    for cohort, _ in stages(make):
        client = cohort.clients[0]
        if type(client) in (ClientAdvertise, ClientEncapsulate, ClientDone):
            continue
        before = cohort.move_again(0)
        reload(cohort, 0)
        assert cohort.move_again(0) == before
        compared.add(type(client))
    assert len(compared) == 4 + cohort.params.malicious


@cohorts
def test_every_flipped_bit_is_refused(make):
    """Of the head, and many behind it."""
    for cohort, data in stages(make):
        cls = type(cohort.clients[0])
        for place in spread(len(data), 60):
            bad = bytearray(data)
            bad[place] ^= 1 << place % 8
            with pytest.raises(MisuseError, match="cannot be loaded"):
                cls.load(cohort.params, bytes(bad), identity=identity(cohort.params, 0))


@cohorts
def test_cut_grown_and_foreign_dumps_are_refused(make):
    for cohort, data in stages(make):
        params, own = cohort.params, identity(cohort.params, 0)
        cls = type(cohort.clients[0])
        for bad in [data[:size] for size in spread(len(data), 40)] + [data + b"\0", data[32:], data * 2]:
            with pytest.raises(MisuseError, match="cannot be loaded"):
                cls.load(params, bad, identity=own)
        for bad in (None, bytearray(data), data.hex()):
            with pytest.raises(MisuseError, match="a dump is bytes"):
                cls.load(params, bad, identity=own)
        for other in CLASSES:
            if other is not cls:
                with pytest.raises(MisuseError, match="holds position"):
                    other.load(params, data, identity=own)
        for other in (make(slots=SLOTS, number=1), make(slots=SLOTS + 1), make(slots=SLOTS, bits=10)):
            with pytest.raises(MisuseError, match="another session"):
                cls.load(other, data, identity=own)


@pytest.mark.parametrize(("at", "text"), [(0, "not a dump"), (2, "version 4"), (3, "suite 2"), (4, "position")])
def test_another_version_with_a_right_digest(at, text):
    cohort = Cohort(semi_honest())
    body = bytearray(cohort.clients[0].dump()[:-32])
    body[at] += 1 + (at == 2)
    with pytest.raises(MisuseError, match=text):
        ClientAdvertise.load(cohort.params, mended(bytes(body)))


def test_another_client_with_a_right_digest():
    """The index beyond the cohort, and an index whose identity key the caller does not have."""
    cohort = Cohort(malicious())
    body = cohort.clients[0].dump()[:-32]
    for index, text in ((4, "of client 4, of 4"), (1, r"not the one that identities\[1\] names")):
        bad = mended(body[:37] + index.to_bytes(4, "little") + body[41:])
        with pytest.raises(MisuseError, match=text):
            ClientAdvertise.load(cohort.params, bad, identity=IDENTITIES[0])


@pytest.mark.searches
@cohorts
def test_forged_contents_end_in_a_typed_error_or_in_a_position(make):
    """The digest mended after any change: never another exception, whatever the contents say."""
    points = [(type(cohort.clients[0]), data, cohort.params) for cohort, data in stages(make)]

    @settings(max_examples=200)
    @given(st.sampled_from(points), st.data())
    def forge(point, draw):
        cls, data, params = point
        body = bytearray(data[:-32])
        cut = draw.draw(st.integers(37, len(body)))
        body[cut : cut + draw.draw(st.integers(0, 40))] = draw.draw(st.binary(max_size=40))
        try:
            loaded = cls.load(params, mended(bytes(body)), identity=identity(params, 0))
        except MisuseError:
            return
        assert loaded.dump() == mended(bytes(body))  # canonical: one position, one dump

    forge()


def uncanonical(data, place):
    """A dump whose share at `place` of the contents says that limb 0 is 65537; the digest is right."""
    body, first = bytearray(data[:-32]), member._HEAD.size + place
    body[first : first + 2], body[first + 16] = b"\1\0", body[first + 16] | 1
    return mended(bytes(body))


def test_a_share_that_is_not_canonical_is_refused_with_a_right_digest():
    """Revealed, it would make this client look guilty. Of the slot that is used, and of those that are left."""
    cohort = at(Cohort(semi_honest(slots=2)), Trip.MASK)
    collected(cohort, 0)
    ready = reload(cohort, 0)
    # behind session id, present, first slot, seeds, peers and their keys, owners
    left = 32 + 1 + 2 + 2 * 16 + 1 + 3 * 2 * 16 + 1
    at(cohort, Trip.UNMASK)
    used = reload(cohort, 0)
    for cls, data, place in (
        (ClientReady, ready, left),
        (ClientReady, ready, left + 34 + 17),
        (ClientUnmask, used, 32 + 1 + 1),  # behind round id, invited, owners
        (ClientUnmask, used, 32 + 1 + 1 + 4 * 34 + 1 + 3 * 8 + left - 16 - 3 * 16),
    ):
        with pytest.raises(MisuseError, match="a share is not canonically encoded"):
            cls.load(cohort.params, uncanonical(data, place))


def test_a_slot_beyond_the_session_is_refused_with_a_right_digest():
    cohort = at(Cohort(semi_honest(slots=2)), Trip.MASK)
    collected(cohort, 0)
    body = bytearray(reload(cohort, 0)[:-32])
    first = member._HEAD.size + 32 + 1
    body[first : first + 2] = b"\3\0"
    with pytest.raises(MisuseError, match="slot 3 of 2"):
        ClientReady.load(cohort.params, mended(bytes(body)))


def test_a_floor_of_no_suite_is_refused_with_a_right_digest():
    cohort = Cohort(semi_honest())
    body = bytearray(reload(cohort, 0)[:-32])
    for suite in (0, 3, 255):
        body[member._HEAD.size - 1] = suite
        with pytest.raises(MisuseError, match=f"its floor is suite {suite}, which there is not"):
            ClientAdvertise.load(cohort.params, mended(bytes(body)))


def test_the_identity_is_given_again():
    for cohort, data in stages(COHORTS["malicious complete"]):
        cls = type(cohort.clients[0])
        assert IDENTITIES[0] not in data
        if cls is ClientDone:
            cls.load(cohort.params, data)
        else:
            with pytest.raises(MisuseError, match="identity key is needed"):
                cls.load(cohort.params, data)
        with pytest.raises(MisuseError, match="not the one"):
            cls.load(cohort.params, data, identity=IDENTITIES[1])


def test_no_agreement_in_the_semi_honest_profile():
    cohort = at(Cohort(semi_honest()), Trip.UNMASK)
    body = bytearray(cohort.clients[0].dump()[:-32])
    body[4] = ClientAgree._CODE
    with pytest.raises(MisuseError, match="has no such position"):
        ClientAgree.load(cohort.params, mended(bytes(body)))


@cohorts
def test_dumping_spends_the_position(make):
    for cohort, _ in stages(make):
        old = cohort.clients[0]
        reload(cohort, 0)
        assert old.spent
        with pytest.raises(MisuseError, match="cannot dump again"):
            old.dump()
        cohort.clients[0], now = old, cohort.clients[0]
        if type(now) is not ClientDone:
            with pytest.raises(MisuseError, match="again"):
                step(cohort, 0)
        cohort.clients[0] = now


def test_a_moved_position_cannot_be_dumped(cohort):
    cohort.clients[0].advertise()
    with pytest.raises(MisuseError, match="cannot dump again"):
        cohort.clients[0].dump()


def test_floors_survive_and_still_bind():
    cohort = at(Cohort(semi_honest(), floors=replace(LEAST, survivors=4)), Trip.UNMASK, dropping={3})
    reload(cohort, 0)
    with pytest.raises(TooFewSurvivors, match="3 left, 4 needed"):
        cohort.move(0)


def test_a_dump_of_an_earlier_attempt_finds_no_session(cohort):
    """Two attempts at the same session with the same parameters: the dump loads, but nothing fits it."""
    old = at(Cohort(semi_honest()), Trip.MASK).clients[0].dump()
    at(cohort, Trip.MASK)
    with pytest.raises(PeerError, match="another session"):
        ClientCollect.load(cohort.params, old).collect(cohort.mail[0])
    cohort.finish()


@cohorts
def test_secrets_are_not_in_the_repr_of_a_loaded_position(make):
    for cohort, data in stages(make):
        shown = repr(cohort.clients[0])
        assert len(shown) < 80
        for place in range(member._HEAD.size, len(data) - 16, 4):
            assert data[place : place + 8].hex() not in shown
            assert repr(data[place : place + 8])[2:-1] not in shown


def test_an_error_tells_nothing_of_the_contents():
    cohort = Cohort(semi_honest()).trip()
    data = cohort.clients[0].dump()
    with pytest.raises(MisuseError) as caught:
        ClientShare.load(cohort.params, data[:-1])
    assert str(caught.value) == (
        "this dump cannot be loaded as ClientShare: its digest does not match: it was damaged, cut or tampered with"
    )


@cohorts
def test_any_dump_loads_as_what_it_is(make):
    """The round goes on from `load_position` alone; and what `load` refuses, it refuses."""
    for cohort, data in stages(make):
        cls, own = type(cohort.clients[0]), identity(cohort.params, 0)
        loaded = load_position(cohort.params, data, identity=own)
        assert type(loaded) is cls
        assert loaded.trip is cohort.clients[0].trip
        assert loaded.dump() == data
        cohort.clients[0] = load_position(cohort.params, data, identity=own)
        for bad in (b"", data[:-1], data + b"\0", data[:40], mended(data[:4] + b"\x0a" + data[5:-32]), None, "x"):
            with pytest.raises(MisuseError) as caught:
                load_position(cohort.params, bad, identity=own)
            assert "ClientAdvertise" not in str(caught.value)
        if cohort.params.malicious and cls._SIGNS:
            with pytest.raises(MisuseError, match="identity key"):
                load_position(cohort.params, data)


def test_what_kind_of_dump_there_is_not(cohort):
    data = cohort.clients[0].dump()
    with pytest.raises(MisuseError, match="cannot be loaded: it holds position 10, which there is not"):
        load_position(cohort.params, mended(data[:4] + b"\x0a" + data[5:-32]))
    with pytest.raises(MisuseError, match="params must be SessionParams"):
        load_position(None, data)
