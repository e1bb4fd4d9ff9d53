"""The bound on the chance that a sum wraps, against simulated and exact sums."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from flora_secure.privacy.overflow import RingLoad, overflow_bound
from flora_secure.privacy.rounded_gaussian import RoundedGaussian


def test_the_overflow_bound_holds_in_simulation() -> None:
    """20 shares whose signal leaves two deviations of room: they wrap often, less often than the bound, and near it."""
    n, sigma, d = 20, 2.1, 200_000
    reach = (2.0**7 - 0.5 - 2.0 * sigma * math.sqrt(n)) / n
    total = sum(RoundedGaussian(bytes([i]) * 32).sample(np.full(d, reach), sigma) for i in range(n))
    frequency = float(np.mean(total >= 2**7))  # at the end where the signal points; the bound counts both
    load = RingLoad(n, n * reach, 0.0, sigma, sigma * math.sqrt(n))
    assert frequency < overflow_bound(8, load, 1.0) < 3 * frequency


@pytest.mark.parametrize("sigma", [1.0, 2.036])
def test_the_overflow_bound_holds_exactly(sigma: float) -> None:
    """100 shares without signal, their mass function enumerated: the Gaussian tail is too small, the bound is not."""
    n, bits = 100, 8 if sigma > 2 else 7
    k = np.arange(-30, 31)
    share = ndtr(-(np.abs(k) - 0.5) / sigma) - ndtr(-(np.abs(k) + 0.5) / sigma)
    total = np.ones(1)
    for _ in range(n):
        total = np.convolve(total, share)
    cut = 2 ** (bits - 1)
    tail = float(total[30 * n + cut :].sum() + total[: 30 * n - cut].sum())
    assert tail <= overflow_bound(bits, RingLoad(n, 0.0, 0.0, sigma, sigma * math.sqrt(n)), 1.0) < 2 * tail
    assert tail > 1.2 * math.erfc((cut - 0.5) / (sigma * math.sqrt(n)) / math.sqrt(2))


@pytest.mark.parametrize(("spread", "bits"), [(0.5, 7), (1.0, 7), (4.0, 8), (100.0, 13), (1000.0, 16)])
def test_the_overflow_bound_holds_exactly_for_a_rotated_signal(spread: float, bits: int) -> None:
    """Noise N(0, 1), and a signal of 400 equal terms with random signs, enumerated; one rounding error beside them."""
    sigma, terms = 10.0, 400
    step = spread * sigma / math.sqrt(terms)
    signs = np.arange(-terms, terms + 1, 2)
    weights = np.array([math.comb(terms, (terms + k) // 2) / 2**terms for k in signs.tolist()])
    uniforms = np.linspace(-0.5, 0.5, 1001)
    cut = 2 ** (bits - 1) - 0.5
    exact = 2 * float(weights @ ndtr(-(cut - signs[:, None] * step - uniforms) / sigma).mean(axis=1))
    bound = overflow_bound(bits, RingLoad(1, 0.0, spread * sigma, sigma, sigma), 1.0)
    assert exact <= bound < 50 * exact
    assert overflow_bound(bits, RingLoad(1, 0.0, 0.0, sigma, sigma), 1.0) < exact  # which so has to count
