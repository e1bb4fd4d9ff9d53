"""What a transport loses, repeats, damages or reorders, and what it keeps from earlier rounds and sessions: no wrong
sum comes of it, and what is merely repeated changes nothing."""

import hashlib
import random
from contextlib import suppress

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import IDENTITIES, LEAST, MODEL, hybrid, malicious, semi_honest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    Code,
    MisuseError,
    PeerError,
    RoundAborted,
    TooFewSurvivors,
    Trip,
    answer,
    conduct,
    drive,
    set_up,
)
from flora_protocols.member import DUMP_VERSION
from flora_protocols.round_params import start_bytes

profiles = pytest.mark.parametrize("make", [semi_honest, malicious])
KINDS = {
    "semi-honest": semi_honest,
    "signed": malicious,
    "hybrid": lambda **more: hybrid(5, threshold=3, **more),
    "hybrid, signed Harary": lambda **more: malicious(8, neighbours=6, threshold=4, **HYBRID, **more),
}
HYBRID = {"suite": hybrid().suite}


def vector_of(params, index, number):
    """What client `index` uploads in round `number`."""
    rng = np.random.default_rng((index, number))
    return rng.integers(0, 1 << params.bits, params.dimension, dtype=np.uint32)


def right(params, result, number):
    """Whether the sum is that of the survivors' vectors of the round."""
    total = sum(vector_of(params, index, number).astype(object) for index in result.survivors)
    return (result.sum == np.array(total % (1 << params.bits), np.uint32)).all()


class Clients:
    """Clients that answer, each with nothing but what it keeps. `said`: every reply of each; `asked`: what it was
    asked, and under which parameters; `trained`: the rounds that it has made a vector for."""

    def __init__(self):
        self.kept, self.said, self.asked, self.trained = {}, {}, {}, {}

    def ask(self, params, index, request):
        def vector(start):
            self.trained.setdefault(index, []).append((params.number, start.round))
            return vector_of(params, index, start.round)

        reply = answer(
            params,
            index,
            request,
            self.kept.get(index, b""),
            floors=LEAST,
            identity=IDENTITIES[index] if params.malicious else None,
            vector=vector,
        )
        self.kept[index] = reply.kept
        self.said.setdefault(index, []).append(reply.reply)
        self.asked.setdefault(index, []).append((params, request))
        return reply


class Carrier:
    """Delivers what it should, and between, before and after it whatever it has ever carried, in any order.

    `lost`: (client, trip) whose request it loses. `damaged`: those whose reply it damages; their requests it damages
    first, too, which costs nobody anything.
    """

    def __init__(self, params, clients, rng):
        self.params, self.clients, self.rng = params, clients, rng
        self.lost, self.damaged = set(), set()
        self.sent = {index: [] for index in range(params.clients)}

    def __call__(self, exchange):
        order = list(exchange.outbox.items())
        self.rng.shuffle(order)
        for index, mail in order:
            if (index, exchange.trip) in self.lost:
                yield from self.old(index)
                continue
            yield from self.reply(index, mail, exchange.start, (index, exchange.trip) in self.damaged)

    def reply(self, index, mail, start, damaged):
        self.replay(index)
        if damaged:  # of what begins a round the START, for an inbox that comes once more is not read
            read = start or len(mail)
            self.attempt(index, self.params, self.bent(mail[:read]) + mail[read:])
        try:
            reply = self.clients.ask(self.params, index, mail).reply
        except TooFewSurvivors:  # others are lost
            return
        yield from self.old(index)
        if damaged:
            yield index, self.bent(reply)
            yield index, reply  # too late
            return
        if reply not in self.sent[index]:
            self.sent[index].append(reply)
        yield index, reply
        if self.rng.random() < 0.5:
            assert self.clients.ask(self.params, index, mail).reply == reply
        self.replay(index)
        yield from self.old(index)

    def bent(self, message):
        at = self.rng.randrange(len(message))
        return message[:at] + bytes((message[at] ^ 1 << self.rng.randrange(8),)) + message[at + 1 :]

    def old(self, index):
        return [(index, old) for old in self.some(self.sent[index])]

    def replay(self, index):
        for again in self.some(self.clients.asked.get(index, ())):
            self.attempt(index, *again)

    def some(self, things):
        """A few of them, in any order, any of them more than once."""
        return self.rng.choices(things, k=self.rng.randrange(4)) if things else []

    def attempt(self, index, params, request):
        before = self.clients.kept.get(index)
        with suppress(PeerError, TooFewSurvivors):
            self.clients.ask(params, index, request)
        assert self.clients.kept.get(index) == before


