import math

import numpy as np
import pytest

from flora_secure.errors import DivergedError
from flora_secure.rounds.broadcast import from_wire, to_wire
from flora_secure.rounds.optimisers import (
    AdamAverage,
    MomentumAverage,
    ServerState,
    YogiAverage,
    adaptive_step,
    quiet_step,
)


def test_momentum_average_by_hand() -> None:
    optimiser = MomentumAverage(step=2.0, momentum=0.5)
    state = ServerState.initial(np.array([1.0, -1.0], np.float32))
    state = optimiser.apply(state, np.array([8.0, 0.0]), 2, 4.0)  # mean in clip norms: 1, 0
    np.testing.assert_allclose(state.adapter, [3.0, -1.0])
    state = optimiser.apply(state, np.array([8.0, 8.0]), 1, 4.0)  # mean 2, 2; momentum 2.5, 2
    np.testing.assert_allclose(state.adapter, [8.0, 3.0])


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

    The mean of 4,000 lengths has a standard error below 0.1 %, so that 4 % more never happens by chance (below 1e-100).
    """
    noise, turn = 0.05, 0.8
    optimiser = MomentumAverage(quiet_step(noise, rounds, momentum, width, math.inf, turn), momentum)
    state, rng = ServerState.initial(np.zeros(4000 * width, np.float32)), np.random.default_rng(7)
    for _ in range(rounds):
        state = optimiser.apply(state, noise * rng.standard_normal(4000 * width), 1, 1.0)
    moved = np.linalg.norm(state.adapter.reshape(-1, width), axis=1).mean()
    assert turn * (1 - 1 / (rounds * (1 - momentum))) - 0.04 * turn < moved < turn * 1.04


def test_the_quiet_step_is_the_longest_without_noise() -> None:
    assert quiet_step(0.0, 20, 0.8, 192, 0.4) == 0.4
    assert quiet_step(1e-9, 20, 0.8, 192, 0.4) == 0.4
    assert quiet_step(0.1, 20, 0.8, 192, 0.4) == pytest.approx(2 * quiet_step(0.2, 20, 0.8, 192, 0.4))


def _by_hand(kind: str, means: list[list[float]], step: float, beta1: float, beta2: float, tau: float) -> list[float]:
    """Algorithm 2 of Reddi et al. 2021, one coordinate and one line at a time."""
    x, m, v = [0.0] * len(means[0]), [0.0] * len(means[0]), [tau**2] * len(means[0])
    for mean in means:
        for j, delta in enumerate(mean):
            m[j] = beta1 * m[j] + (1 - beta1) * delta
            if kind == "adam":
                v[j] = beta2 * v[j] + (1 - beta2) * delta**2
            else:
                v[j] = v[j] - (1 - beta2) * delta**2 * (1 if v[j] > delta**2 else -1 if v[j] < delta**2 else 0)
            x[j] = x[j] + step * m[j] / (math.sqrt(v[j]) + tau)
    return x


@pytest.mark.parametrize(("kind", "optimiser"), [("adam", AdamAverage), ("yogi", YogiAverage)])
def test_adaptive_averages_follow_the_paper(kind: str, optimiser: type[AdamAverage] | type[YogiAverage]) -> None:
    means = np.random.default_rng(3).normal(0, [1e-3, 1.0, 30.0], (12, 3))
    state = ServerState.initial(np.zeros(3, np.float32))
    for mean in means:
        state = optimiser(0.1, 0.9, 0.95, 1e-2).apply(state, mean * 7 * 0.5, 7, 0.5)
    np.testing.assert_allclose(state.adapter, _by_hand(kind, means.tolist(), 0.1, 0.9, 0.95, 1e-2), rtol=1e-12)


@pytest.mark.parametrize("optimiser", [AdamAverage, YogiAverage])
@pytest.mark.parametrize("noise", [0.02, 5.0])
def test_an_adaptive_step_turns_embeddings_by_about_as_much_whatever_the_noise(
    optimiser: type[AdamAverage] | type[YogiAverage], noise: float
) -> None:
    """Within a factor of 3: the second moment is still warming up for most of so short a run."""
    rounds, width = 200, 64
    step, rng = adaptive_step(rounds, width, 0.8), np.random.default_rng(5)
    state = ServerState.initial(np.zeros(500 * width, np.float32))
    for _ in range(rounds):
        state = optimiser(step, 0.8).apply(state, noise * rng.standard_normal(500 * width), 1, 1.0)
    moved = np.linalg.norm(state.adapter.reshape(-1, width), axis=1).mean()
    assert 0.8 / 3 < moved < 0.8 * 3
