"""Positions are moved once, cannot be copied, and show nothing."""

import copy
import pickle
import secrets

import numpy as np
import pytest
from attacker import at, collected, secrets_of
from cohorts import LEAST, Cohort, hybrid, malicious, semi_honest

from flora_protocols import (
    ClientCollect,
    ClientDone,
    ClientReady,
    Code,
    MisuseError,
    PeerError,
    ProtocolError,
    ServerUnmask,
    Suite,
    Trip,
    answer,
    answering,
    keys,
    slots,
)
from flora_protocols.client import _Own
from flora_protocols.codec import Bitmap


def signed_hybrid(clients=4, **more):
    return malicious(clients, suite=Suite.X25519_MLKEM768, **more)


profiles = pytest.mark.parametrize("make", [semi_honest, malicious, hybrid, signed_hybrid])


@profiles
def test_spent_positions_raise(make):
    cohort = Cohort(make(slots=2))
    while True:
        old_clients, old_server, old_mail = dict(cohort.clients), cohort.server, cohort.mail
        if type(cohort.server) is ServerUnmask:
            cohort.send().result()
        else:
            cohort.trip()
        now = cohort.clients, cohort.mail, cohort.server
        cohort.clients, cohort.mail, cohort.server = old_clients, old_mail, old_server
        with pytest.raises(MisuseError, match="again") as caught:
            old_clients[0].dump()
        assert caught.value.code is Code.SPENT
        with pytest.raises(MisuseError, match="again"):
            cohort.move(0)
        cohort.clients, cohort.mail, cohort.server = now
        assert old_server.spent
        assert old_server.heard == frozenset()
        for call in (old_server.close, lambda old=old_server: old.receive(0, b"")):
            with pytest.raises(MisuseError, match="again"):
                call()
        if old_server is cohort.server:
            if cohort.prepared.next_slot == 2:
                return
            cohort.again()


def positions(make):
    """Cohorts at every position, the clients' inboxes opened and not, in two rounds, and at the end."""
    cohort = Cohort(make(slots=2))
    while True:
        yield cohort
        if type(cohort.clients[0]) is ClientCollect:
            for index in cohort.clients:
                collected(cohort, index)
        elif type(cohort.server) is not ServerUnmask:
            cohort.trip()
        else:
            cohort.finish()
            if cohort.prepared.next_slot == 2:
                yield cohort
                return
            cohort.again()


@profiles
def test_no_secret_in_repr_and_no_copies(make):
    """Nothing that a position holds, at any depth, shows in its repr; and it can be neither copied nor pickled."""
    for cohort in positions(make):
        prepared = [] if cohort.prepared is None else [cohort.prepared]
        for position in [*cohort.clients.values(), cohort.server, *prepared]:
            assert repr(position).startswith(f"<{type(position).__name__} ")
            assert len(repr(position)) < 80
            for value in vars(position).values():
                if not isinstance(value, str):
                    assert repr(value) not in repr(position) or isinstance(value, bool | int)
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(MisuseError, match="cannot be copied"):
                    duplicate(position)


def held_secrets():
    """By name, what holds secrets inside positions, and whether those are to be seen in it."""
    random = {size: secrets.token_bytes(size) for size in (16, 32, 64, 68)}
    some = {3: random[32]}
    table = np.frombuffer(random[32], np.uint8)
    session, present = bytes(32), Bitmap(b"\x0f")
    slot = slots.Slot(random[16], some, some)
    left = slots.Slots(
        session, present, 0, table.reshape(2, 16), (3,), table.reshape(1, 2, 16), (3,), table[None, None]
    )
    return random, [
        _Own(random[32], random[32], random[64]),
        slots.Dealt(some, table, random[16], random[32]),
        slot,
        left,
        keys.Box(random[32], session),
        slots._Stream(random[32]),
        answering.Answer(random[68], b"reply", False),
        answering._Kept(0, 1, bytes(32), bytes(32), random[32], random[68]),
    ]


