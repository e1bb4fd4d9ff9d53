"""Rounds of a session: every check that a client makes of a START, and which slots it takes (SPEC.md, C-26 to C-29)."""

from dataclasses import replace

import pytest
from attacker import at, body_of, closed, collected, others_send, reframed
from cohorts import LEAST, MODEL, Cohort, duplicate, hybrid, malicious, semi_honest

from flora_protocols import (
    Bitmap,
    ClientDone,
    ClientReady,
    Code,
    Kind,
    MisuseError,
    PeerError,
    RoundParams,
    Suite,
    TooFewSurvivors,
    Trip,
)
from flora_protocols.codec import encode_frame


def signed_hybrid(clients=4, **more):
    return malicious(clients, suite=Suite.X25519_MLKEM768, **more)


makes = pytest.mark.parametrize("make", [semi_honest, malicious, hybrid, signed_hybrid])


def ready(make=semi_honest, clients=6, **more):
    """A cohort of three slots before MASK; client 0 has its inbox open. Client 5 has never shared."""
    cohort = Cohort(make(clients, **{"threshold": 4, "slots": 3} | more)).trip(dropping={5})
    at(cohort, Trip.MASK)
    collected(cohort, 0)
    return cohort


def a_round(cohort, **changes):
    given = {"slot": 0, "round": 1, "model_hash": MODEL, "invited": range(5)} | changes
    invited = given.pop("invited")
    size = given.pop("size", cohort.params.clients)
    return RoundParams(invited=invited if isinstance(invited, Bitmap) else Bitmap.of(size, invited), **given)


def refused(cohort, start, code, match, error=PeerError):
    """Client 0 refuses `start`, both ways, and is as it was: it then takes the true round."""
    client = cohort.clients[0]
    for act in (lambda: client.check(start), lambda: client.mask(start, cohort.vectors[0])):
        with pytest.raises(error, match=match) as caught:
            act()
        assert caught.value.code is code
        if error is PeerError:
            assert caught.value.culprit == "server"
    assert not client.spent
    client.check(cohort.start)
    duplicate(client).mask(cohort.start, cohort.vectors[0])


# C-26


def test_a_round_that_does_not_fit_the_session():
    cohort = ready()
    refused(cohort, a_round(cohort, slot=3), Code.PARAMETERS, "a round of slot 3, in a session of 3 slots")
    for size in (9, 16, 64):
        strange = a_round(cohort, size=size)
        refused(cohort, strange, Code.PARAMETERS, "in a session of 3 slots and 6 clients")
    for raw in (b"", b"\x5f", b"\x9f"):  # too short, and with bits beyond the last client
        refused(cohort, a_round(cohort, invited=Bitmap(raw)), Code.PARAMETERS, "a round of slot 0, in a session")


def test_a_start_that_is_not_canonical():
    """As a frame: bits beyond the last client, a slot beyond the session, cut, grown, of another session."""
    cohort = ready()
    params, session = cohort.params, cohort.prepared.session
    good = cohort.start.to_bytes(params, session)
    assert RoundParams.from_bytes(params, session, good) == cohort.start
    body = body_of(good)
    for bad, code, text in (
        (body[:-1] + b"\x5f", Code.BAD_BODY, "bitmap has bits beyond its 6 members"),
        (b"\3\0" + body[2:], Code.PARAMETERS, "slot 3: the session has 3, from 0"),
        (b"\xff\xff" + body[2:], Code.PARAMETERS, "slot 65535"),
        (body[:-1], Code.BAD_BODY, "truncated"),
        (body + b"\0", Code.NOT_A_MESSAGE, "bytes; between"),
    ):
        with pytest.raises(PeerError, match=text) as caught:
            RoundParams.from_bytes(params, session, reframed(good, bad))
        assert (caught.value.culprit, caught.value.code) == ("server", code)
    for other in (bytes(32), params.setup_id, cohort.start.id(params, session)):
        with pytest.raises(PeerError, match="another session") as caught:
            RoundParams.from_bytes(params, session, cohort.start.to_bytes(params, other))
        assert caught.value.code is Code.OTHER_SESSION
    with pytest.raises(PeerError, match="kind 9; START"):
        RoundParams.from_bytes(params, session, encode_frame(Kind.SURVIVORS, params.suite, session, body))
    with pytest.raises(MisuseError, match="a message is bytes"):
        RoundParams.from_bytes(params, session, None)


def test_a_round_of_another_type():
    cohort = ready()
    for bad in (None, cohort.start.to_bytes(cohort.params, cohort.prepared.session), {}):
        for act in (lambda bad=bad: cohort.clients[0].check(bad), lambda bad=bad: cohort.clients[0].mask(bad, None)):
            with pytest.raises(MisuseError):
                act()
    with pytest.raises(MisuseError, match="round must be RoundParams, not NoneType"):
        cohort.clients[0].mask(None, cohort.vectors[0])


