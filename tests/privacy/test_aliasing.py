"""What the privacy rests on, checked exactly in one dimension: docs/privacy/rounded-gaussian.md, theorems 2 and 3."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from scipy.special import ndtr

from flora_secure.privacy.events import aliasing_exponent

CTX = mpmath.MPContext()
CTX.dps = 60


def mass(y: float, sigma: float, reach: int) -> np.ndarray:
    """P(⌊y + σG + ½⌋ = k) for |k| <= reach, as multiple-precision numbers, small relative errors in the tails too."""

    def tail(t: mpmath.mpf) -> mpmath.mpf:
        return CTX.ncdf(-t)

    cells = []
    for k in range(-reach, reach + 1):
        a, b = (k - CTX.mpf(y) - 0.5) / sigma, (k - CTX.mpf(y) + 0.5) / sigma
        cells.append(tail(a) - tail(b) if a > 0 else tail(-b) - tail(-a))
    return np.array(cells)


def gaussian_with_uniforms(x: mpmath.mpf, sigma: float, h: int) -> mpmath.mpf:
    """Density at x of N(0, hσ²) plus h uniforms on [−½, ½]: h-th difference of the normal one's h-fold integral."""
    s = sigma * CTX.sqrt(h)

    def integral(t: mpmath.mpf) -> mpmath.mpf:
        below, here = CTX.npdf(t / s) / s, CTX.ncdf(t / s)
        for k in range(1, h):
            below, here = here, (t * here + s**2 * below) / k
        return here

    return sum((-1) ** j * CTX.binomial(h, j) * integral(x + CTX.mpf(h) / 2 - j) for j in range(h + 1))


@pytest.mark.parametrize(("sigma", "h"), [*itertools.product([0.45, 0.7, 1.0], range(2, 9)), (1.5, 2), (1.5, 3)])
def test_a_sum_of_shares_is_within_e_to_the_eta_of_the_continuous_curve(sigma: float, h: int) -> None:
    """Every integer to 8 deviations: the mass of the sum against the rounded Gaussian plus Irwin-Hall of h − 1."""
    y = np.random.default_rng(h).random(h).round(6)
    reach = math.ceil(9 * sigma * math.sqrt(h)) + 2
    total = mass(y[0], sigma, reach)
    for v in y[1:]:
        total = np.convolve(total, mass(v, sigma, reach))
    eta = aliasing_exponent(sigma, h)
    worst = 0.0
    for n in range(-math.ceil(8 * sigma * math.sqrt(h)), math.ceil(8 * sigma * math.sqrt(h)) + 1):
        curve = gaussian_with_uniforms(n - CTX.mpf(float(y.sum())), sigma, h)
        worst = max(worst, abs(float(CTX.log(total[n + h * reach] / curve))))
    assert worst <= eta


def test_the_bound_is_sharp_for_two_shares() -> None:
    """With 1.5 in the place of the 5 in η the claim would be false, so the check above can fail."""
    sigma, reach = 1.0, 12
    worst = 0.0
    for y in (0.0, 0.25, 0.5, 0.75):
        total = np.convolve(mass(y, sigma, reach), mass(y, sigma, reach))
        for n in range(-12, 13):
            curve = gaussian_with_uniforms(n - 2 * CTX.mpf(y), sigma, 2)
            worst = max(worst, abs(float(CTX.log(total[n + 2 * reach] / curve))))
    assert 0.3 * aliasing_exponent(sigma, 2) < worst <= aliasing_exponent(sigma, 2)


def gaussian_delta(epsilon: float, mu: float) -> float:
    return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu))


def discrete_mass(y: float, sigma: float, reach: int) -> np.ndarray:
    """The discrete Gaussian (Canonne, Kamath and Steinke, 2004.00010) about the integer y."""
    k = np.arange(-reach, reach + 1)
    weights = np.exp(-((k - y) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def worst_ratio(kind: str, sigma: float, h: int, shift: float, slack: float) -> float:
    """Largest δ(ε) ÷ (e^slack·δ_Gauss(ε − 2·slack)) over ε, one of h inputs moving by `shift`, by enumeration."""
    reach = math.ceil(9 * sigma) + 4

    def total(first: float) -> np.ndarray:
        if kind == "rounded":
            parts = [mass(first, sigma, reach).astype(float), *[mass(0.3, sigma, reach).astype(float)] * (h - 1)]
        else:
            parts = [discrete_mass(first, sigma, reach), *[discrete_mass(0.0, sigma, reach)] * (h - 1)]
        found = parts[0]
        for part in parts[1:]:
            found = np.convolve(found, part)
        return found

    p, q, mu = total(shift), total(0.0), shift / (sigma * math.sqrt(h))
    worst = 0.0
    for epsilon in np.linspace(2 * slack, mu * mu / 2 + 4 * mu, 120):
        bound = math.exp(slack) * gaussian_delta(epsilon - 2 * slack, mu)
        if bound > 1e-9:
            worst = max(worst, float(np.maximum(p - math.exp(epsilon) * q, 0).sum()) / bound)
    return worst


@pytest.mark.parametrize("h", [2, 3, 5, 8])
@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("shift", [0.5, 1.0, 2.7])
def test_delta_of_the_rounded_gaussian_stays_under_the_gaussian_curve(sigma: float, h: int, shift: float) -> None:
    assert worst_ratio("rounded", sigma, h, shift, aliasing_exponent(sigma, h)) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("sigma", "h", "excess"), [(1.0, 1, 1.8), (1.0, 2, 1.4), (1.0, 8, 1.09), (2.0, 1, 1.19), (2.0, 4, 1.045)]
)
def test_negative_control_the_discrete_gaussian_exceeds_the_gaussian_curve(sigma: float, h: int, excess: float) -> None:
    """The same check fails for a mechanism that needs an accounting of its own: it can tell the two apart."""
    assert worst_ratio("discrete", sigma, h, 1.0, 0.0) > excess


def test_eta_at_the_defaults_is_negligible_and_shrinks_with_sigma() -> None:
    assert aliasing_exponent(2.0, 100) == pytest.approx(4e-17, rel=0.15)
    assert 20 * 131072 * aliasing_exponent(2.0, 100) == pytest.approx(1e-10, rel=0.1)
    etas = [aliasing_exponent(s, 50) for s in (0.5, 1.0, 1.5, 2.0, 3.0)]
    assert etas == sorted(etas, reverse=True)
    assert aliasing_exponent(0.01, 1) == 0.0
    assert aliasing_exponent(0.4, 2) == math.inf