def attempted(loop, carry):
    """How a round ends: a RoundResult, or RoundAborted."""
    try:
        return drive(loop, carry)
    except RoundAborted as error:
        return error


def session(params, clients, rng):
    """A session that is set up, and the carrier of its messages."""
    carrier = Carrier(params, clients, rng)
    return drive(set_up(params), carrier), carrier


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32))
def test_a_carrier_that_repeats_and_reorders_everything(kind, seed):
    """Two sessions of three rounds, with all messages of those before at hand: each sum is right, nobody is refused, no
    client has said anything but one message a trip, and who was silent in a round is in the next."""
    clients, rng = Clients(), random.Random(seed)
    for number in (1, 3):
        params = KINDS[kind](number=number, slots=3)
        prepared, carrier = session(params, clients, rng)
        assert prepared.refused == {}
        for round in (10 * number + at for at in (2, 3, 7)):
            gone = {(rng.randrange(params.clients), Trip.MASK)} if rng.random() < 0.5 else set()
            carrier.lost = gone
            result = drive(conduct(prepared, prepared.next_round(round, MODEL)), carrier)
            assert result.refused == {}
            assert set(result.dropped) == {index for index, _ in gone}
            assert right(params, result, round)
    for said in clients.said.values():
        kinds = {message[:13]: message for message in said}  # the kind, and the set-up, session or round
        assert set(said) == set(kinds.values())
    for trained in clients.trained.values():
        assert len(set(trained)) == len(trained)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_carrier_that_also_loses_and_damages(data):
    """In any trips of any rounds: each ends in the right sum or in a typed error; who is hit drops out of that round
    and is in the next; and messages of earlier rounds cost nobody anything, whenever they come."""
    params = KINDS[data.draw(st.sampled_from(sorted(KINDS)))](slots=4)
    rng, clients = random.Random(data.draw(st.integers(0, 2**32))), Clients()
    trips = st.sampled_from([Trip.MASK, Trip.AGREE, Trip.UNMASK])
    hits = st.sets(st.tuples(st.integers(0, params.clients - 1), trips), max_size=2)
    prepared, carrier = session(params, clients, rng)
    for round in range(4):
        carrier.lost, carrier.damaged = (set(), set()) if round == 3 else (data.draw(hits), data.draw(hits))
        hit = {index for index, _ in carrier.lost | carrier.damaged}
        result = attempted(conduct(prepared, prepared.next_round(round, MODEL)), carrier)
        assert set(result.refused) <= {index for index, _ in carrier.damaged}
        if isinstance(result, RoundAborted):
            assert hit
            assert isinstance(result.cause, TooFewSurvivors)
            continue
        assert right(params, result, round)
        assert set(result.dropped) <= hit
        assert set(range(params.clients)) - hit <= set(result.survivors)
    assert result.survivors == tuple(range(params.clients))


@profiles
def test_the_server_ignores_what_comes_again(make):
    """In the same trip and in all later ones, of the set-up and of both rounds."""
    params, clients = make(slots=2), Clients()
    before = []

    def carry(exchange):
        replies = [(index, clients.ask(params, index, mail).reply) for index, mail in exchange.outbox.items()]
        yield from before
        for index, reply in replies[:-1]:
            yield index, reply
            yield index, reply
        yield replies[-1]
        before.extend(replies)

    prepared = drive(set_up(params), carry)
    for number in (1, 2):
        result = drive(conduct(prepared, prepared.next_round(number, MODEL)), carry)
        assert (prepared.refused, result.refused, result.survivors) == ({}, {}, (0, 1, 2, 3))
        assert right(params, result, number)


