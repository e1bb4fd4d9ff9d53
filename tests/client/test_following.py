"""Clients that take the server's step: the same state bit for bit, and never another adapter unnoticed."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from following import CLIENTS, MODEL, Followers, server_of

from flora_protocols import Code, Exchange, PeerError, ServerPrepared, Trip, conduct, drive, set_up
from flora_secure.client.client import Client, code_of
from flora_secure.client.contribution import Contributions
from flora_secure.client.following import Following, arrive
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.client.store import FileStore, MemoryStore
from flora_secure.errors import Refusal, RefusalError, RunFolderError
from flora_secure.planning import noise
from flora_secure.planning.rules import RULES, TrainedValues
from flora_secure.privacy.calibration import calibrate
from flora_secure.rounds.broadcast import Form, Layout
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import decode_opening, encode_request
from flora_secure.rounds.sum import Outcome, RoundSum
from flora_secure.server.server import Server


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__server_momentum": 0.0},
        {"training__server_momentum": 0.9, "training__server_step": 0.3},
        {"privacy__adaptive_clip": 0.5},
        {"privacy__unit": "example", "privacy__epsilon": math.inf, "privacy__bits": 12},  # noise takes long to plan
        {
            "privacy__unit": "example",
            "privacy__epsilon": math.inf,
            "privacy__bits": 12,
            "training__server_momentum": 0.0,
            "training__server_step": 0.3,
        },
        {"aggregation__secagg": "off", "privacy__adaptive_clip": 0.3, "training__server_momentum": 0.7},
    ],
    ids=lambda changes: "-".join(f"{key.split('__')[1]}={value}" for key, value in changes.items()) or "default",
)
def test_a_clients_state_is_the_servers_bit_for_bit(rule, rotated, changes, monkeypatch) -> None:
    """Over drop-outs, lost openings and rounds without a sum. `Followers.round` compares at every opening."""
    monkeypatch.setattr(noise, "calibrate", functools.partial(calibrate, rotation=rotated))
    us = Followers(server_of(rule, **changes))
    us.round(lost={9}, gone={8})
    us.round()
    us.round(aborted=True)
    us.round(lost={6, 7})
    us.round(aborted=True, announced=True, gone={5})
    us.round(gone={0, 6})
    us.round()
    us.round()
    state = us.server.checkpoint().server
    assert us.server.plan.rotated is rotated
    assert np.abs(state.adapter - us.sent[0][1].start.state.adapter).max() > 1e-6
    assert state.momentum.any() == (us.server.optimiser.momentum > 0)
    sent = us.sent
    assert [sent[number][1].form for number in range(8)] == [Form.HALF, *[Form.SUMS] * 7]
    # its own last round, unless that had no sum: which moved nothing
    assert [[one.round for one in sent[number][1].sums] for number in range(1, 8)] == [[1], [2], [], [4], [], [6], [7]]
    # nobody knows whether it has the first one: that again, and the sum
    assert (sent[1][8].form, [one.round for one in sent[1][8].sums]) == (Form.HALF, [1])
    assert (sent[1][8].form, sent[1][9].since) == (Form.HALF, 1)
    assert [one.round for one in sent[4][7].sums] == [4]  # the openings of 3 and 4 were its last two: it had 3's
    assert sent[4][7].since == 3
    assert [one.round for one in sent[6][6].sums] == [6]
    assert [one.round for one in sent[6][0].sums] == [6]


def test_a_member_is_sent_missed_sums_or_the_full_state_whichever_is_shorter() -> None:
    us = Followers(server_of(training__rounds=40))
    layout = Layout.of(us.server.plan, us.server.task.trained)
    most = (layout.size(Form.MOVING) - layout.size(Form.SUMS)) // layout.entry
    assert 5 < most < 25
    us.round()
    for _ in range(most - 1):
        us.round(lost={7, 8})
    us.round(lost={8})
    assert (us.sent[-1][7].form, len(us.sent[-1][7].sums)) == (Form.SUMS, most)
    us.round()
    assert (us.sent[-1][8].form, us.sent[-1][8].sums) == (Form.MOVING, ())
    assert (us.sent[-1][7].form, len(us.sent[-1][7].sums)) == (Form.SUMS, 1)
    assert len(us.server._broadcasts._sums) <= most
    us.round()
    assert {one.form for one in us.sent[-1].values()} == {Form.SUMS}
    assert us.bytes[-1] == CLIENTS * layout.size(Form.SUMS, 1)


def test_a_server_that_starts_again_knows_of_nobody_and_sends_the_full_state() -> None:
    us = Followers(server_of())
    us.round()
    us.round(gone={3})
    again = server_of()
    again.restore(us.server.records, us.server.checkpoint())
    us.server = again
    us.round()
    assert {one.form for one in us.sent[-1].values()} == {Form.MOVING}
    us.round()
    assert {one.form for one in us.sent[-1].values()} == {Form.SUMS}


@pytest.mark.parametrize(
    "changes",
    [{"participation__rate": 0.5, "participation__sampling": "fixed"}, {"privacy__bits": 20}],
    ids=["cohorts", "wide ring"],
)
def test_the_adapter_alone_is_sent_where_it_is_shorter_than_what_keeps_up_a_state(changes) -> None:
    us = Followers(server_of(**changes, privacy__dropout_tolerance=0.2, aggregation__corrupt=0.0))
    layout = Layout.of(us.server.plan, us.server.task.trained)
    for _ in range(8):
        us.round()
    assert {one.form for one in us.sent[0].values()} == {Form.HALF}
    assert Form.ADAPTER in {one.form for round_ in us.sent for one in round_.values()}
    for round_ in us.sent[1:]:
        for one in round_.values():
            assert len(one.to_bytes()) <= layout.size(Form.ADAPTER)


def followed(rounds: int = 2) -> tuple[Followers, Invitation, dict[int, bytes]]:
    """Clients that took so many rounds, and the broadcasts of the next."""
    us = Followers(server_of())
    for _ in range(rounds):
        us.round()
    invitation = us.server.invite()
    return us, invitation, {member: decode_opening(one)[1] for member, one in us.server.openings(invitation).items()}


def refusal(message: bytes, invitation: Invitation, us: Followers, kept: bytes) -> Refusal | Code:
    with pytest.raises((RefusalError, PeerError)) as caught:
        arrive(message, invitation, us.server.task.trained, MODEL, kept)
    assert not isinstance(caught.value, PeerError) or caught.value.culprit == "server"
    return caught.value.code


def test_a_bit_broken_in_a_sum_or_in_a_state_is_found_by_the_model_hash() -> None:
    us, invitation, messages = followed()
    size = len(messages[0])
    for at in (8 + 28, size - 1, size // 2):
        broken = messages[0][:at] + bytes([messages[0][at] ^ 0x40]) + messages[0][at + 1 :]
        assert refusal(broken, invitation, us, us.kept[0]) is Refusal.STATE
    kept = us.kept[0]
    flipped = bytearray(kept)
    flipped[16 + 24 + 6] ^= 0x3  # high bits of the first value
    assert refusal(messages[0], invitation, us, bytes(flipped)) is Refusal.STATE
    with pytest.raises(RefusalError, match="another model") as caught:
        arrive(us.server._broadcasts.complete(invitation, us.server._full, 0), invitation, us.server.task.trained,
               bytes(32), b"")  # fmt: skip
    assert caught.value.code is Refusal.MODEL


def test_a_client_without_the_state_refuses_and_takes_a_complete_broadcast() -> None:
    us, invitation, messages = followed()
    stale = Followers(server_of())
    stale.server.session = us.server.session
    stale.round()
    other = Followers(server_of())
    other.round()
    for kept in (b"", b"rubbish", stale.kept[0], other.kept[0], us.kept[0][:-8]):
        assert refusal(messages[0], invitation, us, kept) is Refusal.STATE
        complete = us.server._broadcasts.complete(invitation, us.server._full, 0)
        adapter, now = arrive(complete, invitation, us.server.task.trained, MODEL, kept)
        assert (adapter, now) == (us.server.broadcast, arrive(messages[1], invitation, us.server.task.trained, MODEL,
                                                              us.kept[1])[1])  # fmt: skip


def test_what_a_client_knows_already_it_does_not_add_again() -> None:
    """It has a later state than the server is certain of."""
    us = Followers(server_of())
    us.round()
    us.round(gone={4})
    us.round()
    assert [one.round for one in us.sent[-1][4].sums] == [1, 2]  # and Followers has compared


class Drawn:
    """A trainer whose contributions follow from round and client."""

    def __init__(self, trained: TrainedValues) -> None:
        self.trained = trained

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        rows = [
            np.random.default_rng([invitation.round, member]).normal(0, 0.05, self.trained.upload_size)
            for member in members
        ]
        return Contributions(np.array(rows), np.ones(len(members), np.int64), np.zeros(len(members), np.int64))


class Deployed:
    """Clients whose processes live for one message, and a server whose loop asks for what a client lacks."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.told: list[tuple[int, str]] = []
        self.prepared: ServerPrepared | None = None
        policy = Policy(
            profile="semi-honest", least_noise=0.0, most_epsilon=1e9, delta=1e-5, most_rounds=9, corrupt=0.0
        )
        self.clients = [
            Client(
                enrolment=server.enrolment,
                number=number,
                policy=policy,
                trainer=Drawn(server.task.trained),
                ledger=ClientLedger(None),
                store=MemoryStore(),
                model_hash=MODEL,
            )
            for number in range(CLIENTS)
        ]

    def answer(self, number: int, message: bytes) -> bytes:
        store = FileStore(self.folder / str(number))
        try:
            ledger = ClientLedger(self.folder / f"{number}.jsonl")
            return dataclasses.replace(self.clients[number], store=store, ledger=ledger).answer(message)
        finally:
            store.close()

    def round(self) -> None:
        invitation = self.server.invite()
        openings = self.server.openings(invitation)

        def ask(member: int, message: bytes) -> bytes | None:
            """What opens a round reaches the member with what begins its session, or with what asks for its upload."""
            opening = openings[member]
            for told in (opening, None):
                try:
                    if told is None:
                        told = self.server.complete_opening(invitation, member)
                    return self.answer(member, encode_request(told, message) if message else told)
                except (RefusalError, PeerError) as error:
                    self.told.append((member, code_of(error)))
                    if error.code not in (Refusal.STATE, Code.OTHER_SESSION):
                        break
            return None

        def carry(exchange: Exchange):
            for position, message in exchange.outbox.items():
                member, asked = invitation.members[position], exchange.trip is Trip.MASK
                if asked and invitation.slot == 0:
                    reply = self.answer(member, encode_request(b"", message))
                else:
                    reply = ask(member, message) if asked or not message else self.answer(member, message)
                if reply is not None:
                    yield position, reply

        if invitation.slot == 0:
            self.prepared = drive(set_up(invitation.params), carry)
        assert self.prepared is not None
        start = invitation.start(self.server.enrolment, self.prepared.clients)
        result = drive(conduct(self.prepared, start), carry)
        survivors = tuple(invitation.members[position] for position in result.survivors)
        found = RoundSum(result.sum, survivors, 0)
        self.server.finish(invitation, Outcome(sum=found, aborted=None, uploaded=survivors))

    def state(self, number: int) -> Following:
        store = FileStore(self.folder / str(number))
        held = store.load()
        store.close()
        layout = Layout.of(self.server.plan, self.server.task.trained)
        invitation = Invitation.from_bytes(held.long or held.invitation, self.server.enrolment)
        return Following.read(held.state, invitation, layout)


