"""What a transport loses, repeats or reorders, and what it keeps from an earlier round: nothing changes by it."""

import hashlib
import random
from contextlib import suppress

import numpy as np
import pytest
from attacker import body_of, reframed
from cohorts import IDENTITIES, LEAST, malicious, plain_sum, semi_honest, vectors_for
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_protocols import (
    Code,
    MisuseError,
    PeerError,
    TooFewSurvivors,
    Trip,
    answer,
    conduct,
    drive,
)
from flora_protocols.member import DUMP_VERSION

profiles = pytest.mark.parametrize("make", [semi_honest, malicious])
KINDS = {
    "semi-honest": semi_honest,
    "signed": malicious,
    "direct": lambda **more: semi_honest(6, threshold=3, direct_reveal=True, **more),
    "signed Harary": lambda **more: malicious(8, neighbours=6, threshold=4, **more),
}


class Clients:
    """Clients that answer, each with nothing but what it keeps. `said`: every reply of each, by round."""

    def __init__(self):
        self.kept, self.said, self.asked = {}, {}, {}

    def ask(self, params, index, request):
        vector = vectors_for(params)[index]
        reply = answer(
            params,
            index,
            request,
            self.kept.get(index, b""),
            floors=LEAST,
            identity=IDENTITIES[index] if params.malicious else None,
            vector=lambda: vector,
        )
        self.kept[index] = reply.kept
        self.said.setdefault((index, params.round), []).append(reply.reply)
        self.asked.setdefault(index, []).append((params, request))
        return reply


class Carrier:
    """Delivers what it should, and between, before and after it whatever it has ever carried, in any order."""

    def __init__(self, params, clients, rng, absent=()):
        self.params, self.clients, self.rng, self.absent = params, clients, rng, absent
        self.sent = {index: [] for index in range(params.clients)}

    def __call__(self, exchange):
        order = list(exchange.outbox.items())
        self.rng.shuffle(order)
        for index, mail in order:
            if (index, exchange.trip) in self.absent:
                continue
            for again in self.some(self.clients.asked.get(index, ())):
                self.attempt(index, *again)
            reply = self.clients.ask(self.params, index, mail).reply
            yield from ((index, old) for old in self.some(self.sent[index]))
            if reply not in self.sent[index]:
                self.sent[index].append(reply)
            yield index, reply
            if self.rng.random() < 0.5:
                assert self.clients.ask(self.params, index, mail).reply == reply
            for again in self.some(self.clients.asked.get(index, ())):
                self.attempt(index, *again)
            yield from ((index, old) for old in self.some(self.sent[index]))

    def some(self, things):
        return [thing for thing in things for _ in range(self.rng.randrange(3))]

    def attempt(self, index, params, request):
        before = self.clients.kept[index]
        with suppress(PeerError):
            self.clients.ask(params, index, request)
        assert self.clients.kept[index] == before


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32))
def test_a_carrier_that_repeats_and_reorders_everything(kind, seed):
    """Three rounds, the last two with all messages of those before at hand: each sum is right, nobody is refused, and
    no client has said anything but one message a trip."""
    clients, rng = Clients(), random.Random(seed)
    for number in (1, 2, 5):
        params = KINDS[kind](round=number)
        gone = {(rng.randrange(params.clients), Trip.MASK)} if rng.random() < 0.5 else set()
        result = drive(conduct(params), Carrier(params, clients, rng, gone))
        assert result.refused == {}
        assert set(result.dropped) == {index for index, _ in gone}
        assert (result.sum == plain_sum(params, vectors_for(params), result.survivors)).all()
    for said in clients.said.values():
        kinds = {message[4]: message for message in said}
        assert set(said) == set(kinds.values())


@profiles
def test_the_server_ignores_what_comes_again(make):
    """In the same trip and in all later ones."""
    params, clients = make(), Clients()
    before = []

    def carry(exchange):
        replies = [(index, clients.ask(params, index, mail).reply) for index, mail in exchange.outbox.items()]
        yield from before
        for index, reply in replies[:-1]:
            yield index, reply
            yield index, reply
        yield replies[-1]
        before.extend(replies)

    result = drive(conduct(params), carry)
    assert (result.refused, result.survivors) == ({}, (0, 1, 2, 3))
    assert (result.sum == plain_sum(params, vectors_for(params), range(4))).all()


@profiles
@pytest.mark.parametrize("old", [False, True])
def test_another_message_is_no_repeat(make, old):
    """A second one with other bytes, and one of an earlier round, cost their sender, as ever."""
    params, clients = make(round=2), Clients()
    drive(conduct(make(round=1)), Carrier(make(round=1), clients, random.Random(0)))
    stale = clients.said[1, 1][0]

    def carry(exchange):
        for index, mail in exchange.outbox.items():
            reply = clients.ask(params, index, mail).reply
            if exchange.trip is Trip.SHARE and index == 1:
                yield index, stale if old else reply
                yield index, reframed(reply, body_of(reply)[::-1])
            else:
                yield index, reply

    result = drive(conduct(params), carry)
    assert {index: error.code for index, error in result.refused.items()} == {
        1: Code.OTHER_KIND if old else Code.SECOND_MESSAGE
    }