# C-27


@makes
def test_slots_ascend(make):
    """A slot is taken once, whatever the rest of the round says; and one that was passed over is gone."""
    cohort = ready(make)
    at(cohort, Trip.UNMASK).finish()
    cohort.again(slot=2, round=3)
    cohort.mail = dict.fromkeys(range(5), b"")
    assert cohort.clients[0].next_slot == 1
    for changes in ({}, {"round": 99}, {"model_hash": bytes(32)}, {"invited": range(4)}):
        refused(
            cohort, a_round(cohort, **changes), Code.SECOND_MESSAGE, "slot 0 was used, or passed over: slots from 1 on"
        )
    cohort.trip()  # slot 2: of slot 1 nothing is left
    assert cohort.clients[0]._uploaded.left.first == 3
    at(cohort, Trip.UNMASK).finish()
    assert {type(cohort.clients[index]) for index in range(5)} == {ClientDone}


def test_a_slot_that_was_passed_over():
    cohort = ready()
    client, _ = cohort.clients[0].mask(a_round(cohort, slot=1), cohort.vectors[0])
    cohort.clients[0] = client.leave()
    assert cohort.clients[0].next_slot == 2
    cohort.start = a_round(cohort, slot=2)
    for slot in (0, 1):
        refused(cohort, a_round(cohort, slot=slot, round=9), Code.SECOND_MESSAGE, "slots from 2 on are left")


def test_one_slot_under_two_rounds():
    """The attack: a second vector under one slot, for another model or among others, after the first was masked."""
    cohort = ready()
    client = cohort.clients[0]
    masked, _ = client.mask(a_round(cohort), cohort.vectors[0])
    for again in (a_round(cohort), a_round(cohort, model_hash=bytes(32)), a_round(cohort, invited=range(4))):
        with pytest.raises(MisuseError, match="cannot mask again"):
            client.mask(again, cohort.vectors[1])
        with pytest.raises(PeerError, match="slot 0 was used") as caught:
            duplicate(masked).leave().mask(again, cohort.vectors[1])
        assert caught.value.code is Code.SECOND_MESSAGE


# C-28


@makes
def test_a_round_without_the_client_itself(make):
    cohort = ready(make)
    start = a_round(cohort, invited=range(1, 5))
    refused(cohort, start, Code.BAD_ROSTER, "a round that does not invite client 0")


@makes
def test_a_round_with_who_is_not_in_the_session(make):
    """Who never advertised: nobody would take its masks out. One that did, and then did not share, may be invited."""
    cohort = ready(make)
    start = a_round(cohort, invited=range(6))
    refused(cohort, start, Code.BAD_ROSTER, r"a round that invites \[5\], who are not in the session")
    cohort = Cohort(make(6, threshold=4, slots=3)).trip()
    at(cohort.trip(dropping={5}), Trip.MASK)
    client = collected(cohort, 0)
    assert list(client._slots.present) == (list(range(6)))
    position, _ = client.mask(a_round(cohort, invited=range(6)), cohort.vectors[0])
    assert set(position._uploaded.tags) == set(range(1, 5))  # with whose keys it has


def test_many_strangers_are_not_all_listed():
    cohort = Cohort(semi_honest(16, threshold=3)).trip(dropping=range(4, 16))
    at(cohort, Trip.MASK)
    with pytest.raises(PeerError, match=r"\[4, 5, 6, 7, 8, 9, 10, 11\], who"):
        collected(cohort, 0).check(a_round(cohort, invited=range(16)))


# C-29


@makes
def test_fewer_invited_than_the_floor(make):
    cohort = Cohort(make(6, threshold=4, slots=3), floors=replace(LEAST, clients=5))
    at(cohort.trip(dropping={5}), Trip.MASK)
    collected(cohort, 0)
    start = a_round(cohort, invited=range(4))
    refused(cohort, start, Code.BELOW_FLOOR, "clients invited: 4 left, 5 needed", TooFewSurvivors)


@makes
def test_fewer_holders_invited_than_the_threshold(make):
    """In the complete graph the client counts, for it holds shares of itself."""
    cohort = ready(make)
    start = a_round(cohort, invited=range(3))
    refused(cohort, start, Code.TOO_FEW_SURVIVORS, "holders invited: 3 left, 4 needed", TooFewSurvivors)
    duplicate(cohort.clients[0]).mask(a_round(cohort, invited=range(4)), cohort.vectors[0])


