"""Clients by their messages over a masking session: sums, drop-outs, repeats, crashes, and hostile requests."""

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from invitations import floors_of
from messaging import BROADCAST, CLIENTS, NOISELESS, PLAN, Federation, alone

from flora_protocols import Bitmap, Code, Exchange, PeerError, RoundParams, Suite, TooFewSurvivors, Trip, drive
from flora_protocols import conduct as conducting
from flora_secure.client.client import Client, code_of
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.store import FileStore
from flora_secure.client.upload import upload
from flora_secure.engine.exchange import MaskedExchange, Traffic
from flora_secure.errors import Refusal, RefusalError
from flora_secure.privacy.encoding import decode
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import encode_opening, encode_request

EVERYBODY = tuple(range(CLIENTS))


def session_of(federation: Federation, rounds: int, *, first: int = 1, **changes) -> list[Invitation]:
    """The rounds of one session."""
    return [
        federation.invitation(first + slot, slot=slot, slots=rounds, **{"suite": Suite.X25519, **changes})
        for slot in range(rounds)
    ]


def known_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients whose noise follows from round and update, as that of `rows_of` does."""
    monkeypatch.setattr("flora_secure.client.client.upload", uploaded)


def uploaded(invitation: Invitation, row: np.ndarray, noise_key: bytes | None = None) -> np.ndarray:
    return upload(invitation, row, hashlib.sha256(bytes([invitation.round]) + row.tobytes()).digest())


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("signed", [False, True])
def test_a_session_by_messages_is_the_simulation_bit_for_bit(signed, suite, monkeypatch) -> None:
    """Three rounds of one set-up; somebody drops out of the second, before its upload, and is in the third."""
    known_noise(monkeypatch)
    federation = Federation(signed=signed, suite="x25519-mlkem768" if suite.hybrid else "x25519")
    simulated, before = MaskedExchange(federation.secrets, federation.enrolment), None
    for invitation, dropped in zip(session_of(federation, 3, suite=suite), ((5,), (2,), ()), strict=True):
        by_messages = federation.conduct(invitation, gone={Trip.MASK: dropped}, after=before)
        before = before or invitation
        rows = {i: uploaded(invitation, federation.trainer.rows[i]) for i in EVERYBODY if i not in dropped}
        found = simulated.round(invitation, floors_of(invitation), rows, Traffic()).sum
        assert by_messages.survivors == found.survivors == tuple(rows)
        np.testing.assert_array_equal(by_messages.sum, found.total)
    assert [len(client.ledger.given) for client in federation.clients] == [3, 3, 2, 3, 3, 2]


def test_who_missed_the_opening_of_a_round_is_in_the_next(monkeypatch) -> None:
    """The second round goes on without a client that was never told of it, the first without its reveal."""
    federation = Federation(least_noise=0.0, most_epsilon=math.inf)
    first, second, third = session_of(federation, 3, plan=NOISELESS)
    assert federation.conduct(first, gone={Trip.UNMASK: (4,)}).survivors == EVERYBODY
    assert federation.conduct(second, gone={Trip.MASK: (4,)}, after=first).survivors == (0, 1, 2, 3, 5)
    result = federation.conduct(third, after=first)
    assert result.survivors == EVERYBODY
    found = decode(result.sum, third.plan, CLIENTS, third.rotation)
    np.testing.assert_allclose(found, federation.trainer.rows.sum(0), atol=1e-3)
    assert federation.clients[4].ledger.rounds_of(first.session) == [1, 3]


def test_no_round_goes_by_fewer_survivors_than_its_noise_needs() -> None:
    """A session is set up under a plan that two fifths may drop out of; a later plan counts on everybody's noise."""
    federation = Federation()
    first, second = session_of(federation, 2)
    federation.conduct(first)
    strict = dataclasses.replace(second, plan=dataclasses.replace(PLAN, dropout_tolerance=0.0))
    assert (first.plan.survivors_minimum, strict.plan.survivors_minimum) == (4, 6)
    client, asked = federation.clients[0], federation.trainer.asked
    before = client.store.load(), client.ledger.given
    start = strict.start(federation.enrolment, EVERYBODY)
    with pytest.raises(RefusalError, match="other floors than its session") as caught:
        client.answer(federation.request(strict, start))
    assert code_of(caught.value) == Refusal.FLOORS.value
    assert (client.store.load(), client.ledger.given, federation.trainer.asked) == (*before, asked)
    assert federation.conduct(second, after=first).survivors == EVERYBODY


def test_a_new_session_may_begin_while_one_is_open() -> None:
    """As when the server was started anew: what the clients had prepared is forgotten, and its slots are refused."""
    federation = Federation()
    old, unused, _ = session_of(federation, 3)
    federation.conduct(old)
    abandoned = federation.prepared
    new, later = session_of(federation, 2, first=2)
    assert federation.conduct(new, after=old).survivors == EVERYBODY
    renewed, federation.prepared = federation.prepared, abandoned
    start = dataclasses.replace(unused, round=3).start(federation.enrolment, EVERYBODY)
    request = federation.request(dataclasses.replace(unused, round=3), start)
    assert refused(federation, 0, request) == Code.OTHER_SESSION.value
    federation.prepared = renewed
    assert federation.conduct(later, after=old).survivors == EVERYBODY