def test_deployed_clients_follow_over_restarts_and_come_back_with_nothing(tmp_path: Path) -> None:
    """Who has lost its store has lost the masking session, too: it is in the first round of the next."""
    us = Deployed(server_of(privacy__adaptive_clip=0.5, privacy__dropout_tolerance=0.4, aggregation__slots=3), tmp_path)
    us.round()
    us.round()
    assert us.told == []
    (tmp_path / "3" / "position").unlink()
    store = FileStore(tmp_path / "5")
    held = store.load()
    flipped = bytearray(held.state)
    flipped[16 + 24 + 6] ^= 0x3
    store.save(dataclasses.replace(held, state=bytes(flipped)))
    store.close()
    us.round()
    assert us.told == [(3, Refusal.NO_ROUND.value), (5, Refusal.STATE.value)]
    assert us.server.records[-1].dropped == [3]
    before = us.server.checkpoint().server
    us.round()
    # nobody told the server that it has no state: the sums since its last upload are no use to it
    assert us.told[2:] == [(3, Refusal.STATE.value)]
    assert us.server.records[-1].dropped == []
    for number in range(CLIENTS):
        own = us.state(number)
        assert own.number == 4
        assert own.full.state.adapter.tobytes() == before.adapter.tobytes()
        assert own.full.state.momentum.tobytes() == before.momentum.tobytes()
    us.round()
    assert len(us.told) == 3


