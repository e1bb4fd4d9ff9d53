import numpy as np
import pytest

from flora_secure.server import DivergedError, MomentumAverage, ServerState, from_wire, to_wire


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