def test_fewer_neighbours_invited_than_the_threshold():
    """In a Harary graph it does not, and who is no neighbour counts as little."""
    cohort = at(Cohort(semi_honest(12, 4, threshold=3)), Trip.MASK)
    collected(cohort, 0)
    near = [member for member in cohort.params.graph.members(0) if member != 0]
    far = sorted(set(range(12)) - {0, *near})
    start = a_round(cohort, invited=[0, *near[:2], *far])
    refused(cohort, start, Code.TOO_FEW_SURVIVORS, "holders invited: 2 left, 3 needed", TooFewSurvivors)


def test_holders_that_never_shared_do_not_count():
    cohort = Cohort(semi_honest(6, threshold=4, slots=3)).trip()
    at(cohort.trip(dropping={4, 5}), Trip.MASK)
    collected(cohort, 0)
    cohort.start = a_round(cohort, invited=range(4))
    start = a_round(cohort, invited=(0, 1, 2, 4, 5))
    refused(cohort, start, Code.TOO_FEW_SURVIVORS, "holders invited: 3 left, 4 needed", TooFewSurvivors)


# Who leaves, and who comes back


@makes
def test_a_client_that_leaves_a_round_is_in_the_next(make):
    """From each position of the round. The others' sum is right, and so is the next one with it."""
    for leaves_in in [Trip.AGREE] * make().malicious + [Trip.UNMASK]:
        cohort = ready(make)
        at(cohort, leaves_in)
        left = cohort.clients[0].leave()
        assert type(left) is ClientReady
        assert left.next_slot == 1
        cohort.clients[0] = left
        others_send(cohort, 0)
        if cohort.server.trip is not Trip.UNMASK:
            closed(cohort)
            others_send(cohort, 0)
        assert cohort.result().survivors == tuple(range(5))  # its vector had arrived
        cohort.again()
        assert cohort.finish().survivors == tuple(range(5))
        cohort.again()
        cohort.finish()
        assert {type(cohort.clients[index]) for index in range(5)} == {ClientDone}


@makes
def test_a_client_that_was_not_heard_is_in_the_next(make):
    """Its masks are taken out of the round by its opener; the next round's are others."""
    cohort = ready(make)
    for index in range(5):
        collected(cohort, index)
    first = at(cohort, Trip.UNMASK, dropping={3}).finish()
    assert (first.survivors, first.dropped, first.recovered) == ((0, 1, 2, 4), (3,), (3,))
    cohort.again()
    assert cohort.finish().survivors == tuple(range(5))


@makes
def test_who_leaves_after_the_last_slot_is_done(make):
    cohort = at(Cohort(make(slots=1)), Trip.UNMASK)
    done = cohort.clients[0].leave()
    assert type(done) is ClientDone
    assert done.trip is None
    assert not any(hasattr(done, name) for name in ("mask", "leave", "collect", "unmask"))
    assert vars(done).keys() == {"_name", "_claim", "_turn", "_home", "_me"}


@makes
def test_client_done_after_the_last_slot(make):
    cohort = at(Cohort(make(slots=2)), Trip.UNMASK)
    cohort.finish()
    assert {type(client) for client in cohort.clients.values()} == {ClientReady}
    cohort.again().finish()
    assert {type(client) for client in cohort.clients.values()} == {ClientDone}
    with pytest.raises(MisuseError, match="all 2 slots are used; set up another session") as caught:
        cohort.again()
    assert caught.value.code is Code.SPENT
    with pytest.raises(AttributeError):
        cohort.clients[0].mask  # noqa: B018  (there is no way to answer)


def test_leaving_spends_the_position():
    cohort = at(Cohort(semi_honest(slots=2)), Trip.UNMASK)
    client, mail = cohort.clients[0], cohort.mail[0]
    client.leave()
    for act in (client.leave, lambda: client.unmask(mail), client.dump):
        with pytest.raises(MisuseError, match="again; go on with") as caught:
            act()
        assert caught.value.code is Code.SPENT


@makes
def test_every_round_of_many_slots(make):
    """Ten rounds of one set-up, others invited and others dropped in each; every sum is right."""
    cohort = Cohort(make(7, threshold=4, slots=10))
    at(cohort, Trip.MASK)
    for index in range(7):
        collected(cohort, index)
    for slot in range(10):
        absent, silent = slot % 7, (slot + 3) % 7
        if slot:
            invited = [index for index in range(7) if index != absent]
            cohort.again(invited=Bitmap.of(7, invited))
            cohort.mail = dict.fromkeys(invited, b"")
        result = at(cohort, Trip.UNMASK, dropping={silent}).finish()
        assert result.dropped == result.recovered == (silent,)
        assert len(result.survivors) == 6 - bool(slot)
    assert cohort.prepared.next_slot == 10
