import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from invitations import enrolment_of, floors_of, invitation_of, secrets_of

from flora_protocols import MisuseError, ParameterError, Profile, ProtocolError, Suite
from flora_secure.engine.exchange import Carried, MaskedExchange, PlainExchange, RoundExchange, Traffic
from flora_secure.engine.workers import Workers, _send, _start_worker
from flora_secure.planning.masking import MaskingPlan, plan_masking
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.sum import Vector

CLIENTS, DIMENSION = 7, 33


@pytest.fixture
def plan():
    return calibrate(
        clients=CLIENTS, dimension=DIMENSION, rounds=2, epsilon=4.0, delta=1e-5, clip_norm=1.0, dropout_tolerance=0.3
    )


def uploads(plan, dropped=()):
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 1 << plan.bits, (CLIENTS, DIMENSION), dtype=np.uint32)
    return {client: vectors[client] for client in range(CLIENTS) if client not in dropped}


class Federation:
    """An exchange of one kind, and whoever is enrolled in it."""

    def __init__(
        self,
        clients: int = CLIENTS,
        *,
        masked: bool = True,
        signed: bool = False,
        workers: int = 0,
        neighbours=None,
        suite: Suite = Suite.X25519,
    ) -> None:
        secrets = secrets_of(clients) if signed else {}
        self.masked, self._graph, self._suite = masked, neighbours, suite
        self.enrolment = enrolment_of(clients, secrets)
        self.exchange: RoundExchange = MaskedExchange(secrets, self.enrolment, workers) if masked else PlainExchange()

    def round(
        self, number: int, plan: NoisePlan, given: dict[int, Vector], traffic: Traffic, members=None, **slot: int
    ) -> Carried:
        """Round `number`; `slot` and `slots` of the masking session, one of one unless given."""
        least = None if self._graph is None else MaskingPlan(self._graph, 2, 1, slot.get("slots", 1), self._suite)
        invitation = invitation_of(
            plan,
            self.enrolment,
            number=number,
            members=members,
            masked=self.masked,
            masking=least,
            suite=self._suite,
            **slot,
        )
        return self.exchange.round(invitation, floors_of(invitation), given, traffic)

    def close(self) -> None:
        self.exchange.close()


def every_kind() -> Iterator[Federation]:
    kinds = (
        {"masked": False},
        {},
        {"workers": 2},
        {"neighbours": 4},
        {"signed": True, "workers": 1},
        {"suite": Suite.X25519_MLKEM768, "workers": 2},
        {"suite": Suite.X25519_MLKEM768, "signed": True},
        {"suite": Suite.X25519_MLKEM768, "neighbours": 4},
    )
    for kind in kinds:
        federation = Federation(**kind)
        try:
            yield federation
        finally:
            federation.close()


