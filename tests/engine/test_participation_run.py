"""Runs in which not everybody takes part, or examples are protected: small federations of the digits data set."""

import collections
import dataclasses
import json
import math

import jsonschema
import numpy as np
import pytest
import torch
from federations import finish, small, task_of

from flora_secure.client import example_gradients as examples
from flora_secure.client import trainer
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.summary import summarise
from flora_secure.errors import ConfigError
from flora_secure.planning.config import override
from flora_secure.planning.selection import Selection
from flora_secure.privacy.accounting import epsilon_of
from flora_secure.privacy.cross_check import PLD, QUADRATURE
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import json_schema

pytestmark = pytest.mark.usefixtures("coarse")

# a small budget: accountants of sampled rounds take time in proportion to the widest loss
MANY = {"data__clients": 60, "training__rounds": 6, "participation__rate": 0.25, "privacy__epsilon": 2.0}


@pytest.fixture(scope="module")
def crowd():
    config = small(**MANY, participation__sampling="fixed")
    return task_of(config)


def derived(records: list[RoundRecord]) -> dict[int, float]:
    """ε of every client from the log alone."""
    events = collections.defaultdict(list)
    for record in (RoundRecord.from_dict(json.loads(json.dumps(r.to_dict()))) for r in records):
        if record.aborted is None:
            for client in record.participants:
                events[client].append(record.event())
    return {client: epsilon_of(found, records[0].delta) for client, found in events.items()}


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
@pytest.mark.parametrize("unit", ["client", "example"])
def test_every_clients_budget_follows_from_the_log(crowd, sampling, unit) -> None:
    how = {"participation__sampling": sampling, "privacy__unit": unit, "aggregation__dropout": 0.1}
    config = small(**{**MANY, "training__rounds": 3}, **how)
    simulation = finish(config, crowd)
    report = summarise(simulation, total_seconds=1.0)
    jsonschema.validate(json.loads(report.to_json()), json_schema())
    spent = derived(simulation.records)
    assert simulation.server.ledger.epsilon_by_client() == pytest.approx(spent)
    assert report.privacy.epsilon == pytest.approx(max(spent.values()))
    assert 0 < report.privacy.epsilon <= 2.0
    assert report.privacy.epsilon_outsider <= report.privacy.epsilon
    sizes = report.aggregation.cohort
    assert set(sizes) == {15} if sampling == "fixed" else len(set(sizes)) > 1
    for record in simulation.records:
        if record.aborted is None:
            assert len(record.dropped) == math.floor(0.1 * len(record.participants))
            assert sorted(record.survivors + record.dropped) == record.participants
            assert record.population is None  # a client may run out of budget: later cohorts tell of earlier ones
            assert record.recovered == len(record.dropped)
    assert {simulation.records[-1].unit, report.privacy.unit} == {unit}


@pytest.mark.parametrize("mode", [{"participation__sampling": "poisson"}, {"participation__sampling": "fixed"}])
@pytest.mark.parametrize("unit", ["client", "example"])
def test_the_same_seed_gives_the_same_run_in_every_mode(crowd, mode, unit) -> None:
    config = small(**{**MANY, "training__rounds": 3}, **mode, privacy__unit=unit)
    first, second = finish(config, crowd), finish(config, crowd)
    assert [r.participants for r in first.records] == [r.participants for r in second.records]
    assert torch.equal(first.factors.b, second.factors.b)


def test_only_the_cohort_trains_and_is_counted(crowd, monkeypatch) -> None:
    config = small(**MANY, participation__sampling="fixed")
    asked, train = [], crowd.learner.batch.train

    def watched(head, rule, factors, steps, rate, cohort, variate):
        asked.append(list(cohort))
        return train(head, rule, factors, steps, rate, cohort, variate)

    monkeypatch.setattr(crowd.learner.batch, "train", watched)
    simulation = finish(config, crowd)
    assert asked == [record.participants for record in simulation.records]
    for number, cohort in enumerate(asked):
        part = train(crowd.learner.head, crowd.rule, crowd.initial, 2, 1.0, cohort, crowd.learner.variate)
        whole = train(crowd.learner.head, crowd.rule, crowd.initial, 2, 1.0, None, crowd.learner.variate)
        torch.testing.assert_close(part, whole[cohort], rtol=1e-4, atol=1e-6)
        if number:
            break