def test_a_member_without_its_store_is_sent_the_long_form_in_the_next_session(tmp_path: Path) -> None:
    """It does not know the short invitation's long form, and says so."""
    us = Deployed(server_of(aggregation__slots=1), tmp_path)
    us.round()
    us.round()
    (tmp_path / "3" / "position").unlink()
    us.round()
    assert us.told == [(3, Code.OTHER_SESSION.value)]
    assert us.server.records[-1].dropped == []


def test_a_store_of_another_release_is_no_position_of_this_one(tmp_path: Path) -> None:
    us = Deployed(server_of(), tmp_path)
    us.round()
    path = tmp_path / "0" / "position"
    body = b"fC1\0" + path.read_bytes()[4:-32]
    path.write_bytes(body + hashlib.sha256(body).digest())
    store = FileStore(tmp_path / "0")
    with pytest.raises(RunFolderError, match="damaged, or of another release"):
        store.load()
    store.close()


def test_a_refused_broadcast_changes_nothing(tmp_path: Path) -> None:
    us = Deployed(server_of(aggregation__slots=1), tmp_path)
    us.round()
    invitation = us.server.invite()
    opening = us.server.openings(invitation)[0]
    before = (tmp_path / "0" / "position").read_bytes()
    for message in (opening[:-1], opening + b"\0", opening[:-1] + bytes([opening[-1] ^ 0x80])):
        with pytest.raises((RefusalError, PeerError)):
            us.answer(0, message)
        assert (tmp_path / "0" / "position").read_bytes() == before
    us.answer(0, opening)
