"""The comparison mechanisms: exact draws, bounds checked by enumeration, and what the default saves."""

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc, ive

from flora_bench import lattice_plan as lattice_plan_module
from flora_bench.lattice_noise import DiscreteGaussian, LatticeNoise, Skellam
from flora_bench.lattice_plan import REJECTION, lattice_plan, mechanism_rdp, rounded_norms
from flora_secure.errors import InfeasibleError
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.encoding import decode, encode
from flora_secure.privacy.rotation import Rotation

KEY = bytes(range(32))
BOTH = pytest.mark.parametrize("mechanism", [DiscreteGaussian, Skellam])
BASE: dict[str, Any] = {
    "clients": 100,
    "dimension": 131072,
    "rounds": 20,
    "epsilon": 4,
    "delta": 1e-5,
    "clip_norm": 1.0,
}


def mass(mechanism: type[LatticeNoise], sigma: float, reach: int) -> np.ndarray:
    """The mass function from another formula than the sampler's."""
    k = np.arange(-reach, reach + 1)
    if mechanism is Skellam:
        return ive(np.abs(k), sigma**2)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return weights / weights.sum()


@BOTH
@pytest.mark.parametrize("sigma", [0.5, 2.04, 30.0])
def test_mass_function(mechanism: type[LatticeNoise], sigma: float) -> None:
    """χ² over 400,000 draws: a correct sampler fails for 1 key in 10^5, and the key is fixed."""
    draws = mechanism(KEY, 1e9).sample(np.zeros(400_000), sigma)
    reach = math.ceil(9 * sigma) + 8
    expected = mass(mechanism, sigma, reach) * draws.size
    counts = np.bincount(draws + reach, minlength=2 * reach + 1)
    keep = expected >= 20
    rest = max(float(expected[~keep].sum()), 1e-9)
    statistic = float(np.sum((counts[keep] - expected[keep]) ** 2 / expected[keep]))
    statistic += (counts[~keep].sum() - rest) ** 2 / max(rest, 1.0)
    assert chdtrc(np.count_nonzero(keep), statistic) > 1e-5
    assert np.mean(draws) == pytest.approx(0, abs=5 * sigma / math.sqrt(draws.size))


@BOTH
def test_the_sampler_tells_the_two_apart(mechanism: type[LatticeNoise]) -> None:
    """The χ² against the other one's mass function fails at σ = 0.9, so it is no blank cheque."""
    other = Skellam if mechanism is DiscreteGaussian else DiscreteGaussian
    draws = mechanism(KEY, 1e9).sample(np.zeros(400_000), 0.9)
    expected = mass(other, 0.9, 3) * draws.size
    counts = np.bincount(np.clip(draws + 3, 0, 6), minlength=7)
    assert np.sum((counts - expected)[1:6] ** 2 / expected[1:6]) > 100


@BOTH
@pytest.mark.parametrize("sigma", [0.1, 1.3, 217.0])
def test_masses_to_sixty_digits(mechanism: type[LatticeNoise], sigma: float) -> None:
    ctx = mpmath.MPContext()
    ctx.dps = 70
    found = mechanism.masses(sigma)
    whole = 2 * ctx.fsum(found) - found[0]
    for k in (0, 1, 2, math.ceil(3 * sigma)):
        if mechanism is Skellam:
            exact = ctx.besseli(k, ctx.mpf(sigma) ** 2) * ctx.exp(-(ctx.mpf(sigma) ** 2))
        else:
            exact = ctx.exp(-(ctx.mpf(k) ** 2) / (2 * ctx.mpf(sigma) ** 2)) / ctx.jtheta(
                3, 0, ctx.exp(-1 / (2 * ctx.mpf(sigma) ** 2))
            )
        assert abs(found[k] / whole - exact) < ctx.mpf(10) ** -60


def keystream(number: int, length: int) -> bytes:
    nonce = number.to_bytes(8, "big") + bytes(8)
    return Cipher(algorithms.AES(KEY), modes.CTR(nonce)).encryptor().update(bytes(length))


@BOTH
def test_draws_follow_the_definition_on_every_platform(mechanism: type[LatticeNoise]) -> None:
    """The least k with F(k) > U, U the digits of the keystream, with F summed from mpmath's own functions."""
    sigma, ctx = 3.7, mpmath.MPContext()
    ctx.dps = 60
    words = np.frombuffer(keystream(0, 8 * 200), dtype="<u8")
    exact = [ctx.besseli(abs(k), ctx.mpf(sigma) ** 2) for k in range(-60, 61)]
    if mechanism is DiscreteGaussian:
        exact = [ctx.exp(-(ctx.mpf(k) ** 2) / (2 * ctx.mpf(sigma) ** 2)) for k in range(-60, 61)]
    whole, expected = ctx.fsum(exact), []
    for word in words.tolist():
        total, k = exact[0] / whole, -60
        while total <= ctx.mpf(word) / 2**64:
            k += 1
            total += exact[k + 60] / whole
        expected.append(k)
    assert mechanism(KEY, 1e9).sample(np.zeros(200), sigma).tolist() == expected


