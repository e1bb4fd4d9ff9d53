"""Updates weighted by examples: what leaves a site, how long it is, and the mean that comes of it."""

import math

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict
from sum_sites import CLIP, SITES, SumFederation, numbers, update_of

from flora_secure.engine.flower.sums.wire import SETTINGS, Settings, without_metrics
from flora_secure.engine.flower.wire import unpacked
from flora_secure.errors import ConfigError, ForeignError
from flora_secure.flower import ByExamples
from flora_secure.rounds.reply import decode_reply

NORM = 1.0
WEIGHTS = np.array([0.25, 0.5, 0.75, 1.0, 1.0])  # of 10, 20, 30, 40, 50 examples with at most 40


@pytest.fixture
def federation(tmp_path, monkeypatch):
    return SumFederation(tmp_path, monkeypatch, epsilon=100.0, weights=ByExamples(most=40, norm=NORM))


def test_the_weighted_mean_comes_back(federation):
    arrays, _ = federation.round()
    contributions = np.array([given for given, _ in federation.given])
    updates = np.array([update_of(client) for client in range(SITES)])
    assert np.allclose(contributions[:, :-1], WEIGHTS[:, None] * updates, atol=1e-6)
    assert np.allclose(contributions[:, -1], WEIGHTS * NORM)
    total = federation.mean(range(SITES)) * SITES  # what the server reads, with its noise
    weight = total[-1] / NORM
    assert 0.1 * SITES < weight < SITES
    assert np.allclose(numbers(arrays), total[:-1] / weight, atol=1e-6)
    deviation = federation.strategy._weights.deviation(federation.strategy._server.plan)
    assert abs(weight - WEIGHTS.sum()) < 6 * deviation


def test_noise_is_counted_for_the_update_and_its_weight_together(federation):
    for app in federation.apps.values():
        app.update = app.update * 1000
    federation.round()
    plan = federation.strategy._server.plan
    assert plan.clip_norm == pytest.approx(math.hypot(CLIP, NORM))
    assert plan.event(1, SITES).sensitivity == pytest.approx(plan.scale * math.hypot(CLIP, NORM))
    for (contribution, _), weight in zip(federation.given, WEIGHTS, strict=True):
        assert np.linalg.norm(contribution) <= math.hypot(CLIP, NORM) * (1 + 1e-9)
        assert np.linalg.norm(contribution[:-1]) == pytest.approx(weight * CLIP)


@pytest.mark.parametrize("examples", [None, 0, -5, math.nan])
def test_a_site_without_a_number_of_examples_leaves_the_round(federation, examples):
    if examples is None:
        del federation.apps[4].metrics["num-examples"]
    else:
        federation.apps[4].metrics["num-examples"] = examples
    federation.round()
    assert federation.strategy._server.records[0].survivors == [0, 1, 2, 3]


def test_the_number_of_examples_does_not_leave(federation):
    seen = []
    federation.grid.spoil = lambda client, message, reply: seen.append(repr(reply.content)) or reply
    federation.round()
    assert not [text for text in seen if "num-examples" in text]


def test_weights_that_noise_would_drown_are_refused(tmp_path, monkeypatch):
    federation = SumFederation(tmp_path, monkeypatch, epsilon=1.0, weights=ByExamples(most=40, norm=NORM))
    with pytest.raises(ConfigError, match=r"the weights' sum is at most 5, and its noise would be .*leave them out"):
        federation.round()


@pytest.mark.parametrize(("reads", "used"), [(-3.0, 0.5), (0.2, 0.5), (3.0, 3.0), (9.0, 5.0)])
def test_a_sum_of_weights_that_cannot_be_is_held_to_what_can(federation, reads, used):
    federation.round()
    said = []
    total = np.append(np.ones(64), reads * NORM)
    mean = federation.strategy._weights.mean(total, SITES, federation.strategy._server.plan, said.append)
    assert mean == pytest.approx(np.full(64, 1 / used))
    assert bool(said) == (reads != used)


@pytest.mark.parametrize("more", [{"most": 0}, {"most": 1.5}, {"norm": 0.0}, {"norm": math.inf}, {"key": ""}])
def test_weights_that_cannot_be_are_refused(more):
    with pytest.raises(ConfigError):
        ByExamples(**{"most": 10, "norm": 1.0, **more})


def test_a_weight_as_long_as_the_whole_upload_is_refused(federation):
    asked, codes = federation.grid.asked, []

    def spoilt(client, message):
        if not message.content.array_records:
            return asked(client, message)
        settings = Settings(examples="num-examples", most=40, weight_norm=50.0).record()
        content = RecordDict({**dict(message.content.items()), SETTINGS: settings})
        reply = asked(client, Message(metadata=message.metadata, content=content))
        codes.append(decode_reply(without_metrics(unpacked(reply))[0]).code)
        return reply

    federation.grid.asked = spoilt
    assert federation.round() == (None, None)
    assert codes == ["plan"] * SITES


@pytest.mark.parametrize(
    "change",
    [
        {"kept": "bias"},
        {"kept": [1]},
        {"examples": 1},
        {"most": 0},
        {"most": 1.5},
        {"weight-norm": -1.0},
        {"weight-norm": math.inf},
        {"examples": ""},
        {"more": 1},
    ],
)
def test_settings_that_are_none_are_refused(change):
    table = {"kept": ["bias"], "examples": "num-examples", "most": 40, "weight-norm": 1.0}
    assert Settings.of(RecordDict({SETTINGS: ConfigRecord(table)})) == Settings(("bias",), "num-examples", 40, 1.0)
    with pytest.raises(ForeignError):
        Settings.of(RecordDict({SETTINGS: ConfigRecord({**table, **change})}))