@profiles
@pytest.mark.parametrize("late", ["ADVERTISEMENT", "SHARES", "UPLOAD", "ENDORSEMENT", "REVEAL"])
@pytest.mark.parametrize("trip", [Trip.MASK, Trip.AGREE, Trip.UNMASK])
def test_what_comes_a_round_late_costs_nobody_anything(make, late, trip):
    """Never taken when it was due, it comes first in a trip of the next round, whose sum has everybody."""
    params, clients = make(slots=2), Clients()
    prepared, _ = session(params, clients, random.Random(0))
    held = []

    def first(exchange):
        for index, mail in exchange.outbox.items():
            reply = clients.ask(params, index, mail).reply
            if index == 2 and reply[4] == KIND[late]:
                held.append(reply)
            else:
                yield index, reply

    def second(exchange):
        if exchange.trip is trip:
            yield from ((2, message) for message in held)
        for index, mail in exchange.outbox.items():
            yield index, clients.ask(params, index, mail).reply

    drive(conduct(prepared, prepared.next_round(1, MODEL)), first)
    held = held or [message for message in clients.said[2] if message[4] == KIND[late]][:1]
    assert len(held) == (late != "ENDORSEMENT" or params.malicious)
    result = drive(conduct(prepared, prepared.next_round(2, MODEL)), second)
    assert (result.survivors, result.refused) == ((0, 1, 2, 3), {})
    assert right(params, result, 2)


KIND = {"ADVERTISEMENT": 1, "SHARES": 5, "UPLOAD": 8, "ENDORSEMENT": 10, "REVEAL": 12}


@profiles
@pytest.mark.parametrize("old", [False, True])
def test_another_message_is_no_repeat(make, old):
    """A second one with other bytes, and one of an earlier session, cost their sender, as ever."""
    clients = Clients()
    session(make(number=1), clients, random.Random(0))
    stale, params = clients.said[1][0], make(number=2)

    def carry(exchange):
        for index, mail in exchange.outbox.items():
            reply = clients.ask(params, index, mail).reply
            if exchange.trip is Trip.SHARE and index == 1:
                yield index, stale if old else reply
                yield index, reframed(reply, body_of(reply)[::-1])
            else:
                yield index, reply

    prepared = drive(set_up(params), carry)
    assert {index: error.code for index, error in prepared.refused.items()} == {
        1: Code.OTHER_KIND if old else Code.SECOND_MESSAGE
    }
    assert prepared.clients == (0, 2, 3)  # also where its shares were taken
    assert prepared.dealers == ((0, 2, 3) if old else (0, 1, 2, 3))
    result = drive(conduct(prepared, prepared.next_round(1, MODEL)), carry)
    assert (result.survivors, result.refused) == ((0, 2, 3), {})
    assert right(params, result, 1)


def trips(clients, params, rounds=(1,), index=0):
    """A session taken trip by trip; gives client `index`'s requests, in order, before it is asked them."""
    prepared = yield from requests(clients, params, set_up(params), index)
    for number in rounds:
        yield from requests(clients, params, conduct(prepared, prepared.next_round(number, MODEL)), index)


def requests(clients, params, loop, index):
    exchange = next(loop)
    while True:
        yield exchange.outbox[index]
        others = [(i, clients.ask(params, i, mail).reply) for i, mail in exchange.outbox.items()]
        try:
            exchange = loop.send(others)
        except StopIteration as end:
            return end.value