def test_a_minimum_separation_is_kept_and_amplifies_nothing(crowd) -> None:
    config = small(**MANY, participation__sampling="fixed", participation__min_separation=3)
    simulation = finish(config, crowd)
    last: dict[int, int] = {}
    for record in simulation.records:
        assert all(record.round - last.get(client, -9) >= 3 for client in record.participants)
        last.update(dict.fromkeys(record.participants, record.round))
        assert record.population is None
    report = summarise(simulation, total_seconds=1.0)
    assert report.privacy.epsilon_outsider == report.privacy.epsilon
    assert simulation.server.plan.participations == 2


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
def test_outsiders_gain_where_nobody_can_run_out_of_budget(crowd, sampling) -> None:
    """Two rounds at one in two: every client's budget pays for both, so each cohort is drawn from all clients."""
    changes = {"training__rounds": 2, "participation__rate": 0.5, "participation__sampling": sampling}
    simulation = finish(small(**{**MANY, **changes}, aggregation__dropout=0.1), crowd)
    assert simulation.server.selection.uniform
    assert {record.population for record in simulation.records} == {60}
    report = summarise(simulation, total_seconds=1.0).privacy
    assert set(report.cross_check_outsiders) in (set(), {PLD, QUADRATURE})
    assert bool(report.cross_check_outsiders) == (report.epsilon_outsider < report.epsilon)


@pytest.mark.parametrize("who", ["participants", "dropped"])
def test_cohorts_and_dropouts_are_secret_where_the_noise_is(crowd, who) -> None:
    """The report publishes the seed: cohorts and survivors that follow from it would be known to outsiders. Secret ones
    of three rounds are equal by chance in one of 1e8 runs."""

    def cohorts(**changes) -> list[list[int]]:
        sampled = {"participation__sampling": "fixed", "aggregation__dropout": 0.2}
        if who == "dropped":  # of all clients, so that nothing else is drawn
            sampled |= {"participation__sampling": None, "participation__rate": 1.0}
        config = small(**{**MANY, "training__rounds": 3, "aggregation__secagg": "off", **sampled, **changes})
        return [getattr(record, who) for record in finish(config, crowd).records]

    public = cohorts()
    assert public == cohorts()
    plain = {"privacy__epsilon": math.inf, "privacy__simulation_noise": False}
    assert cohorts(**plain) == cohorts(**plain)
    secret = cohorts(privacy__simulation_noise=False)
    assert secret != public
    assert secret != cohorts(privacy__simulation_noise=False)


def test_clients_without_budget_sit_out(crowd) -> None:
    """With the budget for one participation nobody is seen twice, and cohorts come from those who are left."""
    config = small(**MANY, participation__sampling="fixed", aggregation__corrupt=0.0, privacy__dropout_tolerance=0.0)
    simulation = Simulation(config, crowd)
    assert simulation.policy is not None
    simulation.policy = dataclasses.replace(simulation.policy, least_noise=0.0)
    simulation.server.plan = dataclasses.replace(
        simulation.server.plan,
        participations=1,
        sigma_local=simulation.server.plan.sigma_local / math.sqrt(simulation.server.plan.participations),
    )
    records = list(simulation.rounds())
    seen = [client for record in records for client in record.participants]
    assert len(seen) == len(set(seen)) == 60
    assert [len(record.exhausted) for record in records] == [0, 15, 30, 45, 60, 60]
    assert {record.population for record in records} == {None}  # from the first round, where all could still be drawn
    assert [record.aborted is None for record in records] == [True] * 4 + [False] * 2
    assert summarise(simulation, total_seconds=1.0).privacy.exhausted == 60


