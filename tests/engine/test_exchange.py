import numpy as np
import pytest

from flora_protocols import ParameterError, Profile, TooFewSurvivors
from flora_secure.engine.exchange import MaskedSum, PlainSum
from flora_secure.engine.traffic import Traffic
from flora_secure.planning.masking import MaskingPlan, plan_masking
from flora_secure.privacy.calibration import calibrate

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


def summations():
    return [
        PlainSum(),
        MaskedSum(CLIENTS, Profile.SEMI_HONEST),
        MaskedSum(CLIENTS, Profile.SEMI_HONEST, workers=2),
        MaskedSum(CLIENTS, Profile.SEMI_HONEST, neighbours=4),
        MaskedSum(CLIENTS, Profile.MALICIOUS_SERVER, workers=1),
    ]


EVERYBODY = range(CLIENTS)


@pytest.mark.parametrize("dropped", [(), (2,), (0, 6)])
def test_every_summation_gives_the_same_sum(plan, dropped) -> None:
    given = uploads(plan, dropped)
    expected = sum(vector.astype(np.int64) for vector in given.values()) % (1 << plan.bits)
    for summation in summations():
        traffic = Traffic()
        try:
            outcome = summation.round(1, plan, EVERYBODY, bytes(32), b"adapter", given, traffic)
        finally:
            summation.close()
        assert outcome.total.dtype == np.uint32
        np.testing.assert_array_equal(outcome.total, expected)
        assert outcome.recovered == (0 if summation.profile == "off" else len(dropped))
        assert traffic.clients == set(range(CLIENTS))
        assert traffic.payload == CLIENTS * len(b"adapter") + len(given) * -(-DIMENSION * plan.bits // 8)
        assert (traffic.masking == 0) == (summation.profile == "off")


def test_too_few_survivors_abort_and_the_next_round_works(plan) -> None:
    for summation in summations():
        try:
            with pytest.raises(TooFewSurvivors):
                summation.round(1, plan, EVERYBODY, bytes(32), b"", uploads(plan, dropped=(0, 1, 2)), Traffic())
            summation.round(2, plan, EVERYBODY, bytes(32), b"", uploads(plan), Traffic())
        finally:
            summation.close()


def test_bytes_do_not_depend_on_where_the_clients_live(plan) -> None:
    counted = []
    for workers in (0, 2):
        summation, traffic = MaskedSum(CLIENTS, Profile.SEMI_HONEST, workers=workers), Traffic()
        try:
            summation.round(1, plan, EVERYBODY, bytes(32), b"", uploads(plan, dropped=(3,)), traffic)
        finally:
            summation.close()
        counted.append((traffic.upload, traffic.download, traffic.payload))
    assert counted[0] == counted[1]


def test_cpu_time_is_measured_on_both_sides(plan) -> None:
    summation = MaskedSum(CLIENTS, Profile.SEMI_HONEST)
    outcome = summation.round(1, plan, EVERYBODY, bytes(32), b"", uploads(plan), Traffic())
    assert outcome.client_seconds > 0
    assert outcome.server_seconds > 0


def test_an_impossible_threshold_is_refused_before_the_first_round(plan) -> None:
    with pytest.raises(ParameterError, match="threshold"):
        MaskedSum(CLIENTS, Profile.MALICIOUS_SERVER, neighbours=CLIENTS - 1, threshold=3).masking(plan)


@pytest.mark.parametrize("profile", list(Profile))
def test_a_session_among_a_cohort_uses_the_numbers_of_the_federation(plan, profile) -> None:
    """Seven of twelve clients, one of them dropped: sums and traffic go by the client's own number."""
    cohort = [1, 2, 4, 5, 8, 9, 11]
    rng = np.random.default_rng(1)
    given = {client: rng.integers(0, 1 << plan.bits, DIMENSION, dtype=np.uint32) for client in cohort if client != 8}
    expected = sum(vector.astype(np.int64) for vector in given.values()) % (1 << plan.bits)
    summation, traffic = MaskedSum(12, profile, workers=1), Traffic()
    try:
        outcome = summation.round(3, plan, cohort, bytes(32), b"adapter", given, traffic)
        np.testing.assert_array_equal(outcome.total, expected)
        assert outcome.recovered == 1
        assert traffic.clients == set(cohort)
        with pytest.raises(TooFewSurvivors):
            summation.round(4, plan, cohort, bytes(32), b"", {c: given[c] for c in (1, 2, 4, 5)}, Traffic())
    finally:
        summation.close()


def test_each_size_of_cohort_has_its_own_graph() -> None:
    noise = calibrate(
        clients=90,
        smallest_cohort=8,
        dimension=5,
        rounds=1,
        epsilon=4.0,
        delta=1e-5,
        clip_norm=1.0,
        dropout_tolerance=0.1,
        colluders=4,
    )
    summation = MaskedSum(100, Profile.SEMI_HONEST)
    for size in (8, 30, 90):
        of_round = noise.for_cohort(size)
        assert summation.masking(of_round) == plan_masking(of_round, Profile.SEMI_HONEST)
    assert summation.masking(noise.for_cohort(8)).neighbours == 6
    assert summation.masking(noise.for_cohort(90)).neighbours < 30
    few = MaskedSum(100, Profile.SEMI_HONEST, neighbours=20)
    assert few.masking(noise.for_cohort(8)).neighbours == 7
    assert few.masking(noise.for_cohort(90)).neighbours == 20


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
    assert planned(100, 0.1, 5) == MaskingPlan(16, 6, 5)
    assert planned(100, 0.3, 5) == MaskingPlan(28, 6, 5)
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
    summation = MaskedSum(CLIENTS, Profile.SEMI_HONEST, workers=1)
    short = {client: vector[:-1] for client, vector in uploads(plan).items()}
    try:
        with pytest.raises(Exception, match="shape"):
            summation.round(1, plan, EVERYBODY, bytes(32), b"", short, Traffic())
    finally:
        summation.close()


def test_workers_end_although_nobody_reads_what_they_answer() -> None:
    """As after Ctrl-C: an answer that does not fit in the pipe must not keep the run from ending."""
    worker = _start_worker()
    cohort = Cohort()
    cohort._workers = [worker]
    assert worker.stdin is not None
    _send(worker.stdin, ("begin" * 100_000, ()))  # an error that repeats so long a name
    time.sleep(0.5)
    ended = threading.Thread(target=cohort.close, daemon=True)
    ended.start()
    ended.join(20)
    assert not ended.is_alive()
    assert worker.returncode is not None