@profiles
def test_an_empty_request_never_begins_a_session_twice(make):
    """The attack: a server that asks one client to begin anew has its vector in two sums, which differ by a vector."""
    clients, params = Clients(), make(number=7, slots=2)
    for trip, _ in enumerate(trips(clients, params, (1, 2))):
        if not trip:
            continue
        kept = clients.kept[0]
        if trip == 1:
            assert clients.ask(params, 0, b"").reply == clients.said[0][0]  # the last request, the same bytes
            continue
        with pytest.raises(PeerError, match="asks to begin session 7; this client has begun session 7") as caught:
            clients.ask(params, 0, b"")
        assert (caught.value.culprit, caught.value.code) == ("server", Code.SECOND_MESSAGE)
        for other in (make(number=7, bits=10), make(number=6), make(number=7, slots=3)):
            with pytest.raises(PeerError, match="asks to begin"):
                clients.ask(other, 0, b"")
        assert clients.kept[0] == kept
    with pytest.raises(PeerError, match="asks to begin"):
        clients.ask(params, 0, b"")
    assert clients.ask(make(number=8), 0, b"").reply[4] == 1


@profiles
def test_a_round_begins_once_and_rounds_ascend(make):
    """A START of a round that was begun, or of one before it, under any slot that is left: the vector of one round
    would be in two sums. So it stays when the round is over, or was left."""
    clients, params = Clients(), make(slots=8)
    prepared, carrier = session(params, clients, random.Random(0))
    drive(conduct(prepared, prepared.next_round(5, MODEL)), carrier)
    loop = conduct(prepared, prepared.next_round(6, MODEL))
    clients.ask(params, 0, next(loop).outbox[0])  # and the round ends here
    kept, trained = clients.kept[0], list(clients.trained[0])
    for number in (6, 5, 0):
        with pytest.raises(PeerError, match=f"asks to begin round {number}; this client has begun round 6") as caught:
            clients.ask(params, 0, start(prepared, number))
        assert (caught.value.culprit, caught.value.code) == ("server", Code.SECOND_MESSAGE)
    assert clients.kept[0] == kept
    assert clients.trained[0] == trained
    assert clients.ask(params, 0, start(prepared, 7)).reply[4] == 8


@profiles
def test_no_round_is_begun_in_two_sessions(make):
    """Its vector would be in two sums, whose clients may differ by one."""
    clients, first, second = Clients(), make(number=1, slots=2), make(number=2, slots=2)
    prepared, carrier = session(first, clients, random.Random(0))
    drive(conduct(prepared, prepared.next_round(5, MODEL)), carrier)
    again, carrier = session(second, clients, random.Random(0))
    kept, trained = clients.kept[0], list(clients.trained[0])
    for number in (5, 4):
        with pytest.raises(PeerError, match=f"asks to begin round {number}; this client has begun round 5"):
            clients.ask(second, 0, start(again, number) + again.undelivered[0])
    assert clients.kept[0] == kept
    assert clients.trained[0] == trained
    assert right(second, drive(conduct(again, again.next_round(6, MODEL)), carrier), 6)


@profiles
def test_no_other_round_once_the_last_slot_is_taken(make):
    """Neither while its round goes on, nor instead of it; the true message can come yet."""
    clients, params = Clients(), make(slots=1)
    prepared, carrier = session(params, clients, random.Random(0))
    other = prepared.next_round(2, MODEL).to_bytes(params, prepared.session)

    def watched(exchange):
        replies = list(carrier(exchange))
        kept = clients.kept[0]
        with pytest.raises(PeerError) as caught:
            clients.ask(params, 0, other)
        assert (caught.value.culprit, caught.value.code) == ("server", Code.SECOND_MESSAGE)
        assert clients.kept[0] == kept
        return replies

    assert right(params, drive(conduct(prepared, prepared.next_round(1, MODEL)), watched), 1)


def start(prepared, number, **more):
    """A START in the first slot that is left at the server; it takes none."""
    return prepared.next_round(number, MODEL, **more).to_bytes(prepared.params, prepared.session)


