"""Masking that is counted and not run, held against masking that is: sums, each message, and how rounds end."""

import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from federations import finish, outcome, small
from invitations import enrolment_of, floors_of, invitation_of

from flora_protocols import Kind, RoundAborted, Suite
from flora_secure.engine import simulation
from flora_secure.engine.exchange import CountedExchange, MaskedExchange, Traffic
from flora_secure.engine.summary import summarise
from flora_secure.planning.masking import MaskingPlan
from flora_secure.privacy.calibration import calibrate
from flora_secure.records.report_table import rows
from flora_secure.rounds.counting import in_round, in_set_up

DIMENSION = 21


class Seen(Traffic):
    """How often each message went by: whose, of which kind, which way, how long."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: Counter[tuple[int, Kind, bool, int]] = Counter()

    def sent_up(self, client: int, message: bytes, payload: int = 0) -> None:
        self.messages[client, Kind(message[4]), True, len(message)] += 1
        super().sent_up(client, message, payload)

    def sent_down(self, client: int, message: bytes, payload: int = 0, around: int = 0) -> None:
        self.messages[client, Kind(message[4]), False, len(message)] += 1
        super().sent_down(client, message, payload, around)


def session_of(members, *, rounds=1, signed=False, neighbours=None, threshold=None, suite=Suite.X25519):
    """The rounds of a session among `members`, of whom 0.3 may drop out; its enrolment and identity keys."""
    secrets = {client: client.to_bytes(32, "big") for client in range(ENROLLED)} if signed else {}
    plan = calibrate(
        clients=len(members), dimension=DIMENSION, rounds=1, epsilon=4.0, delta=1e-5, clip_norm=1.0,
        dropout_tolerance=0.3,
    )  # fmt: skip
    masking = None if threshold is None else MaskingPlan(neighbours, threshold, 0, rounds, suite)
    enrolment = enrolment_of(ENROLLED, secrets)
    invitations = [
        invitation_of(
            plan, enrolment, members=members, masking=masking, number=3 + slot, slot=slot, slots=rounds, suite=suite
        )
        for slot in range(rounds)
    ]
    return invitations, enrolment, secrets


def vectors_of(invitation, dropped=()):
    """Values all over the ring, its ends among them, so that sums wrap."""
    rng, top = np.random.default_rng(0), 1 << invitation.plan.bits
    drawn = rng.integers(0, top, (len(invitation.members), invitation.plan.length), dtype=np.uint32)
    drawn[:, 0], drawn[:, 1] = top - 1, 0
    given = zip(invitation.members, drawn, strict=True)
    return {client: vector for client, vector in given if client not in dropped}


ENROLLED = 14
EVERYBODY, COHORT = tuple(range(ENROLLED)), (0, 1, 3, 4, 6, 7, 9, 10, 12, 13)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize(
    ("members", "dropped"),
    [
        (EVERYBODY, ((), (0, 5, 11), ())),
        (EVERYBODY, ((0, 5, 11), (0, 5, 12), (11,))),  # two are away twice, and get their inbox with the third
        (COHORT, ((3,),)),
        (COHORT, ((0, 6, 13), (), (0,))),
    ],
)
def test_every_message_is_counted_as_it_is_sent(signed, complete, suite, members, dropped) -> None:
    """Round by round of a session; `dropped` of each."""
    neighbours = len(members) - 1 if complete else 8
    threshold = len(members) // 2 + 1 if complete else 5
    invitations, enrolment, secrets = session_of(
        members, rounds=len(dropped), signed=signed, neighbours=neighbours, threshold=threshold, suite=suite
    )
    running, counting_ = MaskedExchange(secrets, enrolment), CountedExchange()
    told: set[int] = set()  # positions that have their inbox
    for invitation, gone in zip(invitations, dropped, strict=True):
        params, floors = invitation.params, floors_of(invitation)
        assert params.graph.complete == complete
        given, seen, counted = vectors_of(invitation, gone), Seen(), Traffic()
        masked = running.round(invitation, floors, given, seen).sum
        plain = counting_.round(invitation, floors, given, counted).sum

        np.testing.assert_array_equal(plain.total, masked.total)
        assert plain.total.dtype == masked.total.dtype
        assert (plain.survivors, plain.recovered) == (masked.survivors, masked.recovered)
        assert vars(counted) == {name: value for name, value in vars(seen).items() if name != "messages"}
        stayed = [place for place, client in enumerate(members) if client not in gone]
        said = [*(in_set_up(params) if invitation.slot == 0 else ())]
        said += in_round(params, floors, stayed, set(range(params.clients)) - told)
        told |= set(stayed)
        assert seen.messages == Counter(
            (members[place], one.kind, one.up, size)
            for one in said
            for place, size in zip(one.positions, one.sizes, strict=True)
        )
        once = (5 if suite.hybrid else 3) * len(members) if invitation.slot == 0 else 0
        assert len(seen.messages) == once + len(members) + (5 if signed else 3) * len(stayed)


@pytest.mark.parametrize("signed", [False, True])
def test_a_round_with_too_few_survivors_aborts_as_it_would_and_the_session_goes_on(signed) -> None:
    invitations, enrolment, secrets = session_of(EVERYBODY, rounds=2, signed=signed)
    running, counting_ = MaskedExchange(secrets, enrolment), CountedExchange()
    for invitation in invitations:
        given, floors = vectors_of(invitation, dropped=range(5)), floors_of(invitation)
        seen, counted = Seen(), Traffic()
        with pytest.raises(RoundAborted) as masked:
            running.round(invitation, floors, given, seen)
        with pytest.raises(RoundAborted) as plain:
            counting_.round(invitation, floors, given, counted)
        assert str(plain.value) == str(masked.value)
        assert plain.value.survivors == masked.value.survivors == ()
        assert (counted.upload, counted.download, counted.payload) == (seen.upload, seen.download, seen.payload)
        assert not {kind for _, kind, _, _ in seen.messages} & {Kind.SURVIVORS, Kind.REVEAL}
        assert running.standing == counting_.standing


def test_a_round_without_holders_of_one_secret_aborts_as_it_would() -> None:
    """Enough clients stay, and all but one of somebody's neighbours do not."""
    invitations, enrolment, _ = session_of(EVERYBODY, rounds=ENROLLED, neighbours=4, threshold=4)
    exchanges = MaskedExchange({}, enrolment), CountedExchange()
    for first, invitation in enumerate(invitations):
        given = vectors_of(invitation, dropped=(first, (first + 5) % ENROLLED))
        said = []
        for exchange in exchanges:
            try:
                found = exchange.round(invitation, floors_of(invitation), given, Traffic()).sum
                said.append((found.survivors, found.recovered))
            except RoundAborted as error:
                said.append(str(error))
        assert said[0] == said[1]
        assert isinstance(said[0], str)
        assert "holders of client" in said[0]
        assert invitation.params.threshold == 4


