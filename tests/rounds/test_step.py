"""The server optimiser of a run: what the configuration says is what the adapter has gone through."""

import numpy as np
import pytest
from federations import small

from flora_secure.engine import simulation as loop
from flora_secure.engine.simulation import Simulation
from flora_secure.rounds.optimisers import AdamAverage, MomentumAverage, YogiAverage, adaptive_step
from flora_secure.rounds.step import SERVER_STEP


def moved(kind: str, means: np.ndarray, step: float, beta1: float, beta2: float, tau: float) -> np.ndarray:
    """Algorithm 2 of arXiv 2003.00295 over means (rounds, d)."""
    x, m, v = np.zeros(means.shape[1]), np.zeros(means.shape[1]), np.full(means.shape[1], tau**2)
    for mean in means:
        m = beta1 * m + (1 - beta1) * mean
        change = mean**2 - v if kind == "adam" else mean**2 * np.sign(mean**2 - v)
        v = v + (1 - beta2) * change
        x = x + step * m / (np.sqrt(v) + tau)
    return x


@pytest.mark.parametrize("kind", ["adam", "yogi"])
def test_a_run_follows_the_paper_with_the_numbers_that_were_given(task, monkeypatch, kind) -> None:
    means, decode = [], loop.decode

    def seen(total, plan, survivors, rotation):
        estimate = decode(total, plan, survivors, rotation)
        means.append(estimate / (survivors * plan.clip_norm))
        return estimate

    monkeypatch.setattr(loop, "decode", seen)
    given = {"training__server_step": 0.02, "training__server_momentum": 0.6}
    given |= {"training__server_beta2": 0.7, "training__server_tau": 0.03}
    simulation = Simulation(small(training__server_optimiser=kind, aggregation__secagg="off", **given), task)
    start = simulation.server.checkpoint().server.adapter
    assert len(list(simulation.rounds())) == len(means) == 3
    change = simulation.server.checkpoint().server.adapter - start
    rows = np.array(means)[:, : len(change)]
    np.testing.assert_allclose(change, moved(kind, rows, 0.02, 0.6, 0.7, 0.03), rtol=1e-9, atol=1e-12)
    for other in (moved(kind, rows, 0.02, 0.6, 0.99, 0.03), moved(kind, rows, 0.02, 0.6, 0.7, 1e-3)):
        assert np.abs(change - other).max() > 1e-3


@pytest.mark.parametrize(("kind", "average"), [("adam", AdamAverage), ("yogi", YogiAverage)])
def test_what_is_not_given_stays_at_its_default(task, kind, average) -> None:
    step = adaptive_step(3, task.frame.width)
    optimiser = Simulation(small(training__server_optimiser=kind), task).server.optimiser
    assert optimiser == average(step, 0.5, 0.99, 1e-3)
    changed = small(training__server_optimiser=kind, training__server_tau=0.1)
    assert Simulation(changed, task).server.optimiser == average(step, 0.5, 0.99, 0.1)


def test_more_noise_makes_a_shorter_step_until_one_is_given(task) -> None:
    def optimiser(**changes: object) -> MomentumAverage:
        found = Simulation(small(**changes), task).server.optimiser
        assert isinstance(found, MomentumAverage)
        return found

    quiet, loud = optimiser(privacy__epsilon=4.0), optimiser(privacy__epsilon=1.0)
    assert loud.step < 0.4 * quiet.step < 0.4 * SERVER_STEP["client"]
    assert optimiser(privacy__epsilon=1.0, training__server_step=0.3) == MomentumAverage(0.3, 0.5)
