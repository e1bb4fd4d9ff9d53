import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flora_secure.privacy.clipping import NonFiniteUpdateError, clip

updates = hnp.arrays(
    np.float64,
    st.integers(1, 40),
    elements=st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.1, 1 / 3, -1e-300]),
)


def exact_square(x: np.ndarray) -> Fraction:
    return sum((Fraction(v) ** 2 for v in x.tolist()), Fraction(0))


@given(updates, st.floats(1e-3, 1e3), st.floats(1e-3, 1e6))
def test_norm_stays_within_the_ball_in_exact_arithmetic(x: np.ndarray, c: float, scale: float) -> None:
    clipped, _ = clip(x, c)
    assert exact_square(clipped) <= (Fraction(c) * (1 - Fraction(1, 2**51))) ** 2
    assert exact_square(clipped * scale) <= (Fraction(c) * Fraction(scale)) ** 2


@pytest.mark.parametrize("d", [3, 1000, 131072])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_long_update_stays_within_the_ball_and_loses_nothing_else(d: int, dtype: type) -> None:
    x = np.random.default_rng(d).normal(size=d).astype(dtype)
    clipped, raw = clip(x, 0.7)
    norm = math.sqrt(math.fsum(v * v for v in clipped.tolist()))
    assert 0.7 * (1 - (d + 40) * 2.0**-53) <= norm <= 0.7
    np.testing.assert_allclose(clipped * raw / 0.7, x, rtol=1e-9)
    assert raw == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-12)


@given(updates)
def test_an_update_inside_the_ball_is_unchanged_and_copied(x: np.ndarray) -> None:
    before = x.copy()
    clipped, raw = clip(x, max(float(np.linalg.norm(x)), 1.0) * 1.01)
    np.testing.assert_array_equal(clipped, before)
    clipped += 1
    np.testing.assert_array_equal(x, before)
    assert raw == pytest.approx(np.linalg.norm(before), rel=1e-12)


def test_extreme_magnitudes_neither_overflow_nor_vanish() -> None:
    big, raw = clip(np.array([3e300, 4e300]), 1.0)
    np.testing.assert_allclose(big, [0.6, 0.8], rtol=1e-12)
    assert raw == pytest.approx(5e300)
    small, raw = clip(np.array([3e-200, 4e-200]), 1.0)
    np.testing.assert_array_equal(small, [3e-200, 4e-200])
    assert raw == pytest.approx(5e-200)
    assert clip(np.zeros(3), 1.0)[1] == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_update_is_an_error_never_zeros(bad: float) -> None:
    with pytest.raises(NonFiniteUpdateError, match="1 of 4 coordinates"):
        clip(np.array([1.0, bad, 2.0, 3.0], dtype=np.float32), 1.0)


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf, 1e-310])
def test_a_bad_norm_is_refused(norm: float) -> None:
    with pytest.raises(ValueError, match="clip norm"):
        clip(np.ones(3), norm)


@pytest.mark.parametrize("shape", [(), (0,), (2, 2)])
def test_a_bad_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        clip(np.ones(shape), 1.0)
