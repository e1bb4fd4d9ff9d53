"""The noise meter: it measures what is in a sum, and finds clients that add too little noise or do not clip."""

import dataclasses
import math
from unittest import mock

import numpy as np
import pytest
from falsifying import falsified, found, small
from studied import auditing_noise as study

from flora_secure.auditing import noise_meter
from flora_secure.auditing.findings import VIOLATION
from flora_secure.engine.evidence.noise_meter import claimed_deviation
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig
from flora_secure.planning.masking import settled
from flora_secure.privacy.rounded_gaussian import RowsOfNoise


def noisy(**changes: object) -> RunConfig:
    return settled(small(**{"aggregation__masking": "counted", "privacy__epsilon": 4.0, **changes}))


def measured(config: RunConfig, task: Task, broken: study.Broken | None = None):
    with study.audited(config, task, broken) as (case, _):
        return case, noise_meter.block(case)


MODES = {
    "fixed cohorts and dropouts": {},
    "not rotated": {"privacy__bits": 32},
    "the clip adapts": {"privacy__adaptive_clip": 0.5, "privacy__epsilon": 50.0},
    "cohorts": {"participation__rate": 0.5, "participation__sampling": "fixed", "aggregation__corrupt": 0.0},
    "malicious server, masked": {"aggregation__secagg": "malicious-server", "aggregation__masking": "run"},
    "no masks": {"aggregation__secagg": "off", "aggregation__masking": "run"},
    "examples": {"privacy__unit": "example"},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_the_noise_that_it_claims(digits: Task, mode: str) -> None:
    """The noise follows from the seed, so that the test passes or fails for good."""
    case, block = measured(noisy(**MODES[mode]), digits)
    assert [f.severity for f in block.findings] == ["ok", "ok"]
    (ratio,) = block.measurements
    assert ratio.low < ratio.value < ratio.high
    assert ratio.value == pytest.approx(1, abs=4 / math.sqrt(2 * sum(r.dimension for r in case.records)))
    assert not ratio.alarm


@pytest.mark.parametrize("kind", ["8 % of the noise missing", "clip off"])
def test_broken_clients_are_found_by_the_meter(digits: Task, kind: str) -> None:
    _, block = measured(noisy(training__rounds=8), digits, study.METER[kind])
    assert {f.check for f in block.findings if f.severity == VIOLATION} >= {"N-01"}
    assert block.measurements[0].alarm
    assert "times the claimed noise" in block.findings[0].evidence


class Rounding(RowsOfNoise):
    """A sampler that adds nothing and rounds as all do."""

    def sample(self, y, sigma: float):
        return np.floor(np.asarray(y) + 0.5).astype(np.int64)


@pytest.mark.parametrize("mode", ["fixed cohorts and dropouts", "the clip adapts", "examples"])
def test_what_is_left_of_a_sum_without_noise_is_rounding(digits: Task, mode: str) -> None:
    """The plain sum is exact in every coordinate, the count's among them: each upload is off by at most half a unit."""
    silent = mock.patch("flora_secure.client.upload.RowsOfNoise", Rounding)
    case, _ = measured(noisy(**MODES[mode]), digits, lambda plan: silent)
    for record in case.records:
        claimed = math.sqrt(len(record.survivors) * (record.sigma_local**2 + 1 / 12))
        left = record.noise_ratio * claimed / math.sqrt(len(record.survivors) / 12)
        assert 0 < left < 1.15


def test_the_claim_is_the_noise_of_all_survivors_rounded() -> None:
    plan = mock.Mock(sigma_local=0.5)
    assert claimed_deviation(plan, 12) == pytest.approx(2.0)


def test_a_run_without_noise_has_nothing_to_measure(digits: Task) -> None:
    case, block = measured(noisy(privacy__epsilon=math.inf), digits)
    assert [record.noise_ratio for record in case.records] == [None] * 3
    assert block.left_out == "the run claims no noise"


def test_false_alarms_are_what_is_said(digits: Task) -> None:
    """Ratios of Gaussian noise, 4000 times: at most 3.5 standard deviations more alarms than said."""
    case, block = measured(noisy(), digits)
    said, rng, alarms = block.measurements[0].false_alarm, np.random.default_rng(0), 0
    assert said == pytest.approx(0.00097 + 0.001, rel=0.1)
    for _ in range(4000):
        records = [
            dataclasses.replace(r, noise_ratio=math.sqrt(rng.chisquare(r.dimension) / r.dimension))
            for r in case.records
        ]
        alarms += noise_meter.block(dataclasses.replace(case, records=records)).measurements[0].alarm
    assert alarms <= 4000 * said + 3.5 * math.sqrt(4000 * said)


def test_one_round_that_is_off_among_many(digits: Task) -> None:
    case, _ = measured(noisy(), digits)
    size = case.records[0].dimension
    off = [dataclasses.replace(r, noise_ratio=1.0) for r in case.records]
    off[1] = dataclasses.replace(off[1], noise_ratio=1 + 6 / math.sqrt(2 * size))
    findings = {f.check: f for f in noise_meter.block(dataclasses.replace(case, records=off)).findings}
    assert findings["N-02"].severity == VIOLATION
    assert "round 2" in findings["N-02"].where


def test_a_log_with_half_the_noise_or_with_gaps(genuine, tmp_path) -> None:
    def half(lines, report) -> None:
        for line in lines:
            line["noise_ratio"] = 0.5

    def gap(lines, report) -> None:
        lines[0]["noise_ratio"] = None

    assert "0.5000 times the claimed noise" in found(falsified(genuine, tmp_path / "half", half))["N-01"]
    assert "N-03" in found(falsified(genuine, tmp_path / "gap", gap), "warning")


@pytest.mark.parametrize("ratio", [-1.0, 1e300])
def test_ratios_that_no_round_can_have(genuine, tmp_path, ratio: float) -> None:
    def odd(lines, report) -> None:
        lines[0]["noise_ratio"] = ratio

    assert "noise_ratio" in found(falsified(genuine, tmp_path / "run", odd))["A-07"]
