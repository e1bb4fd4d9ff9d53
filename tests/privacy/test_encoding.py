import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.clipping import NonFiniteUpdateError, clip
from flora_secure.privacy.encoding import decode, decode_count, encode, overflow_rate, wrapped
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rotation import Rotation
from flora_secure.privacy.rounded_gaussian import RoundedGaussian


def plan(clients: int = 20, dimension: int = 50, epsilon: float = 4.0, **more: Any) -> NoisePlan:
    more = {"rotation": False, "dropout_tolerance": 0.5, **more}
    return calibrate(
        clients=clients,
        dimension=dimension,
        rounds=5,
        epsilon=epsilon,
        delta=1e-5,
        clip_norm=1.5,
        **more,
    )


def key(i: int) -> bytes:
    return i.to_bytes(32, "big")


def ring_sum(uploads: list[np.ndarray], p: NoisePlan) -> np.ndarray:
    total = np.zeros(p.length, dtype=np.uint32)
    for upload in uploads:
        assert upload.dtype == np.uint32
        assert upload.max() < 1 << p.bits
        total = (total + upload) & np.uint32((1 << p.bits) - 1)
    return total


class Spy:
    """The same noise, and what it was asked for."""

    def __init__(self, i: int) -> None:
        self.inner = RoundedGaussian(key(i))

    def sample(self, y: Any, sigma: float) -> np.ndarray:
        self.y, self.sigma = y, sigma
        self.q = self.inner.sample(y, sigma)
        return self.q


@settings(max_examples=40)
@given(st.integers(10, 20), st.floats(0.01, 20), st.integers(0, 2**31))
def test_without_noise_a_sum_decodes_to_the_sum_of_clipped_updates(survivors: int, size: float, seed: int) -> None:
    p = plan(epsilon=math.inf)
    xs = np.random.default_rng(seed).normal(size=(survivors, 50)) * size
    decoded = decode(ring_sum([encode(x, p, None) for x in xs], p), p, survivors)
    exact = sum(clip(x, 1.5)[0] for x in xs)
    assert np.abs(decoded - exact).max() <= survivors * 0.5 / p.scale * (1 + 1e-9)
    assert np.linalg.norm(decoded - exact) <= 3e-3 * 1.5 * math.sqrt(20)


@pytest.mark.parametrize("spike", [1.0, -1.0])
def test_the_worst_sum_without_noise_does_not_wrap(spike: float) -> None:
    p = plan(epsilon=math.inf)
    x = np.zeros(50)
    x[7] = 100.0 * spike
    decoded = decode(ring_sum([encode(x, p, None)] * 20, p), p, 20)
    assert decoded[7] == pytest.approx(20 * 1.5 * spike, abs=10 / p.scale)
    assert np.count_nonzero(decoded) == 1


@pytest.mark.parametrize("spike", [1.0, -1.0])
@pytest.mark.parametrize("survivors", [10, 20])
def test_with_noise_a_sum_decodes_to_the_integers_that_were_added(survivors: int, spike: float) -> None:
    """All clients agree on one spike, the worst case of the headroom; noise is drawn for 10,000 coordinates."""
    p = plan(dimension=10_000)
    x = np.full(10_000, 1e-4)
    x[3] = spike * 9
    spies = [Spy(i) for i in range(survivors)]
    decoded = decode(ring_sum([encode(x, p, s) for s in spies], p), p, survivors)
    np.testing.assert_array_equal(np.rint(decoded * p.scale).astype(int), sum(s.q for s in spies))
    error = decoded - sum(clip(x, 1.5)[0] for _ in spies)
    expected = math.sqrt(survivors * (p.sigma_local**2 + 1 / 12)) / p.scale
    assert np.std(error) == pytest.approx(expected, rel=0.03)  # 4 standard errors of a deviation over 10,000 draws
    assert abs(np.mean(error)) < 4 * expected / 100
    assert all(s.sigma == p.sigma_local for s in spies)
    assert all(math.fsum(v * v for v in s.y.tolist()) <= (p.scale * 1.5) ** 2 for s in spies)