def trips(clients, params, index=0):
    """The round taken trip by trip; gives client 0's requests, in order, before it is asked them."""
    loop = conduct(params)
    exchange = next(loop)
    while True:
        yield exchange.outbox[index]
        others = [(i, clients.ask(params, i, mail).reply) for i, mail in exchange.outbox.items()]
        try:
            exchange = loop.send(others)
        except StopIteration:
            return


@profiles
def test_an_empty_request_never_begins_a_round_twice(make):
    """The attack: a server that asks one client to begin anew has its vector in two sums, which differ by a vector."""
    clients, params = Clients(), make(round=7)
    for trip, _ in enumerate(trips(clients, params)):
        if not trip:
            continue
        kept = clients.kept[0]
        if trip == 1:
            assert clients.ask(params, 0, b"").reply == clients.said[0, 7][0]  # the last request, the same bytes
            continue
        with pytest.raises(PeerError, match="asks to begin round 7; this client has begun round 7") as caught:
            clients.ask(params, 0, b"")
        assert (caught.value.culprit, caught.value.code) == ("server", Code.SECOND_MESSAGE)
        for other in (make(round=7, bits=10), make(round=6), make(round=7, model_hash=b"m" * 32)):
            with pytest.raises(PeerError, match="asks to begin"):
                clients.ask(other, 0, b"")
        assert clients.kept[0] == kept
    with pytest.raises(PeerError, match="asks to begin"):
        clients.ask(params, 0, b"")
    assert clients.ask(make(round=8), 0, b"").reply[4] == 1


@profiles
def test_the_same_request_the_same_bytes(make):
    """Also after the last one, and whatever the vector would be by now: it is asked for once."""
    clients, params = Clients(), make()
    requests = list(trips(clients, params))
    last = clients.ask(params, 0, requests[-1])
    assert last.done
    assert last.reply == clients.said[0, 0][-2]
    assert len(set(clients.said[0, 0])) == len(requests)
    for request in requests[:-1]:
        with pytest.raises(PeerError):
            clients.ask(params, 0, request)
    with pytest.raises(PeerError, match="after the last of the round") as caught:
        clients.ask(params, 0, b"more")
    assert caught.value.code is Code.SECOND_MESSAGE


def test_what_another_client_has_kept():
    clients, params = Clients(), semi_honest()
    steps = trips(clients, params)
    roster = [next(steps) for _ in range(2)][-1]
    clients.kept[3] = clients.kept[0]
    with pytest.raises(MisuseError, match="is of client 0, not 3"):
        clients.ask(params, 3, roster)


def test_messages_of_another_round():
    clients = Clients()
    list(trips(clients, semi_honest(round=1)))
    for request in (b"x", clients.asked[0][1][1]):
        with pytest.raises(PeerError, match="not begun here, or is over") as caught:
            clients.ask(semi_honest(round=2), 0, request)
        assert caught.value.code is Code.OTHER_SESSION
    with pytest.raises(PeerError, match="not begun here"):
        Clients().ask(semi_honest(), 0, b"x")


def test_what_is_raised_changes_nothing():
    """Too few others, or a vector that does not fit: the same request can be answered later."""
    params, mine = semi_honest(), {"floors": LEAST}
    good, asked = vectors_for(params)[0], []
    clients = Clients()
    steps = trips(clients, params)
    inbox = [next(steps) for _ in range(3)][-1]
    kept = clients.kept[0]

    def vector(value):
        asked.append(1)
        return value

    for bad in (good[:4], good.astype(float), None):
        with pytest.raises(MisuseError):
            answer(params, 0, inbox, kept, vector=lambda bad=bad: bad, **mine)
    with pytest.raises(ZeroDivisionError):
        answer(params, 0, inbox, kept, vector=lambda: 1 // 0, **mine)
    first = answer(params, 0, inbox, kept, vector=lambda: vector(good), **mine)
    assert answer(params, 0, inbox, first.kept, vector=lambda: vector(good + 1), **mine) == first
    assert asked == [1]
    with pytest.raises(TooFewSurvivors):
        answer(params, 0, reframed(inbox, b"\3" + body_of(inbox)[1:51]), kept, vector=lambda: good, **mine)


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


def test_what_was_kept_by_another_version():
    clients = Clients()
    clients.ask(semi_honest(), 0, b"")
    kept = clients.kept[0]
    body = kept[:2] + bytes((DUMP_VERSION + 1,)) + kept[3:-32]
    clients.kept[0] = body + hashlib.sha256(b"flora-secure/2 kept\0" + body).digest()
    with pytest.raises(MisuseError, match=f"has version {DUMP_VERSION + 1}") as caught:
        clients.ask(semi_honest(), 0, b"")
    assert caught.value.code is Code.OTHER_VERSION


def test_wrong_types():
    mine = {"floors": LEAST, "vector": lambda: np.zeros(5, np.uint32)}
    for arguments in ((None, 0, b"", b""), (semi_honest(), 0, "", b""), (semi_honest(), 0, b"", None)):
        with pytest.raises(MisuseError):
            answer(*arguments, **mine)
    shown = repr(answer(semi_honest(), 0, b"", b"", **mine))
    assert shown == "<Answer of 81 bytes>"
