"""Positions written down and read back: a round of nothing else, and every way to spoil a dump."""

import hashlib
from dataclasses import replace

import pytest
from cohorts import IDENTITIES, LEAST, Cohort, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    ClientAdvertise,
    ClientAgree,
    ClientDone,
    ClientMask,
    ClientShare,
    ClientUnmask,
    Floors,
    MisuseError,
    PeerError,
    TooFewSurvivors,
    load_position,
    member,
)

CLASSES = (ClientAdvertise, ClientShare, ClientMask, ClientAgree, ClientUnmask, ClientDone)
COHORTS = {
    "semi-honest complete": lambda **more: semi_honest(6, threshold=3, **more),
    "semi-honest Harary": lambda **more: semi_honest(9, 4, threshold=2, **more),
    "malicious complete": lambda **more: malicious(6, threshold=4, **more),
    "malicious Harary": lambda **more: malicious(9, neighbours=6, threshold=4, **more),
    "direct reveal": lambda **more: semi_honest(6, threshold=3, direct_reveal=True, **more),
    "malicious direct reveal": lambda **more: malicious(9, neighbours=6, threshold=4, direct_reveal=True, **more),
}
cohorts = pytest.mark.parametrize("make", COHORTS.values(), ids=COHORTS)


def identity(params, index):
    return IDENTITIES[index] if params.malicious else None


def reload(cohort, index):
    """Client `index` goes through bytes; gives them."""
    position = cohort.clients[index]
    data = position.dump()
    cohort.clients[index] = type(position).load(cohort.params, data, identity=identity(cohort.params, index))
    return data


def stages(make):
    """(cohort, dump of client 0 at that point) for every position of a round in which one client drops."""
    cohort = Cohort(make(), floors=replace(LEAST, clients=3, survivors=3))
    for trip in range(6):
        yield cohort, reload(cohort, 0)
        if type(cohort.clients[0]) is ClientDone:
            return
        if type(cohort.server).__name__ == "ServerUnmask":
            cohort.send()
        else:
            cohort.trip(dropping={5} if trip == 2 else ())


def mended(data):
    """`data` with the digest that belongs to it: what somebody does who knows this source."""
    return data + hashlib.sha256(b"flora-secure/2 dump\0" + data).digest()


@cohorts
@pytest.mark.parametrize("lost", [None, 0, 1, 2])
def test_a_round_of_reloaded_positions(make, lost):
    """Every client goes through bytes before every trip, and client 5 drops; the sum is right."""
    cohort = Cohort(make(), floors=Floors(clients=3, threshold=2, survivors=3))
    trip = 0
    while True:
        for index in cohort.clients:
            reload(cohort, index)
            assert cohort.clients[index]._me.floors == Floors(clients=3, threshold=2, survivors=3)
        if type(cohort.server).__name__ == "ServerUnmask":
            break
        cohort.trip(dropping={5} if trip == lost else ())
        trip += 1
    result = cohort.send().result()
    assert result.survivors == tuple(i for i in range(cohort.params.clients) if i != 5 or lost is None)
    assert {type(client) for client in cohort.clients.values()} == {ClientDone}
    reload(cohort, 0)


@cohorts
def test_reloaded_positions_answer_as_the_originals(make):
    """Byte for byte, with the same randomness."""
    for cohort, _ in stages(make):
        before = None
        if type(cohort.clients[0]) in (ClientAgree, ClientUnmask, ClientMask):  # these draw nothing
            before = cohort.move_again(0)
        reload(cohort, 0)
        if before is not None:
            assert cohort.move_again(0) == before