@BOTH
def test_a_draw_on_a_table_entry_is_decided_by_further_digits(
    mechanism: type[LatticeNoise], monkeypatch: pytest.MonkeyPatch
) -> None:
    sigma = 2.5
    reach, wide, narrow = mechanism._table(sigma)
    chosen = [reach - 4, reach, reach + 3]
    words = narrow[chosen]
    monkeypatch.setattr("flora_bench.lattice_noise._words", lambda stream, count: words)
    further = [int.from_bytes(keystream(2, 72)[24 * i : 24 * i + 24], "big") for i in range(3)]
    expected = [
        j - reach + (wide[j] <= (int(w) << 192 | f)) for j, w, f in zip(chosen, words.tolist(), further, strict=True)
    ]
    sampler = mechanism(KEY, 1e9)
    assert sampler._noise(3, sigma).tolist() == expected
    for bump, change in ((1, 1), (-1, 0)):  # a last digit more or less needs no further ones
        words = narrow[chosen] + np.uint64(1) if bump > 0 else narrow[chosen] - np.uint64(1)
        assert sampler._noise(3, sigma).tolist() == [j - reach + change for j in chosen]


@settings(max_examples=40)
@given(st.integers(1, 400), st.floats(0.01, 50), st.integers(0, 2**31))
def test_rounding_is_unbiased_within_its_cell_and_short(d: int, norm: float, seed: int) -> None:
    y = np.random.default_rng(seed).normal(size=d)
    y *= norm / np.linalg.norm(y)
    l2, l1 = rounded_norms(norm, d)
    rounded = DiscreteGaussian(seed.to_bytes(32, "big"), l2)._round(y)
    assert np.all(np.abs(rounded - y) < 1)
    assert np.linalg.norm(rounded) <= l2
    assert np.abs(rounded).sum() <= l1 * (1 + 1e-12)


def test_rounding_has_the_mean_of_what_is_rounded() -> None:
    y = np.tile([0.25, -0.75, 2.0, 1e-3], 50_000)
    means = DiscreteGaussian(KEY, 1e9)._round(y).reshape(-1, 4).mean(axis=0)
    np.testing.assert_allclose(means, [0.25, -0.75, 2.0, 1e-3], atol=5 * 0.5 / math.sqrt(50_000))


def test_a_vector_longer_than_promised_is_refused_and_rejections_are_rare() -> None:
    with pytest.raises(ValueError, match="no rounding has a norm of at most 3"):
        DiscreteGaussian(KEY, 3.0).sample(np.full(10, 5.0), 1.0)
    d, norm = 64, 2.0
    y = np.full(d, norm / math.sqrt(d))
    l2, _ = rounded_norms(norm, d)
    lengths = [np.linalg.norm(DiscreteGaussian(i.to_bytes(32, "big"), 1e9)._round(y)) for i in range(2000)]
    assert np.mean(np.array(lengths) > l2) <= 5e-3  # the promise is one in a million
    assert max(lengths) > norm * 1.5  # and the longer norm is needed


# The papers' Rényi bounds, against divergences by enumeration


def divergence(p: np.ndarray, shift: int, order: float) -> float:
    """D_α of the mass function p moved by `shift` against p itself."""
    moved, still = p[: p.size - shift], p[shift:]
    keep = (moved > 0) & (still > 0)
    logs = order * np.log(moved[keep]) + (1 - order) * np.log(still[keep])
    top = logs.max()
    return float(top + np.log(np.exp(logs - top).sum())) / (order - 1)


def total(mechanism: type[LatticeNoise], sigma: float, h: int) -> np.ndarray:
    reach = math.ceil(36 * sigma) + 40  # the divergence of order α looks α·shift away, 25 deviations at most below
    found = mass(mechanism, sigma, reach)
    for _ in range(h - 1):
        found = np.convolve(found, mass(mechanism, sigma, reach))
    return found[found > 1e-290]


@BOTH
@pytest.mark.parametrize("h", [1, 2, 5])
@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.5, 4.0])
@pytest.mark.parametrize("shift", [1, 3])
def test_renyi_bounds_hold_by_enumeration(mechanism: type[LatticeNoise], h: int, sigma: float, shift: int) -> None:
    p = total(mechanism, sigma, h)
    bounds = mechanism_rdp(mechanism, sigma, h, shift, shift, 1)
    orders = [order for order in (2, 3, 4, 8, 16) if order * shift <= 25 * sigma * math.sqrt(h)]
    for order in orders:
        at = list(lattice_plan_module._ORDERS).index(order)
        assert divergence(p, shift, order) <= bounds[at] * (1 + 1e-9) + 1e-12
    assert orders