def counting(**more):
    return small(aggregation__masking="counted", **more)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"aggregation__dropout": 0.2, "privacy__dropout_tolerance": 0.3},
        {"aggregation__secagg": "malicious-server", "aggregation__dropout": 0.1},
        {"aggregation__suite": "x25519", "aggregation__slots": 2},
        {"aggregation__slots": 1, "aggregation__suite": "x25519-mlkem768"},
        {"participation__rate": 0.6, "participation__sampling": "fixed"},
        {"aggregation__dropout": 0.5, "privacy__dropout_tolerance": 0.1},  # every round aborts
    ],
)
def test_a_counted_run_is_the_run_but_for_the_masks(task, more, monkeypatch) -> None:
    # the same identity keys in both: they are part of the graph's seed, and who is whose neighbour of a few bytes
    runs = []
    for config in (counting(**more), small(**more)):
        keys = itertools.count()
        drawn = SimpleNamespace(urandom=lambda size, keys=keys: next(keys).to_bytes(size, "big"))
        monkeypatch.setattr(simulation, "os", drawn)
        runs.append(finish(config, task))
    counted, run = runs
    assert outcome(counted) == outcome(run)
    ours, theirs = summarise(counted, total_seconds=1.0), summarise(run, total_seconds=1.0)
    assert (ours.communication, ours.accuracy) == (theirs.communication, theirs.accuracy)
    assert ours.privacy.epsilon == theirs.privacy.epsilon


def test_a_counted_run_says_so_first(task) -> None:
    counted = finish(counting(), task)
    report = summarise(counted, total_seconds=1.0)
    assert "COUNTED AND NOT RUN" in counted.headline
    assert list(report.to_dict())[:2] == ["schema", "masking"]
    assert report.masking == "counted"
    assert report.aggregation.seconds is None  # nothing was measured
    what, figure = rows(report)[0]
    assert what == "masking"
    assert "COUNTED AND NOT RUN" in figure
    assert report.privacy.statement.startswith("MASKING COUNTED, NOT RUN.")
    run = summarise(finish(small(), task), total_seconds=1.0)
    assert run.masking == "run"
    assert "COUNTED" not in str(rows(run)) + run.privacy.statement
    off = finish(small(aggregation__secagg="off"), task)
    assert summarise(off, total_seconds=1.0).masking == "off"