@cohorts
def test_every_flipped_bit_is_refused(make):
    for cohort, data in stages(make):
        cls = type(cohort.clients[0])
        for at in range(8 * len(data)):
            bad = bytearray(data)
            bad[at // 8] ^= 1 << at % 8
            with pytest.raises(MisuseError, match="cannot be loaded"):
                cls.load(cohort.params, bytes(bad), identity=identity(cohort.params, 0))


@cohorts
def test_cut_grown_and_foreign_dumps_are_refused(make):
    for cohort, data in stages(make):
        params, own = cohort.params, identity(cohort.params, 0)
        cls = type(cohort.clients[0])
        for bad in [data[:size] for size in range(len(data))] + [data + b"\0", data[32:], data * 2]:
            with pytest.raises(MisuseError, match="cannot be loaded"):
                cls.load(params, bad, identity=own)
        for bad in (None, bytearray(data), data.hex()):
            with pytest.raises(MisuseError, match="a dump is bytes"):
                cls.load(params, bad, identity=own)
        for other in CLASSES:
            if other is not cls:
                with pytest.raises(MisuseError, match="holds position"):
                    other.load(params, data, identity=own)
        for other in (make(round=1), make(model_hash=b"m" * 32), make(bits=10)):
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


def test_a_share_that_is_not_canonical_is_refused_with_a_right_digest():
    """Revealed, it would make this client look guilty."""
    cohort = Cohort(semi_honest()).trip().trip().trip()
    body = bytearray(cohort.clients[0].dump()[:-32])
    first = member._HEAD.size + 32 + 1 + 1  # behind the session id, who is present, whose shares are held
    body[first : first + 2], body[first + 16] = b"\1\0", body[first + 16] | 1  # limb 0 would be 65537
    with pytest.raises(MisuseError, match="a share is not canonically encoded"):
        ClientUnmask.load(cohort.params, mended(bytes(body)))


def test_the_identity_is_given_again():
    for cohort, data in stages(lambda: malicious(6, threshold=4)):
        cls = type(cohort.clients[0])
        assert IDENTITIES[0] not in data
        if cls in (ClientUnmask, ClientDone):
            cls.load(cohort.params, data)
        else:
            with pytest.raises(MisuseError, match="identity key is needed"):
                cls.load(cohort.params, data)
        with pytest.raises(MisuseError, match="not the one"):
            cls.load(cohort.params, data, identity=IDENTITIES[1])


def test_no_agreement_in_the_semi_honest_profile():
    cohort = Cohort(semi_honest()).trip().trip().trip()
    body = bytearray(cohort.clients[0].dump()[:-32])
    body[4] = 4
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
                cohort.move(0)
        cohort.clients[0] = now


def test_a_moved_position_cannot_be_dumped(cohort):
    cohort.clients[0].advertise()
    with pytest.raises(MisuseError, match="cannot dump again"):
        cohort.clients[0].dump()


def test_floors_survive_and_still_bind():
    cohort = Cohort(semi_honest(), floors=replace(LEAST, survivors=4)).trip().trip().trip(dropping={3})
    reload(cohort, 0)
    with pytest.raises(TooFewSurvivors, match="3 left, 4 needed"):
        cohort.move(0)


def test_a_dump_of_an_earlier_attempt_finds_no_session(cohort):
    """Two attempts at the same round with the same parameters: the dump loads, but nothing fits it."""
    old = Cohort(semi_honest()).trip().trip().clients[0].dump()
    cohort.trip().trip()
    with pytest.raises(PeerError, match="another session"):
        ClientMask.load(cohort.params, old).mask(cohort.mail[0], cohort.vectors[0])
    cohort.finish()


@cohorts
def test_secrets_are_not_in_the_repr_of_a_loaded_position(make):
    for cohort, data in stages(make):
        shown = repr(cohort.clients[0])
        assert len(shown) < 80
        for at in range(member._HEAD.size, len(data) - 16):
            assert data[at : at + 8].hex() not in shown
            assert repr(data[at : at + 8])[2:-1] not in shown


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
        for bad in (b"", data[:-1], data + b"\0", data[:40], mended(data[:4] + b"\x07" + data[5:-32]), None, "x"):
            with pytest.raises(MisuseError) as caught:
                load_position(cohort.params, bad, identity=own)
            assert "ClientAdvertise" not in str(caught.value)
        if cohort.params.malicious and cls._SIGNS:
            with pytest.raises(MisuseError, match="identity key"):
                load_position(cohort.params, data)


def test_what_kind_of_dump_there_is_not(cohort):
    data = cohort.clients[0].dump()
    with pytest.raises(MisuseError, match="cannot be loaded: it holds position 7, which there is not"):
        load_position(cohort.params, mended(data[:4] + b"\x07" + data[5:-32]))
    with pytest.raises(MisuseError, match="params must be SessionParams"):
        load_position(None, data)