@profiles
def test_the_same_request_the_same_bytes(make):
    """Also after the last one, and whatever the vector would be by now: it is asked for once."""
    clients, params = Clients(), make(slots=2)
    asked = list(trips(clients, params, (1, 2)))
    last = clients.ask(params, 0, asked[-1])
    assert last.done
    assert last.reply == clients.said[0][-2]
    assert len(set(clients.said[0])) == len(asked)
    assert clients.trained[0] == [(0, 1), (0, 2)]
    for request in asked[:-1]:
        with pytest.raises(PeerError):
            clients.ask(params, 0, request)
    with pytest.raises(PeerError, match="after the last of the session") as caught:
        clients.ask(params, 0, b"more")
    assert caught.value.code is Code.SECOND_MESSAGE


@profiles
def test_an_inbox_that_comes_again_with_a_later_start_is_ignored(make):
    """The first upload was lost, so the server sends the inbox again: whatever is in it by then is not read, since what
    it held has been opened."""
    clients, params = Clients(), make(slots=4)
    prepared, _ = session(params, clients, random.Random(0))
    size, seen = start_bytes(params), []

    def lossy(exchange):
        seen.append(exchange.outbox[0])
        clients.ask(params, 0, exchange.outbox[0])
        return ()

    for number in (1, 2):
        with pytest.raises(RoundAborted):
            drive(conduct(prepared, prepared.next_round(number, MODEL)), lossy)
    assert seen[0][size:] == seen[1][size:] != b""
    other = start(prepared, 3) + b"another inbox"
    assert clients.ask(params, 0, other).reply[4] == 8
    with pytest.raises(PeerError) as caught:  # but the first must be right
        clients.ask(params, 1, start(prepared, 3) + b"another inbox")
    assert caught.value.culprit == "server"
    with pytest.raises(PeerError):
        clients.ask(params, 1, start(prepared, 3))


@profiles
def test_who_never_got_its_inbox_gets_it_with_the_next_round(make):
    """And who has uploaded gets it no more."""
    clients, params = Clients(), make(slots=2)
    prepared, carrier = session(params, clients, random.Random(0))
    carrier.lost, size = {(2, Trip.MASK)}, start_bytes(params)
    assert drive(conduct(prepared, prepared.next_round(1, MODEL)), carrier).recovered == (2,)
    carrier.lost, exchanges = set(), []

    def watched(exchange):
        exchanges.append(exchange)
        return carrier(exchange)

    result = drive(conduct(prepared, prepared.next_round(2, MODEL)), watched)
    assert result.survivors == (0, 1, 2, 3)
    assert {index for index, mail in exchanges[0].outbox.items() if len(mail) > size} == {2}


def test_what_another_client_has_kept():
    clients, params = Clients(), semi_honest()
    steps = trips(clients, params)
    roster = [next(steps) for _ in range(2)][-1]
    clients.kept[3] = clients.kept[0]
    with pytest.raises(MisuseError, match="is of client 0, not 3"):
        clients.ask(params, 3, roster)


def test_messages_of_another_session():
    clients = Clients()
    list(trips(clients, semi_honest(number=1)))
    for request in (b"x", *(request for _, request in clients.asked[0][1:])):
        with pytest.raises(PeerError, match="not begun here, or is over") as caught:
            clients.ask(semi_honest(number=2), 0, request)
        assert caught.value.code is Code.OTHER_SESSION
    with pytest.raises(PeerError, match="not begun here"):
        Clients().ask(semi_honest(), 0, b"x")


@profiles
def test_messages_of_another_trip(make):
    """At every point of a session, all that the server has said before, or says to others by now: refused, or answered
    as it was answered then."""
    clients, params = Clients(), make(slots=2)
    heard = []
    for request in trips(clients, params, (1, 2)):
        kept = clients.kept.get(0)
        for old in (*heard[:-1], b"x", b"fS\2\1\7" + bytes(20)):
            with pytest.raises(PeerError) as caught:
                clients.ask(params, 0, old)
            assert caught.value.culprit == "server"
            assert clients.kept.get(0) == kept
        heard.append(request)