@pytest.mark.parametrize("dropped", [(), (2,), (0, 6)])
def test_every_exchange_gives_the_same_sum(plan, dropped) -> None:
    given = uploads(plan, dropped)
    expected = sum(vector.astype(np.int64) for vector in given.values()) % (1 << plan.bits)
    for federation in every_kind():
        traffic = Traffic()
        found = federation.round(1, plan, given, traffic).sum
        assert found.total.dtype == np.uint32
        np.testing.assert_array_equal(found.total, expected)
        assert found.survivors == tuple(given)
        assert found.recovered == (len(dropped) if federation.masked else 0)
        assert traffic.clients == (set(range(CLIENTS)) if federation.masked else set(given))
        assert traffic.payload == len(given) * -(-DIMENSION * plan.bits // 8)
        assert (traffic.masking == 0) == (not federation.masked)


def test_a_session_is_set_up_once_and_carries_all_of_its_rounds(plan) -> None:
    """Sums stay right over drop-outs, also of who is away twice, an aborted round and a slot that is left out."""
    for federation in every_kind():
        slots, told = {"slots": 5}, []
        for slot, dropped in ((0, (3,)), (1, (3, 5)), (2, (0, 1, 2)), (4, ())):
            given, traffic = uploads(plan, dropped), Traffic()
            expected = sum(vector.astype(np.int64) for vector in given.values()) % (1 << plan.bits)
            if len(dropped) == 3:
                with pytest.raises(ProtocolError, match="needed"):
                    federation.round(1 + slot, plan, given, traffic, slot=slot, **slots)
            else:
                found = federation.round(1 + slot, plan, given, traffic, slot=slot, **slots).sum
                np.testing.assert_array_equal(found.total, expected)
                assert found.survivors == tuple(given)
            assert federation.exchange.standing
            told.append(traffic.masking)
        if federation.masked:
            assert max(told[1:]) < told[0] / 2  # the set-up was in the first
        else:
            assert told == [0] * 4


def test_a_session_that_is_another_is_set_up_anew(plan) -> None:
    """Its number says so, or its cohort, or anything of its parameters."""
    federation, said = Federation(12), []
    some, others = tuple(range(CLIENTS)), (0, 2, 4, 6, 7, 9, 11)
    for number, members, slot in ((1, some, 0), (2, some, 1), (3, some, 0), (4, others, 0), (5, others, 1)):
        given = dict(zip(members, uploads(plan).values(), strict=True))
        traffic = Traffic()
        found = federation.round(number, plan, given, traffic, members, slot=slot, slots=3).sum
        assert found.survivors == members
        said.append(traffic.masking)
    assert said[0] == said[2] == said[3] > 2 * said[1]
    assert said[1] == said[4]


def test_a_used_slot_is_refused_by_the_clients_and_nothing_is_summed(plan) -> None:
    federation = Federation()
    federation.round(1, plan, uploads(plan), Traffic(), slot=0, slots=3)
    with pytest.raises(MisuseError, match="slot 0 was used"):
        federation.round(1, plan, uploads(plan), Traffic(), slot=0, slots=3)


def test_a_session_without_enough_clients_to_go_on_is_lost(plan, monkeypatch) -> None:
    """Clients that are silent while it is set up are in none of its rounds."""
    federation = Federation()
    exchange = federation.exchange
    assert isinstance(exchange, MaskedExchange)
    assert not exchange.standing
    carry = exchange._workers.exchange
    monkeypatch.setattr(
        exchange._workers,
        "exchange",
        lambda outbox: ((client, reply) for client, reply in carry(outbox) if client > 3),
    )
    with pytest.raises(ProtocolError, match="needed"):
        federation.round(1, plan, uploads(plan), Traffic(), slots=3)
    assert not exchange.standing
    monkeypatch.undo()
    assert federation.round(2, plan, uploads(plan), Traffic(), slots=3).sum.survivors == tuple(range(CLIENTS))
    assert exchange.standing


def test_too_few_survivors_abort_and_the_next_round_works(plan) -> None:
    for federation in every_kind():
        with pytest.raises(ProtocolError, match="needed"):
            federation.round(1, plan, uploads(plan, dropped=(0, 1, 2)), Traffic())
        federation.round(2, plan, uploads(plan), Traffic())


def test_bytes_do_not_depend_on_where_the_clients_live(plan) -> None:
    counted = []
    for workers in (0, 2):
        federation, traffic = Federation(workers=workers), Traffic()
        try:
            federation.round(1, plan, uploads(plan, dropped=(3,)), traffic)
        finally:
            federation.close()
        counted.append((traffic.upload, traffic.download, traffic.payload))
    assert counted[0] == counted[1]


def test_cpu_time_is_measured_on_both_sides(plan) -> None:
    outcome = Federation().round(1, plan, uploads(plan), Traffic())
    assert outcome.client_seconds > 0
    assert outcome.server_seconds > 0


@pytest.mark.parametrize("signed", [False, True])
def test_a_session_among_a_cohort_uses_the_numbers_of_the_federation(plan, signed) -> None:
    """Seven of twelve clients, one of them dropped: sums and traffic go by the client's own number."""
    cohort = [1, 2, 4, 5, 8, 9, 11]
    rng = np.random.default_rng(1)
    given = {client: rng.integers(0, 1 << plan.bits, DIMENSION, dtype=np.uint32) for client in cohort if client != 8}
    expected = sum(vector.astype(np.int64) for vector in given.values()) % (1 << plan.bits)
    federation, traffic = Federation(12, signed=signed, workers=1), Traffic()
    try:
        found = federation.round(3, plan, given, traffic, cohort).sum
        np.testing.assert_array_equal(found.total, expected)
        assert found.survivors == (1, 2, 4, 5, 9, 11)
        assert found.recovered == 1
        assert traffic.clients == set(cohort)
        with pytest.raises(ProtocolError, match="needed"):
            federation.round(4, plan, {c: given[c] for c in (1, 2, 4, 5)}, Traffic(), cohort)
    finally:
        federation.close()


def planned(clients: int, tolerance: float, colluders: int = 0, **options) -> MaskingPlan:
    noise = calibrate(
        clients=clients,
        dimension=5,
        rounds=1,
        epsilon=4.0,
        delta=1e-5,
        clip_norm=1.0,
        dropout_tolerance=tolerance,
        colluders=colluders,
    )
    return plan_masking(noise, options.pop("profile", Profile.SEMI_HONEST), **options)


def test_in_the_complete_graph_the_threshold_is_a_majority_but_never_more_than_must_survive() -> None:
    assert planned(20, 0.1, neighbours=19).threshold == 11
    assert planned(20, 0.6, neighbours=19).threshold == 8


def test_the_default_graph_is_the_least_that_resists_what_the_noise_resists() -> None:
    assert planned(100, 0.1, 5) == MaskingPlan(16, 6, 5, 1, Suite.X25519)
    assert planned(100, 0.3, 5) == MaskingPlan(28, 6, 5, 1, Suite.X25519)
    assert planned(100, 0.1, 5, profile=Profile.MALICIOUS_SERVER).neighbours == 26
    assert planned(100, 0.1, 5, profile=Profile.MALICIOUS_SERVER).threshold == 16


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("neighbours", [None, 30, 99])
def test_whatever_graph_is_asked_for_gets_a_threshold_that_resists_the_colluders(profile, neighbours) -> None:
    plan = planned(100, 0.1, 5, profile=profile, neighbours=neighbours)
    holders = plan.neighbours + (plan.neighbours == 99)
    assert plan.threshold > plan.corrupt
    assert profile is Profile.SEMI_HONEST or 2 * plan.threshold > holders + plan.corrupt
    assert planned(100, 0.1, 5, profile=profile, neighbours=30, threshold=20).threshold == 20


def test_more_colluders_than_any_graph_resists_are_refused() -> None:
    with pytest.raises(ParameterError, match="85 corrupt of 100"):
        planned(100, 0.1, 85, profile=Profile.MALICIOUS_SERVER)


def test_a_worker_that_fails_reports_its_own_error(plan) -> None:
    federation = Federation(workers=1)
    short = {client: vector[:-1] for client, vector in uploads(plan).items()}
    try:
        with pytest.raises(Exception, match="shape"):
            federation.round(1, plan, short, Traffic())
    finally:
        federation.close()


def test_workers_end_although_nobody_reads_what_they_answer() -> None:
    """As after Ctrl-C: an answer that does not fit in the pipe must not keep the run from ending."""
    worker = _start_worker()
    workers = Workers()
    workers._workers = [worker]
    assert worker.stdin is not None
    _send(worker.stdin, ("begin" * 100_000, ()))  # an error that repeats so long a name
    time.sleep(0.5)
    ended = threading.Thread(target=workers.close, daemon=True)
    ended.start()
    ended.join(20)
    assert not ended.is_alive()
    assert worker.returncode is not None
