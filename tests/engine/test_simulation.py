"""The loop end to end on real images: small federations of the digits data set and the embedded model."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
import torch
from command import ENVIRONMENT
from federations import finish, outcome, small, task_of
from peft import PeftModel

from flora_secure.engine.simulation import Simulation, without_noise
from flora_secure.engine.summary import summarise
from flora_secure.errors import ConfigError
from flora_secure.model.clip import class_prompts
from flora_secure.model.loading import load_clip
from flora_secure.planning.config import override
from flora_secure.privacy.accounting import epsilon_local, epsilon_of
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import json_schema
from flora_secure.records.report_table import rows
from flora_secure.rounds.broadcast import Form, Layout
from flora_secure.rounds.invitation import Invitation


def test_the_same_seed_gives_the_same_run(task) -> None:
    first, second = finish(small(), task), finish(small(), task)
    assert outcome(first) == outcome(second)
    assert torch.equal(first.factors.b, second.factors.b)


def test_another_seed_gives_other_noise(task) -> None:
    assert not torch.equal(finish(small(), task).factors.b, finish(small(seed=1), task).factors.b)


def test_without_simulation_noise_the_keys_come_from_the_os(task) -> None:
    secret = small(privacy__simulation_noise=False)
    secret = dataclasses.replace(secret, privacy=dataclasses.replace(secret.privacy, simulation_noise=False))
    first, second = finish(secret, task), finish(secret, task)
    assert not torch.equal(first.factors.b, second.factors.b)
    report = summarise(first, total_seconds=1.0)
    assert report.provenance.secret_noise
    assert not summarise(finish(small(), task), total_seconds=1.0).provenance.secret_noise


def test_masking_changes_no_bit_of_the_result(task) -> None:
    masked = finish(small(aggregation__dropout=0.2), task)
    plain = finish(small(aggregation__dropout=0.2, aggregation__secagg="off"), task)
    signed = finish(small(aggregation__dropout=0.2, aggregation__secagg="malicious-server"), task)
    assert torch.equal(masked.factors.b, plain.factors.b)
    assert torch.equal(masked.factors.b, signed.factors.b)
    assert [r.recovered for r in masked.records] == [2, 2, 2]
    assert [r.recovered for r in plain.records] == [0, 0, 0]


def test_epsilon_follows_from_the_survivors_in_the_log(task) -> None:
    simulation = finish(small(aggregation__dropout=0.1, privacy__dropout_tolerance=0.3), task)
    events = []
    for line in (json.loads(json.dumps(record.to_dict())) for record in simulation.records):
        assert len(line["survivors"]) == 9
        assert sorted(line["survivors"] + line["dropped"]) == line["participants"] == list(range(10))
        events.append(RoundRecord.from_dict(line).event())
        assert events[-1].survivors == 9
        assert line["noise_multiplier"] == events[-1].noise_multiplier
        assert line["epsilon"] == pytest.approx(epsilon_of(events, line["delta"]), rel=1e-12)
    assert tuple(events) == simulation.server.ledger.events
    report = summarise(simulation, total_seconds=1.0)
    assert report.privacy.epsilon == pytest.approx(epsilon_of(events, 1e-5), rel=1e-12)
    # nine survivors instead of the seven that the noise was sized for: less than the target is spent
    assert report.privacy.epsilon < 0.95 * 50


def test_rounds_with_too_few_survivors_abort_and_the_run_goes_on(task) -> None:
    simulation = finish(small(aggregation__dropout=0.5, privacy__dropout_tolerance=0.1), task)
    report = summarise(simulation, total_seconds=1.0)
    assert (report.aggregation.aborted, report.aggregation.lost) == ([1, 2, 3], [])
    assert dict(rows(report))["  aborted rounds"] == "1, 2, 3: no sum was released"
    assert report.aggregation.recovered == [0, 0, 0]
    assert report.privacy.epsilon == 0
    assert report.accuracy.final == report.accuracy.warm_start
    assert all("needed" in (record.aborted or "") for record in simulation.records)


def test_uploads_of_aborted_rounds_were_received_all_the_same(task) -> None:
    """Without masking the server has them singly, and the headline says so; a run that goes on knows them too."""
    config = small(aggregation__dropout=0.5, privacy__dropout_tolerance=0.1, aggregation__secagg="off")
    simulation = finish(config, task)
    assert [record.exposed for record in simulation.records] == [True] * 3
    events = [record.exposed_event() for record in simulation.records]
    report = summarise(simulation, total_seconds=1.0)
    assert report.aggregation.aborted == [1, 2, 3]
    assert report.privacy.epsilon == report.privacy.epsilon_local == pytest.approx(epsilon_local(events, 1e-5))
    assert report.privacy.epsilon > 50
    assert "SWITCHED OFF" in report.privacy.statement
    resumed = Simulation(config, task)
    resumed.server.restore(simulation.records, simulation.server.checkpoint())
    assert resumed.server.ledger.epsilon_local == simulation.server.ledger.epsilon_local
    with pytest.raises(ValueError, match="was aborted: it released nothing"):
        simulation.records[0].event()
    with pytest.raises(ValueError, match="was not aborted between uploads"):
        finish(small(), task).records[0].exposed_event()


def test_a_client_with_a_non_finite_update_drops_out(task, monkeypatch) -> None:
    simulation = Simulation(small(), task)
    train = task.learner.batch.train

    def broken(*arguments) -> torch.Tensor:
        updates = train(*arguments)
        updates[4, 0] = math.nan
        return updates

    monkeypatch.setattr(task.learner.batch, "train", broken)
    list(simulation.rounds())
    assert [record.dropped for record in simulation.records] == [[4], [4], [4]]
    assert torch.isfinite(simulation.factors.b).all()


def test_training_learns_and_noise_costs(task) -> None:
    config = small(training__rounds=10, data__clients=10)
    clean = without_noise(config, task)
    zero_shot = task.evaluator.accuracy(task.frozen)
    assert clean > zero_shot + 0.1
    drowned = finish(override(config, {"privacy.epsilon": 0.05}), task).records[-1].accuracy
    assert drowned < clean - 0.1


def test_no_noise_is_said_and_null(task) -> None:
    simulation = finish(small(privacy__epsilon=math.inf), task)
    report = summarise(simulation, total_seconds=1.0)
    assert report.privacy.epsilon is None
    assert report.privacy.cross_check == {}
    assert "NO DIFFERENTIAL PRIVACY" in report.privacy.statement
    assert "NO noise" in simulation.headline
    jsonschema.validate(json.loads(report.to_json()), json_schema())


def test_without_masking_the_server_sees_single_uploads_and_the_headline_says_so(task) -> None:
    off = summarise(finish(small(aggregation__secagg="off"), task), total_seconds=1.0).privacy
    on = summarise(finish(small(), task), total_seconds=1.0).privacy
    assert off.epsilon == off.epsilon_local == on.epsilon_local
    assert off.epsilon_outsider == on.epsilon
    assert off.epsilon > 2 * on.epsilon


def test_the_report_adds_up(task) -> None:
    simulation = finish(small(aggregation__dropout=0.2), task)
    report = summarise(simulation, total_seconds=1.0)
    jsonschema.validate(json.loads(report.to_json()), json_schema())
    comm = report.communication
    assert comm.upload_bytes + comm.download_bytes == pytest.approx(
        comm.payload_bytes + comm.invitation_bytes + comm.masking_bytes
    )
    # two of ten vanish each round, and are sent the long form again
    long, short = Invitation.sizes(10, "text-projection", "prompt-basis", masked=True)
    uploaded, sent = set[int](), list[int]()
    for record in simulation.records:
        sent += [short if client in uploaded else long for client in record.participants]
        uploaded = set(record.participants) - set(record.dropped)
    assert comm.invitation_bytes == pytest.approx(sum(sent) / len(sent))
    assert comm.reduction == pytest.approx(2 * comm.full_model_bytes / (comm.upload_bytes + comm.download_bytes))
    packed = -(-simulation.server.plan.length * comm.bits // 8)
    # the first adapter in float16, then sums: one for who uploaded in the round before, two for who did in the one
    # before that; the adapter of the first round and all sums for who never did
    layout = Layout(comm.parameters, simulation.server.plan.length, comm.bits)
    since, broadcasts = dict[int, int](), 0
    for record in simulation.records:
        for client in record.participants:
            begin = layout.size(Form.SUMS if client in since else Form.HALF)
            broadcasts += begin + (record.round - since.get(client, 1)) * layout.entry
        since |= dict.fromkeys(set(record.participants) - set(record.dropped), record.round)
    assert comm.broadcast_bytes == pytest.approx(broadcasts / len(sent))
    assert sum(record.broadcast_bytes for record in simulation.records) == broadcasts
    # b bits up, 20 % dropped
    assert comm.payload_bytes == pytest.approx(comm.broadcast_bytes + 0.8 * packed)
    assert comm.full_model_bytes == 4 * sum(p.numel() for p in task.clip.model.parameters())
    assert set(report.privacy.cross_check) == {"dp-accounting PLD", "dp-accounting RDP", "opacus PRV"}
    assert report.privacy.overflow_rate == 0


def test_the_saved_adapter_gives_the_same_predictions_through_peft(task, tmp_path) -> None:
    simulation = finish(small(), task)
    simulation.save_adapter(tmp_path)
    fresh = load_clip("tiny")
    loaded = PeftModel.from_pretrained(fresh.model, str(tmp_path))
    dataset = task.federation.dataset
    prompts = class_prompts(dataset.class_names, dataset.templates)
    with torch.no_grad():
        text = torch.stack([loaded.encode_text(fresh.tokenizer(group)).mean(0) for group in prompts])
    text = torch.nn.functional.normalize(text, dim=-1)
    expected, images = task.evaluator.test(simulation.factors)
    torch.testing.assert_close(text, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(task.evaluator.predicted(simulation.factors), (images @ text.T).argmax(1))


def test_each_round_of_an_alternating_rule_moves_the_factor_of_its_turn() -> None:
    """Along the mean of its clipped updates, without noise: B in round 1, A in round 2."""
    config = small(model__rule="alternate", training__rounds=2, privacy__epsilon=math.inf)
    task = task_of(config)
    simulation = Simulation(config, task)
    before = simulation.factors  # as the wire rounds them
    for number, _ in enumerate(simulation.rounds(), 1):
        rule, after = task.rule.of_round(number), simulation.factors
        updates = task.learner.train(rule, before, config.training.local_steps, rule.local_rate, range(10))
        clipped = updates * (config.clip_norm / updates.norm(dim=1, keepdim=True)).clamp(max=1)
        moved = after.vector(rule) - before.vector(rule)
        assert float(torch.nn.functional.cosine_similarity(clipped.mean(0), moved, dim=0)) > 0.99
        rested = ("a", "b")[number - 1]
        assert torch.equal(getattr(after, rested), getattr(before, rested))
        before = after


@pytest.mark.parametrize("rule", ["ab", "prompt-basis", "frozen-a", "alternate", "local-alternate"])
def test_every_rule_trains(rule) -> None:
    config = small(model__rule=rule, training__rounds=10, privacy__epsilon=math.inf)
    task = task_of(config)
    simulation = finish(config, task)
    assert simulation.records[-1].accuracy > task.evaluator.accuracy(task.initial) + 0.05
    assert np.isfinite(simulation.records[-1].accuracy)


@pytest.mark.parametrize("unit", ["client", "example"])
def test_alternation_moves_one_factor_a_round_under_noise_and_masking(coarse, unit) -> None:
    config = small(model__rule="alternate", privacy__unit=unit, privacy__epsilon=4.0)
    task = task_of(config)
    simulation = Simulation(config, task)
    before = simulation.factors
    for record in simulation.rounds():
        after = simulation.factors
        assert record.aborted is None
        assert torch.equal(after.a, before.a) == (record.round % 2 == 1)
        assert torch.equal(after.b, before.b) == (record.round % 2 == 0)
        before = after


def test_a_device_that_is_not_there_is_named() -> None:
    config = small(training__device="cuda:7")
    with pytest.raises(ConfigError, match="device 'cuda:7' is no device of this machine"):
        task_of(config)


def test_peak_memory_is_that_of_the_process_and_not_of_its_parent() -> None:
    program = "from flora_secure.engine.memory import peak_memory; held = b'x' * 60_000_000; print(peak_memory())"
    ballast = bytearray(os.urandom(1 << 20)) * 1536  # 1.5 GB, more than importing torch takes
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert 5e7 < int(done.stdout) < len(ballast)