def test_what_is_raised_changes_nothing():
    """Too few others, or a vector that does not fit: the same request can be answered later."""
    params, mine = semi_honest(slots=2), {"floors": LEAST}
    good, asked = vector_of(params, 0, 1), []
    clients = Clients()
    steps = trips(clients, params)
    first_start = [next(steps) for _ in range(3)][-1]
    kept, size = clients.kept[0], start_bytes(params)

    def vector(value):
        asked.append(1)
        return value

    for bad in (good[:4], good.astype(float), None):
        with pytest.raises(MisuseError):
            answer(params, 0, first_start, kept, vector=lambda _, bad=bad: bad, **mine)
    with pytest.raises(ZeroDivisionError):
        answer(params, 0, first_start, kept, vector=lambda _: 1 // 0, **mine)
    inbox = first_start[size:]
    fewer = reframed(inbox, b"\3" + body_of(inbox)[1:17])  # of client 1 alone, whose shares client 0 derives
    with pytest.raises(TooFewSurvivors):
        answer(params, 0, first_start[:size] + fewer, kept, vector=lambda _: 1 // 0, **mine)
    first = answer(params, 0, first_start, kept, vector=lambda _: vector(good), **mine)
    assert answer(params, 0, first_start, first.kept, vector=lambda _: vector(good + 1), **mine) == first
    assert asked == [1]


@profiles
def test_no_vector_is_made_for_a_round_that_is_refused(make):
    """Training takes minutes, and may be charged to the client's ledger: what the round lacks is said before."""
    clients, params = Clients(), make(slots=2)
    prepared, carrier = session(params, clients, random.Random(0))
    drive(conduct(prepared, prepared.next_round(1, MODEL)), carrier)
    for invited, error in (((1, 2, 3), PeerError), ((0, 1), TooFewSurvivors)):
        with pytest.raises(error):
            clients.ask(params, 0, start(prepared, 2, invited=invited))
    assert clients.trained[0] == [(0, 1)]


@pytest.mark.parametrize("cut", [0, 1, 40, 100, -1, -33])
def test_what_was_kept_and_damaged(cut):
    clients = Clients()
    clients.ask(semi_honest(), 0, b"")
    kept = clients.kept[0]
    for bad in (kept[:cut], kept + b"\0", kept[:cut] + bytes((kept[cut] ^ 1,)) + kept[cut + 1 or len(kept) :]):
        if bad == b"":
            continue
        clients.kept[0] = bad
        with pytest.raises(MisuseError) as caught:
            clients.ask(semi_honest(), 0, b"")
        assert caught.value.code is Code.BAD_DUMP


def sealed(body):
    """As kept, with the digest that belongs to it."""
    return body + hashlib.sha256(b"flora-secure/2 kept\0" + body).digest()


@pytest.mark.parametrize("change", [lambda body: body[:3], lambda body: body[:80], lambda body: b"fX" + body[2:]])
def test_what_was_never_kept_with_a_right_digest(change):
    """Too short for its head, or of another magic."""
    clients = Clients()
    clients.ask(semi_honest(), 0, b"")
    clients.kept[0] = sealed(change(clients.kept[0][:-32]))
    with pytest.raises(MisuseError, match="not what a client has kept") as caught:
        clients.ask(semi_honest(), 0, b"")
    assert caught.value.code is Code.BAD_DUMP


def test_what_was_kept_by_another_version():
    clients = Clients()
    clients.ask(semi_honest(), 0, b"")
    kept = clients.kept[0]
    clients.kept[0] = sealed(kept[:2] + bytes((DUMP_VERSION + 1,)) + kept[3:-32])
    with pytest.raises(MisuseError, match=f"has version {DUMP_VERSION + 1}") as caught:
        clients.ask(semi_honest(), 0, b"")
    assert caught.value.code is Code.OTHER_VERSION


def test_wrong_types():
    mine = {"floors": LEAST, "vector": lambda _: np.zeros(5, np.uint32)}
    for arguments in ((None, 0, b"", b""), (semi_honest(), 0, "", b""), (semi_honest(), 0, b"", None)):
        with pytest.raises(MisuseError):
            answer(*arguments, **mine)
    shown = repr(answer(semi_honest(), 0, b"", b"", **mine))
    assert shown == "<Answer of 49 bytes>"