def on_one_line(shown):
    """What is shown, without the space and the line ends that numpy puts between numbers."""
    return " ".join(shown.split())


def pieces(secret):
    """What would show of it: some bytes of it in hexadecimal, as Python shows bytes, or as numbers."""
    parts = [secret[at : at + 8] for at in range(0, len(secret) - 7, 8)]
    return [text for part in parts for text in (part.hex(), repr(part)[2:-1], ", ".join(map(str, part)))]


def test_no_secret_in_the_repr_of_what_positions_hold():
    random, holders = held_secrets()
    for holder in holders:
        for shown in (repr(holder), str(holder), f"{holder}", repr([holder])):
            for secret in random.values():
                assert not any(piece in on_one_line(shown) for piece in pieces(secret)), type(holder).__name__


@profiles
def test_no_secret_in_the_repr_of_what_a_session_holds(make):
    """The same of what is really there: of each client all that is not bytes itself, or by client."""
    seen = set()
    for cohort in positions(make):
        client = cohort.clients[1]
        shown = {
            name: on_one_line(repr(value))
            for name, value in vars(client).items()
            if not isinstance(value, bytes | dict)
        }
        seen |= shown.keys()
        for secret in secrets_of(client):
            for piece in pieces(secret):
                assert not any(piece in text for text in shown.values())
    assert seen >= {"_own", "_slots", "_uploaded", "_present", "_private", "_me"}


def test_nothing_is_logged_of_a_session(caplog, capfd):
    caplog.set_level(0)
    at(Cohort(signed_hybrid()), Trip.UNMASK).finish()
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_every_error_is_a_protocol_error():
    assert issubclass(MisuseError, ProtocolError)
    assert not issubclass(PeerError, MisuseError)
    assert PeerError("server", "x", Code.BAD_BODY).culprit == "server"
    assert str(PeerError(3, "x", Code.BAD_BODY)) == "client 3: x"


@profiles
def test_every_position_says_its_trip(make):
    """The one that it moves in or hears, before and after; between two rounds the first; a client that is done has
    none."""
    cohort = Cohort(make(slots=2))
    setup = [Trip.ADVERTISE, *[Trip.ENCAPSULATE] * cohort.params.suite.hybrid, Trip.SHARE]
    a_round = [Trip.MASK, *[Trip.AGREE] * cohort.params.malicious, Trip.UNMASK]
    for trip in [*setup, *a_round, *a_round]:
        before = [cohort.clients[0], cohort.server]
        assert [position.trip for position in before] == [trip, trip]
        if trip is not Trip.UNMASK:
            cohort.trip()
        else:
            cohort.send().result()
            if cohort.prepared.next_slot < 2:
                assert type(cohort.clients[0]) is ClientReady
                cohort.again()
        assert all(position.spent for position in before)
        assert [position.trip for position in before] == [trip, trip]
        with pytest.raises(AttributeError):
            before[0].trip = Trip.ADVERTISE
    assert type(cohort.clients[0]) is ClientDone
    assert cohort.clients[0].trip is None


def test_what_a_position_tells_of_its_session(hybrid_cohort):
    """The session id from SHARE on, and the slots that are left."""
    at(hybrid_cohort, Trip.MASK)
    session = hybrid_cohort.prepared.session
    assert hybrid_cohort.clients[0].session == session
    ready = collected(hybrid_cohort, 0)
    assert (ready.session, ready.next_slot, ready.unopened) == (session, 0, frozenset())
    hybrid_cohort.trip()
    assert hybrid_cohort.clients[0].session == session
    assert hybrid_cohort.clients[0].index == 0


def test_answers_show_nothing_of_what_is_kept():
    params = semi_honest()
    given = answer(params, 0, b"", b"", floors=LEAST, vector=lambda start: None)
    assert repr(given) == f"<Answer of {len(given.reply)} bytes>"
