"""Secure sums among five ClientApps in this process, by Flower's own strategies."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAdam, FedAvg, FedProx, Krum
from sum_sites import (
    EPSILON,
    ROUNDS,
    SITES,
    SiteApp,
    SumFederation,
    context_of,
    model,
    numbers,
    trained,
    update_of,
)

from flora_secure.engine.flower.sums.arrays import Summed
from flora_secure.errors import ConfigError, DivergedError, RunFolderError


@pytest.fixture
def federation(tmp_path, monkeypatch):
    return SumFederation(tmp_path, monkeypatch)


def test_the_mean_of_all_updates_comes_back_with_its_noise(federation):
    arrays, metrics = federation.round(arrays=model(2.0))
    assert np.allclose(numbers(arrays), 2.0 + federation.mean(range(SITES)), atol=1e-6)
    error = numbers(arrays) - 2.0 - np.mean([update_of(client) for client in range(SITES)], axis=0)
    assert 0.5 < error.std() / federation.deviation < 1.6
    assert [app.calls for app in federation.apps.values()] == [1] * SITES
    assert dict(metrics) == {}


def test_the_report_counts_arrays_and_speaks_of_no_adapter(federation):
    federation.round()
    report = federation.strategy.report()
    assert (report.rounds, report.summed) == (1, 1)
    assert 0 < report.epsilon < EPSILON
    assert report.upload > SITES * 64
    assert report.download > SITES * 64 * 4
    assert "adapter" not in report.statement
    assert "metrics of evaluation" in report.statement
    assert str(report).startswith("1 sums of 1 rounds")


def test_the_users_app_sees_the_strategys_records_and_none_of_ours(federation):
    federation.round()
    (seen,) = federation.apps[0].seen
    assert set(seen) == {"arrays", "config"}
    assert dict(seen["config"]) == {"lr": 0.1, "server-round": 1}


def test_start_runs_all_rounds_that_the_budget_pays_for(federation):
    result = federation.strategy.start(federation.grid, model())
    report = federation.strategy.report()
    assert (report.rounds, report.summed) == (ROUNDS, ROUNDS)
    assert 0.8 * EPSILON < report.epsilon < EPSILON  # everybody survived, and one more noise is in each sum
    assert numbers(result.arrays).shape == (64,)
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == 0.5
    with pytest.raises(ConfigError, match=r"^1 rounds are asked for, and the budget in .* still pays for 0$"):
        federation.strategy.start(federation.grid, model(), num_rounds=1)


def test_an_optimiser_of_flowers_takes_its_step_with_the_mean(tmp_path, monkeypatch):
    plain, ours = FedAdam(eta=0.1), SumFederation(tmp_path, monkeypatch, FedAdam(eta=0.1))
    found, _ = ours.round()
    arrays = trained(model(), ours.mean(range(SITES)).astype(np.float32))
    list(plain.configure_train(1, model(), ConfigRecord(), ours.grid))
    question = Message(RecordDict({}), 100, "train")
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1.0})})
    expected, _ = plain.aggregate_train(1, [Message(content, reply_to=question)])
    assert np.allclose(numbers(found), numbers(expected), atol=1e-4)
    assert np.abs(numbers(found)).max() > 0.01


def test_the_config_of_fedprox_reaches_the_app(tmp_path, monkeypatch):
    federation = SumFederation(tmp_path, monkeypatch, FedProx(proximal_mu=0.3))
    federation.round()
    assert federation.apps[0].seen[0]["config"]["proximal-mu"] == 0.3


def test_one_of_five_that_dies_before_its_upload_is_missing_from_the_mean(federation):
    federation.round()
    federation.given.clear()
    federation.grid.dead.add(1)
    arrays, _ = federation.round(2)
    assert len(federation.given) == 4
    assert np.allclose(numbers(arrays), federation.mean(range(4)), atol=1e-6)
    assert federation.strategy._server.records[1].survivors == [0, 2, 3, 4]


def test_two_of_five_that_die_are_too_many_and_nothing_is_released(federation):
    federation.round()
    before = federation.strategy.report().epsilon
    federation.grid.spoil = lambda client, message, reply: None if client in (1, 2) else reply
    assert federation.round(2) == (None, None)
    report = federation.strategy.report()
    assert (report.rounds, report.summed, report.epsilon) == (2, 1, before)


def test_a_site_whose_update_is_no_number_leaves_the_round(federation):
    federation.apps[3].update = np.full(64, np.nan, np.float32)
    federation.round()
    assert federation.strategy._server.records[0].survivors == [0, 1, 2, 4]
    assert not (federation.folder / "site3/state/ledger.jsonl").exists()


def test_a_site_whose_app_fails_tells_nobody_why(federation, caplog):
    federation.apps[3].update = "not an array"  # training raises
    replies = []
    federation.grid.spoil = lambda client, message, reply: replies.append((client, repr(reply.content))) or reply
    federation.round()
    assert federation.strategy._server.records[0].survivors == [0, 1, 2, 4]
    own = " ".join(text for client, text in replies if client == 3)
    assert "failed" in own
    assert "numpy" not in own
    assert "str" not in own.replace("struct", "")


def test_arrays_that_are_no_floats_are_refused_by_name_unless_they_are_kept(tmp_path, monkeypatch):
    counter = np.array(7, np.int64)
    federation = SumFederation(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"array 'steps' is int64.*keep=\('steps',\)"):
        federation.round(arrays=model(steps=counter))
    with pytest.raises(ConfigError, match="keep 'x\\*' names no array"):
        federation.made(keep=("x*",)).start(federation.grid, model(steps=counter))
    with pytest.raises(ConfigError, match="keep must be a tuple"):
        federation.made(keep="steps")
    federation.strategy = federation.made(keep=("st*",))
    arrays, _ = federation.round(arrays=model(steps=counter))
    assert arrays["steps"].numpy() == 7
    assert list(arrays) == ["weight", "bias", "steps"]


@pytest.mark.parametrize(
    ("wrapped", "says"),
    [
        (FedAvg(fraction_train=0.6), "FedAvg leaves out 2 of 5 sites.*fraction_train=1.0"),
        (FedAvg(fraction_train=0.0), "FedAvg leaves out 5 of 5 sites"),
    ],
)
def test_a_strategy_that_leaves_out_sites_is_refused(tmp_path, monkeypatch, wrapped, says):
    federation = SumFederation(tmp_path, monkeypatch, wrapped)
    with pytest.raises(ConfigError, match=says):
        federation.round()
    assert federation.strategy._server.records == ()


@pytest.mark.parametrize(
    ("wrapped", "says"),
    [
        (Krum(), "Krum looks at single updates"),
        (DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 5), "adds noise too"),
        (object(), "not object"),
    ],
)
def test_what_needs_single_updates_or_adds_noise_is_not_wrapped(tmp_path, monkeypatch, wrapped, says):
    with pytest.raises(ConfigError, match=says):
        SumFederation(tmp_path, monkeypatch, wrapped)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"epsilon": np.inf}, "epsilon inf adds no noise"),
        ({"epsilon": -1}, "^epsilon must be above 0"),
        ({"rounds": 0}, "^rounds must be at least 1"),
        ({"clip_norm": 0.0}, "^clip_norm must"),
        ({"corrupt": 5}, "^corrupt is a whole number of clients, below the 5"),
        ({"dropout_tolerance": 1.0}, "^dropout_tolerance must"),
        ({"patience": 0}, "^patience must"),
        ({"enrolment": "nowhere.toml"}, "enrolment nowhere.toml cannot be read"),
    ],
)
def test_what_cannot_be_is_said_at_once_by_the_name_of_the_argument(federation, more, says):
    with pytest.raises(ConfigError, match=says):
        federation.made(**more)


def test_a_round_is_not_begun_while_too_few_sites_are_there(federation):
    for client in (0, 1):
        del federation.grid.sites[100 + client]
    assert federation.round() == (None, None)
    assert federation.strategy._server.records == ()


def test_nodes_that_are_not_enrolled_do_not_train(federation, caplog):
    def stranger(message):
        federation.stranger.append(message)
        return [(0.0, Message(RecordDict({}), reply_to=message))]

    federation.stranger = []
    federation.grid.sites[999] = stranger
    federation.round()
    assert federation.strategy._server.records[0].survivors == [0, 1, 2, 3, 4]
    assert not any(message.content.array_records for message in federation.stranger)


def test_the_mod_needs_no_torch(tmp_path):
    program = "import sys, json, flora_secure.engine.flower.sums.mod; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert json.loads(done.stdout) is False, done.stderr


def test_a_folder_is_of_one_budget(federation):
    federation.round()
    with pytest.raises(RunFolderError, match=r"was begun with clip_norm 1.0, and this is 2.0: go on as it began, or"):
        federation.made(clip_norm=2.0).start(federation.grid, model())


def test_arrays_keep_their_precision_and_order_and_must_be_there():
    before = {"b": np.zeros(3, np.float16), "steps": np.array(1), "a": np.ones((1, 2), np.float64)}
    summed = Summed.of(before, ("steps",))
    assert (summed.dimension, summed.kept) == (5, ("steps",))
    moved = summed.moved(before, np.arange(5.0))
    assert list(moved) == ["b", "steps", "a"]
    assert [array.dtype for array in moved.values()] == [array.dtype for array in before.values()]
    assert np.array_equal(summed.difference(moved, before), np.arange(5.0))
    with pytest.raises(DivergedError, match="array 'b' left the range of float16"):
        summed.moved(before, np.full(5, 1e6))
    with pytest.raises(ConfigError, match="lacks array 'a'"):
        summed.difference({"b": before["b"]}, before)
    with pytest.raises(ConfigError, match=r"array 'a' has shape \(2,\), and received it with \(1, 2\)"):
        summed.difference({**before, "a": np.ones(2)}, before)
    with pytest.raises(ConfigError, match="no array to sum"):
        Summed.of(before, ("*",))


def test_a_strategy_that_sends_sites_different_arrays_is_refused(tmp_path, monkeypatch):
    class Uneven(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            messages = list(super().configure_train(server_round, arrays, config, grid))
            messages[0].content = RecordDict({"arrays": model(1.0), "config": config})
            return messages

    federation = SumFederation(tmp_path, monkeypatch, Uneven())
    with pytest.raises(ConfigError, match="Uneven sends sites different arrays"):
        federation.round()


def test_a_mean_that_nobody_fetched_is_not_taken_for_a_later_rounds(federation):
    federation.strategy.configure_train(1, model(), ConfigRecord(), federation.grid)
    federation.grid.sites.clear()
    assert federation.round(2) == (None, None)


def test_metrics_of_an_earlier_round_are_not_used_again(federation):
    federation.apps[0].app = SiteApp(0, allow_metrics=("train-loss",)).app
    federation.round()
    assert set(federation.strategy._transport.metrics) == {0}
    federation.grid.dead.add(0)
    federation.round(2)
    assert federation.strategy._transport.metrics == {}


def test_evaluation_and_queries_pass_as_they_are(federation):
    message = Message(RecordDict({"arrays": model()}), 100, "evaluate")
    reply = federation.apps[0].app(message, context_of(federation.folder / "site0"))
    assert reply.content["metrics"]["accuracy"] == 0.5


def test_what_a_site_is_asked_in_a_sessions_first_round_and_in_later_ones(federation):
    """As docs/flower-secure-sum.md has it: once which site it is, then what the masking's trips are."""
    asked = []
    for number in (1, 2, 3):
        before = len(federation.grid.pushed)
        federation.round(number)
        asked.append((len(federation.grid.pushed) - before) / SITES)
    hybrid = federation.strategy._server._config.aggregation.suite == "x25519-mlkem768"
    assert asked == [1 + (3 if hybrid else 2) + 3, 3, 3]
