import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from flora_secure.privacy.clipping import clip
from flora_secure.privacy.rotation import Rotation, hadamard_transform, padded

ORDERS = [1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 80, 128, 192, 320, 512]


def matrix(order: int, **how: bool) -> np.ndarray:
    return np.array([hadamard_transform(e, **how) for e in np.eye(order)]).T


@pytest.mark.parametrize("order", ORDERS)
def test_the_transform_is_a_hadamard_matrix_and_its_transpose(order: int) -> None:
    h = matrix(order)
    assert set(np.abs(h).ravel().tolist()) == {1.0}
    np.testing.assert_array_equal(h @ h.T, order * np.eye(order))
    np.testing.assert_array_equal(matrix(order, transpose=True), h.T)
    if order & (order - 1) == 0:
        np.testing.assert_array_equal(h, hadamard(order))


def test_padding_is_the_least_order_at_hand() -> None:
    orders = sorted({m << k for m in (1, 12, 20) for k in range(20)})
    assert [padded(d) for d in range(1, 5000)] == [next(n for n in orders if n >= d) for d in range(1, 5000)]
    assert padded(2560) == 2560
    assert padded(131_072) == 131_072
    assert max(padded(d) / d for d in range(30, 5000)) < 4 / 3
    with pytest.raises(ValueError, match="at least 1"):
        padded(0)


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**128 - 1), st.integers(1, 1000), st.floats(1e-6, 1e6))
def test_it_is_inverted_and_keeps_the_norm(d: int, seed: int, number: int, size: float) -> None:
    x = np.random.default_rng(d).normal(size=d) * size
    rotation = Rotation(d, seed, number)
    rotated = rotation.forward(x)
    assert rotated.shape == (padded(d),)
    np.testing.assert_allclose(rotation.inverse(rotated), x, rtol=0, atol=1e-14 * size * math.sqrt(d) + 1e-300)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(x), rel=1e-13)


@pytest.mark.parametrize("d", [7, 1000, 2560, 131_072])
def test_the_clip_holds_exactly_after_the_rotation_and_costs_nothing(d: int) -> None:
    """The norm of what is rounded, in rational arithmetic: the sensitivity is s·c and no rounding error more."""
    c, scale = 0.3, 7.77
    x, _ = clip(np.random.default_rng(d).normal(size=d), c)
    rotated = Rotation(d, 5, 1).forward(x)
    clipped, _ = clip(rotated, c)
    square = sum(Fraction(v) ** 2 for v in (clipped * scale).tolist())
    assert square <= (Fraction(c) * Fraction(scale)) ** 2
    np.testing.assert_allclose(clipped, rotated, rtol=1e-10)


def test_known_signs() -> None:
    """Every platform must agree: SHAKE-256 of label, seed 7 and round 3, its bits in order."""
    rotation = Rotation(16, 7, 3)
    signs = [int(np.sign(rotation.inverse(hadamard_transform(e))[i])) for i, e in enumerate(np.eye(16))]
    message = b"flora-secure rotation 1" + bytes(15) + b"\x07" + bytes(7) + b"\x03"
    octets = hashlib.shake_256(message).digest(2)
    assert signs == [1 - 2 * (octets[i // 8] >> i % 8 & 1) for i in range(16)]
    assert octets.hex() == "4e87"


def test_rounds_and_seeds_have_their_own_signs() -> None:
    x = np.ones(4096)
    first = Rotation(4096, 1, 1).forward(x)
    for other in (Rotation(4096, 1, 2), Rotation(4096, 2, 1)):
        # independent signs: a correlation of deviation 1/64
        assert abs(float(first @ other.forward(x))) / 4096 < 5 / 64
    np.testing.assert_array_equal(first, Rotation(4096, 1, 1).forward(x))


@pytest.mark.parametrize("kind", ["spike", "constant", "half", "random"])
def test_no_coordinate_stands_out(kind: str) -> None:
    """P(|coordinate| > u) <= 2·exp(−u²·d'/2) for a unit vector: with 400 rotations of 4096 coordinates no frequency
    passes its bound by 5 standard errors, and without rotation a spike would be at 1."""
    d, u = 4096, 2.5 / 64
    x = {
        "spike": np.eye(1, d, 17)[0],
        "constant": np.full(d, 1 / 64),
        "half": np.repeat([1.0, 0.0], d // 2) / math.sqrt(d / 2),
        "random": np.random.default_rng(0).normal(size=d) / 64 / 1.05,
    }[kind]
    seen = np.array([np.mean(np.abs(Rotation(d, 9, t).forward(x)) > u) for t in range(1, 401)])
    bound = 2 * math.exp(-(2.5**2) / 2)
    assert seen.mean() <= bound + 5 * seen.std() / 20
    assert kind == "spike" or seen.mean() > 0.09 * bound  # it is not a blank cheque


def test_bad_arguments_are_named() -> None:
    for seed, number in ((-1, 1), (2**128, 1), (0, 0)):
        with pytest.raises(ValueError, match="seeds are"):
            Rotation(8, seed, number)
    with pytest.raises(ValueError, match=r"shape \(12,\)"):
        Rotation(9, 0, 1).inverse(np.zeros(9))
    with pytest.raises(ValueError):
        Rotation(9, 0, 1).forward(np.zeros(12))