@pytest.mark.parametrize("signed", [False, True])
def test_the_same_request_gets_the_same_bytes_and_trains_once(signed, monkeypatch) -> None:
    federation = Federation(signed=signed)
    truth = Client.answer

    def twice(self, message):
        reply = truth(self, message)
        assert truth(self, message) == reply
        return reply

    monkeypatch.setattr(Client, "answer", twice)
    for invitation in session_of(federation, 2, suite=Suite.X25519_MLKEM768):
        federation.conduct(invitation)
    assert federation.trainer.asked == 2 * CLIENTS
    assert all(len(client.ledger.given) == 2 for client in federation.clients)


@pytest.mark.parametrize("signed", [False, True])
def test_a_client_goes_on_in_another_process(signed, tmp_path: Path, monkeypatch) -> None:
    """Between any two messages, of the set-up, of a round and of two, store and ledger are all that is left of it."""
    federation = Federation(signed=signed)

    def answer(number: int, message: bytes) -> bytes:
        store = FileStore(tmp_path / str(number))
        try:
            ledger = ClientLedger(tmp_path / f"{number}.jsonl")
            return dataclasses.replace(federation.clients[number], store=store, ledger=ledger).answer(message)
        finally:
            store.close()

    monkeypatch.setattr(federation, "answer", answer)
    first, second = session_of(federation, 2, suite=Suite.X25519_MLKEM768)
    assert federation.conduct(first).survivors == EVERYBODY
    assert federation.conduct(second, after=first).survivors == EVERYBODY
    assert (tmp_path / "0" / "position").stat().st_mode & 0o077 == 0
    assert ClientLedger(tmp_path / "0.jsonl").rounds_of(first.session) == [1, 2]


def refused(federation: Federation, number: int, message: bytes) -> str:
    """The code of the refusal; nothing was trained for it, and the client is as it was."""
    client = federation.clients[number]
    before = client.store.load(), client.ledger.given, federation.trainer.asked
    with pytest.raises((RefusalError, PeerError, TooFewSurvivors)) as caught:
        client.answer(message)
    assert (client.store.load(), client.ledger.given, federation.trainer.asked) == before
    return code_of(caught.value)


def begun(slots: int = 3, **changes) -> tuple[Federation, list[Invitation]]:
    """A federation that has had the first round of a session."""
    federation = Federation(**changes)
    rounds = session_of(federation, slots)
    federation.conduct(rounds[0])
    return federation, rounds


def test_a_slot_that_was_used_is_not_masked_with_again() -> None:
    """The first round's request in other words: its opening came with the set-up, so START alone asks for it."""
    federation, (first, second, _) = begun()
    start = first.start(federation.enrolment, EVERYBODY)
    for other in (start, first.start(federation.enrolment, EVERYBODY[:5])):
        assert refused(federation, 0, federation.request(first, other, opening=b"")) == Code.SECOND_MESSAGE.value
    assert refused(federation, 0, federation.request(first, start)) == Refusal.REPEATED.value
    assert refused(federation, 0, federation.opening(first)[:-1] + b"?") == Refusal.REPEATED.value
    assert federation.conduct(second, after=first).survivors == EVERYBODY
    told = second.start(federation.enrolment, EVERYBODY)
    assert refused(federation, 0, federation.request(second, told)) == Refusal.REPEATED.value
    assert refused(federation, 0, federation.request(second, told, opening=b"")) == Code.SECOND_MESSAGE.value
    assert refused(federation, 0, federation.request(first, start, opening=b"")) == Code.OTHER_SESSION.value


def test_a_round_that_was_begun_is_not_begun_again_in_other_words() -> None:
    """Nothing was uploaded in it, so the ledger does not know of it."""
    federation = Federation()
    first = federation.invitation(2, slots=3)
    federation.clients[0].answer(federation.opening(first))
    for number in (1, 2):
        other = federation.opening(federation.invitation(number, slots=2))
        assert refused(federation, 0, other) == Refusal.REPEATED.value
    another = federation.invitation(1, slots=3, session=b"another session.")
    federation.clients[0].answer(federation.opening(another))


def test_a_request_starts_the_round_that_its_opening_invites_to() -> None:
    federation, (first, second, third) = begun()
    true = second.start(federation.enrolment, EVERYBODY)
    longer = dataclasses.replace(second, rotation_seed=9)
    for start in (
        dataclasses.replace(true, model_hash=bytes(32)),
        dataclasses.replace(true, model_hash=second.model_hash),
        dataclasses.replace(true, round=3),
        dataclasses.replace(true, slot=2),
        longer.start(federation.enrolment, EVERYBODY),
        first.start(federation.enrolment, EVERYBODY),
        third.start(federation.enrolment, EVERYBODY),
    ):
        assert refused(federation, 0, federation.request(second, start)) == Code.OTHER_SESSION.value
    assert refused(federation, 0, federation.request(second, true, opening=b"")) == Code.OTHER_SESSION.value
    assert federation.conduct(second, after=first).survivors == EVERYBODY  # none of that was held against it