def test_the_bounds_are_not_blank_cheques() -> None:
    """A tenth less noise than is there, or sums of discrete Gaussians taken for one, and the check above fails."""
    p, order = total(Skellam, 4.0, 1), 3
    assert divergence(p, 1, order) > 0.85 * mechanism_rdp(Skellam, 4.0, 1, 1.0, 1.0, 1)[1]
    assert divergence(p, 1, order) > mechanism_rdp(Skellam, 4.0 / 0.9, 1, 1.0, 1.0, 1)[1]
    assert divergence(total(DiscreteGaussian, 0.5, 2), 1, order) > 1.01 * order / 2 / (2 * 0.5**2)


@BOTH
@pytest.mark.parametrize("clients", [100, 1000])
def test_what_the_default_saves(mechanism: type[LatticeNoise], clients: int) -> None:
    """ε = 4, d = 131,072, T = 20: 7–12 % more noise at 16–20 bits, nothing valid below 14 bits; the default needs 8
    and 10 bits for 1 %."""
    for bits, least, most in ((16, 1.07, 1.12), (20, 1.06, 1.08)):
        p = lattice_plan(mechanism, **{**BASE, "clients": clients, "bits": bits})
        assert least < p.error_ratio < most
        assert 3.999 < p.epsilon <= 4
        assert p.noise.overflow_probability <= 0.01
    with pytest.raises(InfeasibleError, match="too much for 13 bits"):
        lattice_plan(mechanism, **{**BASE, "clients": clients, "bits": 13})
    assert lattice_plan(mechanism, **{**BASE, "clients": clients, "bits": 14}).error_ratio > 1.5
    default = calibrate(**{**BASE, "clients": clients})
    assert default.bits == (8 if clients == 100 else 10)
    assert default.error_ratio <= 1.01


@BOTH
def test_sums_decode_through_the_same_encoding(mechanism: type[LatticeNoise]) -> None:
    n, d = 20, 2000
    p = lattice_plan(mechanism, **{**BASE, "clients": n, "dimension": d, "bits": 16})
    turn = Rotation(d, 1, 1)
    x = np.random.default_rng(1).normal(size=d)
    ring = np.zeros(p.noise.length, dtype=np.uint32)
    for i in range(n):
        ring = (ring + encode(x, p.noise, p.sampler(bytes([i]) * 32), turn)) & np.uint32(2**16 - 1)
    error = decode(ring, p.noise, n, turn) - n * x / np.linalg.norm(x) * 1.0
    # 5 standard errors of a deviation over 2,000 coordinates; rounding may add less than the ¼ that it is counted for
    planned = math.sqrt(n * (p.noise.sigma_local**2 + 0.25)) / p.noise.scale
    assert np.std(error) == pytest.approx(planned, rel=0.08)
    z = calibrate(**{**BASE, "clients": n, "dimension": d}).noise_multiplier
    assert planned == pytest.approx(p.error_ratio * z * math.sqrt(n / 18), rel=1e-9)


def test_misuse_is_an_error_and_keys_stay_secret() -> None:
    sampler = Skellam(KEY, 10.0)
    assert KEY.hex() not in repr(sampler)
    sampler.sample(np.zeros(3), 1.0)
    with pytest.raises(RuntimeError, match="one key, one upload"):
        sampler.sample(np.zeros(3), 1.0)
    with pytest.raises(ValueError, match="32 bytes"):
        Skellam(b"short", 10.0)
    with pytest.raises(ValueError, match="norm"):
        Skellam(KEY, 0.0)
    for sigma in (0.0, math.nan, 1e6):
        with pytest.raises(ValueError, match="sigma"):
            Skellam(KEY, 10.0).sample(np.zeros(3), sigma)
    with pytest.raises(ValueError, match="NaN"):
        Skellam(KEY, 10.0).sample(np.array([math.nan]), 1.0)
    with pytest.raises(ValueError, match="finite"):
        lattice_plan(Skellam, **{**BASE, "epsilon": math.inf, "bits": 16})
    with pytest.raises(ValueError, match="bits"):
        lattice_plan(Skellam, **{**BASE, "bits": 7})
    with pytest.raises(ValueError, match="clip_norm"):
        lattice_plan(Skellam, **{**BASE, "clip_norm": 0.0, "bits": 16})
    with pytest.raises(TypeError, match="no accounting"):
        mechanism_rdp(LatticeNoise, 1.0, 1, 1.0, 1.0, 1)
    assert 0 < REJECTION < 1e-3