def rotated(clients: int = 20, dimension: int = 2000, **more: Any) -> tuple[NoisePlan, Rotation]:
    return plan(clients, dimension, rotation=True, **more), Rotation(dimension, 11, 1)


ADVERSARIAL = {
    "all equal": lambda d: np.full(d, 1e3),
    "one spike": lambda d: np.eye(1, d, d // 3)[0] * 1e3,
    "alternating": lambda d: (-1.0) ** np.arange(d),
    "half": lambda d: np.repeat([1.0, 0.0], [d // 2, d - d // 2]),
    "small": lambda d: np.full(d, 1e-9),
}


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("clients", [20, 60])
def test_headroom_holds_for_the_worst_updates(clients: int, rotation: bool, kind: str) -> None:
    """Every client sends the same vector, chosen without knowing the signs: nothing wraps, though a plan allows it in
    1 of 1,000 runs. Decoded, it is the sum of the clipped updates and noise of the planned size."""
    d = 2000
    p = plan(clients, d, rotation=rotation, dropout_tolerance=0.1, overflow_probability=1e-3)
    turn = Rotation(d, 3, 1) if rotation else None
    x = ADVERSARIAL[kind](d)
    spies = [Spy(i) for i in range(clients)]
    uploads = [encode(x, p, spy, turn) for spy in spies]
    total = ring_sum(uploads, p)
    assert wrapped(total, uploads, p) == 0
    error = decode(total, p, clients, turn) - clients * clip(x, 1.5)[0]
    expected = math.sqrt(clients * (p.sigma_local**2 + 1 / 12)) / p.scale
    assert np.std(error) == pytest.approx(expected, rel=0.08)  # 5 standard errors of a deviation over 2,000 draws
    assert abs(np.mean(error)) < 5 * expected / math.sqrt(d)
    # what was rounded: norms in the ball, to the last bit
    assert all(math.fsum(v * v for v in s.y.tolist()) <= (p.scale * 1.5) ** 2 for s in spies)


class Stretching(Rotation):
    """A rotation with a rounding error far beyond float64's."""

    def forward(self, update: Any) -> np.ndarray:
        return super().forward(update) * (1 + 1e-6)


def test_the_clip_holds_after_the_rotation_whatever_it_rounds() -> None:
    p, _ = rotated(dimension=500)
    spy = Spy(0)
    encode(np.ones(500), p, spy, Stretching(500, 1, 1))
    assert sum(Fraction(v) ** 2 for v in spy.y.tolist()) <= (Fraction(p.scale) * Fraction(p.upload_norm)) ** 2


def test_a_rotation_needs_the_bits_that_it_saves() -> None:
    """The same modulus and grid without the rotation: a common spike leaves the ring. So the test above can fail."""
    p, turn = rotated(60, dropout_tolerance=0.1)
    x = ADVERSARIAL["one spike"](2000)
    flat = dataclasses.replace(p, rotated=False)
    uploads = [encode(x, flat, RoundedGaussian(key(i))) for i in range(60)]
    assert wrapped(ring_sum(uploads, flat), uploads, flat) > 0
    turned = [encode(x, p, RoundedGaussian(key(i)), turn) for i in range(60)]
    assert wrapped(ring_sum(turned, p), turned, p) == 0


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(2, 12), st.integers(0, 2**31), st.sampled_from([math.inf, 4.0]))
def test_rotated_sums_decode_to_the_sum_of_clipped_updates(d: int, clients: int, seed: int, epsilon: float) -> None:
    p, turn = rotated(clients, d, epsilon=epsilon)
    assert p.length >= d
    xs = np.random.default_rng(seed).normal(size=(clients, d))
    spies = [Spy(i) if p.noisy else None for i in range(clients)]
    total = ring_sum([encode(x, p, spy, turn) for x, spy in zip(xs, spies, strict=True)], p)
    found = decode(total, p, clients, turn)
    assert found.shape == (d,)
    if p.noisy:  # the integers that were added, turned back
        grid = sum(spy.q for spy in spies if spy is not None)
        np.testing.assert_allclose(found, turn.inverse(grid / p.scale), atol=1e-12)
    else:
        exact = sum(clip(x, 1.5)[0] for x in xs)
        assert np.linalg.norm(found - exact) <= 0.5 * clients * math.sqrt(p.length) / p.scale * (1 + 1e-9)


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("yes", [0, 7, 40])
def test_the_count_travels_beside_the_update(yes: int, rotation: bool) -> None:
    p = plan(40, 300, rotation=rotation, dropout_tolerance=0.1, count_noise=4.0)
    turn = Rotation(300, 1, 1) if rotation else None
    x = np.random.default_rng(2).normal(size=300)
    counts, errors = [], []
    for trial in range(40):
        uploads = [encode(x, p, RoundedGaussian(key(1000 * trial + i)), turn, below=i < yes) for i in range(40)]
        total = ring_sum(uploads, p)
        counts.append(decode_count(total, p, 40))
        errors.append(decode(total, p, 40, turn) - 40 * clip(x, 1.5)[0])
    deviation = math.sqrt(p.sigma_local**2 + 1 / 12) * math.sqrt(40) / p.count_scale
    assert deviation == pytest.approx(4.0 * math.sqrt(40 / 36), rel=0.02)
    assert np.mean(counts) == pytest.approx(yes, abs=5 * deviation / math.sqrt(40))
    assert np.std(counts) == pytest.approx(deviation, rel=5 / math.sqrt(80))
    assert np.std(errors) == pytest.approx(math.sqrt(40 * (p.sigma_local**2 + 1 / 12)) / p.scale, rel=0.03)


def test_the_bit_moves_an_upload_by_exactly_half_its_scale() -> None:
    p = plan(100, 4096, dropout_tolerance=0.1, count_noise=5.0, rotation=True)
    assert p.count_coordinates > 1
    turn, spies = Rotation(4096, 1, 1), [Spy(0), Spy(0)]
    for spy, below in zip(spies, (True, False), strict=True):
        encode(np.zeros(4096), p, spy, turn, below=below)
    for spy in spies:
        assert sum(Fraction(v) ** 2 for v in spy.y.tolist()) == (Fraction(p.count_scale) / 2) ** 2
    np.testing.assert_array_equal(spies[0].y, -spies[1].y)


def test_a_whole_upload_may_be_longer_than_the_clip_norm() -> None:
    """Unit example: the sum of many clipped gradients, cut to upload_norm as a whole."""
    p = plan(20, 100, upload_norm=30.0, sampling_rate=0.5)
    spy = Spy(1)
    encode(np.full(100, 1e9), p, spy)
    assert math.sqrt(math.fsum(v * v for v in spy.y.tolist())) == pytest.approx(p.scale * 30.0, rel=1e-12)


def test_wraps_are_as_rare_as_planned_and_the_estimate_covers_them() -> None:
    """A plan that allows a wrap in every second run, at the worst signal: seen frequency below the bound."""
    p = plan(dimension=4000, overflow_probability=0.5)
    assert p.overflow_probability == pytest.approx(0.5, rel=1e-6)
    spike = np.full(4000, 1.5 / math.sqrt(4000))
    wraps = 0
    for trial in range(20):
        spies = [Spy(1000 * trial + i) for i in range(20)]
        total = ring_sum([encode(spike, p, s) for s in spies], p)
        exact = sum(s.q for s in spies)
        wraps += np.count_nonzero(np.rint(decode(total, p, 20) * p.scale).astype(int) != exact)
    assert wraps <= 5


@pytest.mark.parametrize("room", [3.0, 1.0, 0.0])
def test_the_overflow_estimate_is_above_the_true_rate(room: float) -> None:
    """Signals `room` deviations inside the ring's edge, on a plan whose assumption about peaks is wrong."""
    p = plan(dimension=20_000, peak_fraction=0.2)
    deviation = p.sigma_local * math.sqrt(20)
    level = (2 ** (p.bits - 1) - room * deviation) / 20
    draws = [RoundedGaussian(key(i)).sample(np.full(20_000, level), p.sigma_local) for i in range(20)]
    total = ring_sum([(q & ((1 << p.bits) - 1)).astype(np.uint32) for q in draws], p)
    truth = float(np.mean(np.abs(sum(draws) + 0.5) > 2 ** (p.bits - 1)))
    estimate = overflow_rate(total, p, 20)
    assert truth > 0
    assert truth < estimate < 30 * truth
    calm = ring_sum([encode(np.zeros(20_000), p, RoundedGaussian(key(i))) for i in range(20)], p)
    assert overflow_rate(calm, p, 20) < 1e-3


def test_the_overflow_rate_is_zero_without_noise() -> None:
    p = plan(epsilon=math.inf)
    assert overflow_rate(np.full(50, 2 ** (p.bits - 1), dtype=np.uint32), p, 20) == 0.0


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_every_ring_value_decodes_to_its_centred_representative(bits: int) -> None:
    p = plan(clients=2, dimension=5, bits=bits)
    ring = np.array([0, 1, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits) - 1], dtype=np.uint32)
    expected = [0, 1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), -1]
    np.testing.assert_allclose(decode(ring, p, 2) * p.scale, expected, rtol=1e-15)


