import math

import numpy as np
import pytest
from federations import small

from flora_secure.engine.simulation import Simulation
from flora_secure.errors import DivergedError
from flora_secure.rounds import step
from flora_secure.rounds.float16 import from_wire, to_wire
from flora_secure.rounds.optimiser import SERVER_STEP, MomentumAverage, ServerState, quiet_step


def test_momentum_average_by_hand() -> None:
    optimiser = MomentumAverage(step=2.0, momentum=0.5)
    state = ServerState.initial(np.array([1.0, -1.0], np.float32))
    state = optimiser.apply(state, np.array([8.0, 0.0]), 2, 4.0)  # mean in clip norms: 1, 0
    np.testing.assert_allclose(state.adapter, [3.0, -1.0])
    state = optimiser.apply(state, np.array([8.0, 8.0]), 1, 4.0)  # mean 2, 2; momentum 2.5, 2
    np.testing.assert_allclose(state.adapter, [8.0, 3.0])


def test_the_state_before_the_first_round_is_what_float16_holds() -> None:
    given = np.array([0.1, -3.3, 1e-7, 0.0], np.float32)
    adapter = ServerState.initial(given).adapter
    np.testing.assert_array_equal(adapter, given.astype(np.float16))
    assert to_wire(adapter) == to_wire(given.astype(np.float64))
    with pytest.raises(DivergedError):
        ServerState.initial(np.array([1e5], np.float32))


def test_without_momentum_nothing_of_a_round_stays_but_the_adapter() -> None:
    start = ServerState.initial(np.zeros(2, np.float32))
    after = MomentumAverage(step=2.0, momentum=0.0).apply(start, np.array([3.0, -3.0]), 1, 1.0)
    np.testing.assert_array_equal(after.adapter, [6.0, -6.0])
    assert not after.momentum.any()


def test_the_step_does_not_depend_on_the_clip_norm() -> None:
    start, total = ServerState.initial(np.zeros(3, np.float32)), np.array([1.0, 2.0, 3.0])
    optimiser = MomentumAverage(step=1.0, momentum=0.8)
    small, large = optimiser.apply(start, total, 5, 1.0), optimiser.apply(start, 10 * total, 5, 10.0)
    np.testing.assert_allclose(small.adapter, large.adapter)


def test_the_wire_carries_float16() -> None:
    values = np.array([0.0, 1.5, -2.25, 1e-3])
    message = to_wire(values)
    assert len(message) == 8
    np.testing.assert_allclose(from_wire(message, 4), values, rtol=1e-3)
    with pytest.raises(ValueError, match="takes 10 bytes, got 8"):
        from_wire(message, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_diverged_adapter_is_an_error_not_an_infinity(value: float) -> None:
    with pytest.raises(DivergedError, match="lower server_step"):
        to_wire(np.array([0.0, value]))


@pytest.mark.parametrize(("rounds", "momentum", "width"), [(30, 0.8, 192), (100, 0.0, 512)])
def test_the_quiet_step_turns_embeddings_as_far_as_it_says(rounds: int, momentum: float, width: int) -> None:
    """Noise alone through the optimiser; momentum's start takes at most 1 ÷ (rounds (1 - momentum)) of it.

    The mean of 1,000 lengths has a standard error below 0.2 %, so that 4 % more never happens by chance (below 1e-100).
    """
    noise, turn = 0.05, 0.8
    optimiser = MomentumAverage(quiet_step(noise, rounds, momentum, width, math.inf, turn), momentum)
    state, rng = ServerState.initial(np.zeros(1000 * width, np.float32)), np.random.default_rng(7)
    for _ in range(rounds):
        state = optimiser.apply(state, noise * rng.standard_normal(1000 * width), 1, 1.0)
    moved = np.linalg.norm(state.adapter.reshape(-1, width), axis=1).mean()
    assert turn * (1 - 1 / (rounds * (1 - momentum))) - 0.04 * turn < moved < turn * 1.04


def test_the_quiet_step_is_the_longest_without_noise() -> None:
    assert quiet_step(0.0, 20, 0.8, 192, 0.4) == 0.4
    assert quiet_step(1e-9, 20, 0.8, 192, 0.4) == 0.4
    assert quiet_step(0.1, 20, 0.8, 192, 0.4) == pytest.approx(2 * quiet_step(0.2, 20, 0.8, 192, 0.4))


def test_a_run_follows_the_paper_with_the_numbers_that_were_given(task, monkeypatch) -> None:
    means, read_sum = [], step.read_sum

    def seen(total, plan, scale, rotation):
        estimate = read_sum(total, plan, scale, rotation)
        means.append(estimate / (10 * plan.clip_norm))
        return estimate

    monkeypatch.setattr(step, "read_sum", seen)
    given = {"training__server_step": 0.02, "training__server_momentum": 0.6}
    simulation = Simulation(small(aggregation__secagg="off", **given), task)
    start = simulation.server.checkpoint().server.adapter
    assert len(list(simulation.rounds())) == len(means) == 3
    change = simulation.server.checkpoint().server.adapter - start
    first, second, third = np.array(means)[:, : len(change)]
    by_hand = 0.02 * (first * (1 + 0.6 + 0.36) + second * (1 + 0.6) + third)
    np.testing.assert_allclose(change, by_hand, rtol=1e-9, atol=1e-12)


def test_more_noise_makes_a_shorter_step_until_one_is_given(task) -> None:
    def optimiser(**changes: object) -> MomentumAverage:
        return Simulation(small(**changes), task).server.optimiser

    quiet, loud = optimiser(privacy__epsilon=4.0), optimiser(privacy__epsilon=1.0)
    assert loud.step < 0.4 * quiet.step < 0.4 * SERVER_STEP["client"]
    assert optimiser(privacy__epsilon=1.0, training__server_step=0.3) == MomentumAverage(0.3, 0.5)