def test_too_small_a_cohort_is_skipped_cleanly(crowd, monkeypatch) -> None:
    config = small(**MANY, participation__sampling="poisson")
    draw = Selection.draw
    monkeypatch.setattr(Selection, "draw", lambda self, seed, n, who: draw(self, seed, n, who)[: 3 if n == 2 else None])
    simulation = finish(config, crowd)
    record = simulation.records[1]
    assert "a cohort of 3 clients" in (record.aborted or "")
    assert record.upload_bytes == record.download_bytes == 0
    assert simulation.records[2].aborted is None
    assert [e.round for e in simulation.server.ledger.events] == [1, 3, 4, 5, 6]


def test_cohorts_smaller_than_the_colluders_are_refused() -> None:
    with pytest.raises(ConfigError, match="makes cohorts of 3 on average"):
        Selection.of(small(data__clients=60, participation__rate=0.05, participation__sampling="poisson"))


def test_the_noise_pays_for_the_participations_of_nineteen_clients_in_twenty() -> None:
    chosen = Selection.of(small(**{**MANY, "training__rounds": 100}, participation__sampling="poisson"))
    law = np.random.default_rng(0).binomial(100, 0.25, 200_000)
    assert (law > chosen.participations).mean() <= 0.052 < (law > chosen.participations - 1).mean()


def test_unit_example_learns_and_its_noise_is_sized_for_one_example(task) -> None:
    config = small(privacy__unit="example", training__rounds=10, privacy__epsilon=8.0, privacy__example_rate=0.3)
    simulation = finish(config, task)
    report = summarise(simulation, total_seconds=1.0)
    assert report.privacy.sampling_rate == 0.3
    assert report.privacy.epsilon <= 8.0
    assert report.privacy.accountant["name"] == "dp-accounting PLD"
    assert {"opacus PRV", "dp-accounting RDP"} <= set(report.privacy.cross_check)
    assert report.accuracy.final > report.accuracy.zero_shot + 0.1
    assert all(record.sampling_rate == 0.3 for record in simulation.records)
    images = len(task.federation.dataset.private.labels)
    drawn = sum(record.contributions for record in simulation.records) / 10
    assert abs(drawn - 0.3 * images) < 6 * math.sqrt(0.21 * images / 10)  # 1 in 1e9
    assert "example" in report.privacy.statement


def test_a_non_finite_gradient_drops_its_client_only(task, monkeypatch) -> None:
    simulation = Simulation(small(privacy__unit="example", privacy__epsilon=4.0), task)

    def broken(*arguments):
        found = examples.gradient_sums(*arguments)
        found.sums[4, 0] = math.nan
        return found

    monkeypatch.setattr(trainer, "gradient_sums", broken)
    list(simulation.rounds())
    assert [record.dropped for record in simulation.records] == [[4], [4], [4]]


def test_the_clip_norm_follows_the_quantile_and_pays_for_it(task, quick) -> None:
    config = small(training__rounds=10, privacy__epsilon=100.0, privacy__clip_norm=0.01, privacy__adaptive_clip=0.5)
    simulation = finish(config, task)
    norms = [record.clip_norm for record in simulation.records]
    assert norms[0] == 0.01
    assert norms[-1] > 1.5 * norms[0]  # all updates are longer at first
    assert all(record.count_scale > 0 for record in simulation.records)
    report = summarise(simulation, total_seconds=1.0)
    assert report.privacy.epsilon == pytest.approx(epsilon_of([r.event() for r in simulation.records], 1e-5))
    assert report.privacy.epsilon <= 100.0
    fixed = Simulation(override(config, {"privacy.clip_norm": 0.01}), task).server.plan
    plain = small(training__rounds=10, privacy__epsilon=100.0, privacy__clip_norm=0.01)
    assert fixed.sigma_local / fixed.scale > (p := Simulation(plain, task).server.plan).sigma_local / p.scale