def test_bad_updates_and_samplers_are_refused() -> None:
    p, silent = plan(), plan(epsilon=math.inf)
    bad = np.zeros(50)
    bad[3] = math.nan
    with pytest.raises(NonFiniteUpdateError):
        encode(bad, p, RoundedGaussian())
    with pytest.raises(ValueError, match=r"shape \(50,\), got \(49,\)"):
        encode(np.zeros(49), p, RoundedGaussian())
    with pytest.raises(ValueError, match="epsilon is 4: pass a noise sampler"):
        encode(np.zeros(50), p, None)
    with pytest.raises(ValueError, match="epsilon is inf: pass no sampler"):
        encode(np.zeros(50), silent, RoundedGaussian())
    turning, turn = rotated(dimension=50)
    with pytest.raises(ValueError, match="pass the round's rotation"):
        encode(np.zeros(50), turning, RoundedGaussian())
    with pytest.raises(ValueError, match="does not rotate"):
        encode(np.zeros(50), p, RoundedGaussian(), turn)
    with pytest.raises(ValueError, match="rotation of 51 coordinates for updates of 50"):
        encode(np.zeros(50), turning, RoundedGaussian(), Rotation(51, 0, 1))
    with pytest.raises(ValueError, match="if and only if"):
        encode(np.zeros(50), p, RoundedGaussian(), below=True)
    with pytest.raises(ValueError, match="if and only if"):
        encode(np.zeros(50), plan(count_noise=8.0), RoundedGaussian())


def test_bad_sums_are_refused() -> None:
    p = plan()
    good = np.zeros(50, dtype=np.uint32)
    with pytest.raises(ValueError, match="9 survivors; the plan holds for 10 to 20"):
        decode(good, p, 9)
    with pytest.raises(ValueError, match="21 survivors"):
        decode(good, p, 21)
    with pytest.raises(ValueError, match="uint32"):
        decode(good.astype(np.int64), p, 20)
    with pytest.raises(ValueError, match=r"shape \(50,\)"):
        decode(good[:-1], p, 20)
    with pytest.raises(ValueError, match=f"not below 2\\^{p.bits}"):
        decode(good + np.uint32(1 << p.bits), p, 20)
    turning, turn = rotated(dimension=50)
    with pytest.raises(ValueError, match="pass the round's rotation"):
        decode(np.zeros(turning.length, dtype=np.uint32), turning, 20)
    with pytest.raises(ValueError, match="does not rotate"):
        decode(good, p, 20, turn)
    with pytest.raises(ValueError, match="no count"):
        decode_count(good, p, 20)