def test_who_is_invited_is_checked_before_anything_is_trained() -> None:
    federation, (_, second, _) = begun()
    for invited, code in (
        (range(1, CLIENTS), Code.BAD_ROSTER),
        (range(2), Code.BELOW_FLOOR),
    ):
        start = second.start(federation.enrolment, invited)
        assert refused(federation, 0, federation.request(second, start)) == code.value


def test_a_round_of_another_session_is_refused() -> None:
    federation, (first, second, _) = begun()
    start = second.start(federation.enrolment, EVERYBODY)
    for params in (
        dataclasses.replace(second.params, number=0),
        dataclasses.replace(second.params, number=2),  # the slot of its beginning is opened by itself
        dataclasses.replace(second.params, slots=4),
        dataclasses.replace(second.params, suite=Suite.X25519_MLKEM768),
        dataclasses.replace(second.params, threshold=second.params.threshold + 1),
    ):
        other = dataclasses.replace(second, params=params)
        told = other.start(federation.enrolment, EVERYBODY)
        assert refused(federation, 0, federation.request(other, told)) == Code.OTHER_SESSION.value
    assert federation.prepared is not None
    strange = start.to_bytes(federation.prepared.params, bytes(32))
    message = encode_request(federation.opening(second), strange)
    assert refused(federation, 0, message) == Code.OTHER_SESSION.value
    assert federation.conduct(second, after=first).survivors == EVERYBODY


def test_a_later_slot_begins_no_session_and_nothing_is_asked_for_before_one_is_set_up() -> None:
    federation = Federation()
    first, second = session_of(federation, 2)
    assert refused(federation, 0, federation.opening(second)) == Code.OTHER_SESSION.value
    start = first.start(federation.enrolment, EVERYBODY).to_bytes(first.params, bytes(32))
    asked = encode_request(b"", start)
    assert refused(federation, 0, asked) == Refusal.NO_ROUND.value
    federation.clients[0].answer(federation.opening(first))
    assert refused(federation, 0, asked) == Refusal.NO_ROUND.value
    assert refused(federation, 0, encode_request(federation.opening(second), start)) == Refusal.NO_ROUND.value


def test_no_round_is_asked_for_when_all_slots_are_used() -> None:
    federation, (first,) = begun(1)
    later = dataclasses.replace(first, round=2)
    start = RoundParams(slot=0, round=2, model_hash=bytes(32), invited=Bitmap.of(CLIENTS, EVERYBODY))
    assert refused(federation, 0, federation.request(first, start, opening=b"")) == Refusal.NO_ROUND.value
    assert refused(federation, 0, federation.request(later, start)) == Code.PARAMETERS.value  # no slot 1


@pytest.mark.parametrize("part", ["head", "opening", "start", "nothing", "rubbish"])
def test_damaged_requests_are_refused(part) -> None:
    federation, (_, second, _) = begun()
    opening, start = federation.opening(second), second.start(federation.enrolment, EVERYBODY)
    whole = federation.request(second, start)
    damaged = {
        "head": whole[:5],
        "opening": encode_request(opening[:40], whole[-50:]),
        "start": whole[:-1],
        "nothing": encode_request(opening, b""),
        "rubbish": encode_request(opening, b"rubbish" * 10),
    }[part]
    assert refused(federation, 0, damaged) in {Code.NOT_A_MESSAGE.value, Code.BAD_BODY.value, Code.OTHER_SESSION.value}


def test_a_round_on_another_adapter_is_refused_in_a_request_as_in_an_opening() -> None:
    federation, (_, second, _) = begun()
    start = second.start(federation.enrolment, EVERYBODY)
    opening = encode_opening(second.to_bytes(federation.enrolment), alone(2, BROADCAST[:-1] + b"?"))
    assert refused(federation, 0, federation.request(second, start, opening=opening)) == Refusal.MODEL.value


def test_a_request_that_came_before_is_answered_from_the_store_and_moves_nothing() -> None:
    """Also after the round went on: only the last one is, and an earlier one is refused."""
    federation, (first, second, _) = begun()
    asked: dict[int, bytes] = {}

    def carry(exchange: Exchange):
        for position, message in exchange.outbox.items():
            if exchange.trip is Trip.MASK:
                asked[position] = message = encode_request(federation.opening(second, first), message)
            yield position, federation.answer(position, message)

    assert federation.prepared is not None
    drive(conducting(federation.prepared, second.start(federation.enrolment, EVERYBODY)), carry)
    assert refused(federation, 0, asked[0]) == Refusal.REPEATED.value
