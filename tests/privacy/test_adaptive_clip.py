import math

import numpy as np
import pytest

from flora_secure.privacy.accounting import epsilon_of, gaussian_epsilon
from flora_secure.privacy.adaptive_clip import AdaptiveClip, default_count_noise, within
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.cross_check import CLOSED_FORM, PLD, PRV, cross_check
from flora_secure.privacy.encoding import decode, decode_count, encode
from flora_secure.privacy.ledger import Ledger
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rotation import Rotation
from flora_secure.privacy.rounded_gaussian import RoundedGaussian


def plan(clients: int = 100, rounds: int = 20, count_noise: float | None = 5.0) -> NoisePlan:
    return calibrate(
        clients=clients, dimension=64, rounds=rounds, epsilon=4, delta=1e-5, clip_norm=1.0, count_noise=count_noise
    )


def test_the_step_of_the_paper() -> None:
    rule = AdaptiveClip()
    assert rule.next_norm(2.0, 50.0, 100) == 2.0
    assert rule.next_norm(2.0, 100.0, 100) == pytest.approx(2.0 * math.exp(-0.1))
    assert rule.next_norm(2.0, 0.0, 100) == pytest.approx(2.0 * math.exp(0.1))
    assert rule.next_norm(2.0, -10.0, 100) > rule.next_norm(2.0, 0.0, 100)
    assert AdaptiveClip(quantile=0.9, rate=1.0).next_norm(3.0, 40.0, 50) == pytest.approx(3.0 * math.exp(0.1))
    assert rule.next_norm(1e10, -1e9, 1) == 1e10
    assert rule.next_norm(1e-10, 1e9, 1) == 1e-10


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("first", [0.01, 30.0])
def test_it_settles_at_the_quantile(quantile: float, first: float) -> None:
    """Log-normal norms and the paper's noise, 1,000 clients: within a tenth of the quantile after 60 rounds."""
    rng, rule, c = np.random.default_rng(1), AdaptiveClip(quantile=quantile, rate=0.5), first
    for _ in range(60):
        norms = rng.lognormal(mean=1.0, sigma=0.4, size=1000)
        c = rule.next_norm(c, np.count_nonzero(norms <= c) + 50 * rng.normal(), 1000)
    norms = rng.lognormal(mean=1.0, sigma=0.4, size=10**6)
    assert c == pytest.approx(np.quantile(norms, quantile), rel=0.1)


@pytest.mark.parametrize("survivors", [90, 97])
def test_count_and_update_cost_what_two_gaussian_releases_cost(survivors: int) -> None:
    """Closed form, PLD and PRV of the joint event against the update and the count as rounds of their own."""
    p = plan()
    events = [p.event(t, survivors) for t in range(1, 21)]
    share = p.sigma_local * math.sqrt(survivors)
    z_update = share / (p.scale * p.clip_norm)
    z_count = share / (p.count_scale / 2)  # sensitivity ½
    assert z_count == pytest.approx(2 * 5.0 * math.sqrt(survivors / 90))
    apart = gaussian_epsilon(math.sqrt(20 * (z_update**-2 + z_count**-2)), 1e-5)
    found = cross_check(events, 1e-5)
    assert found[CLOSED_FORM] == epsilon_of(events, 1e-5) == pytest.approx(apart, rel=1e-9)
    assert found[PLD] == pytest.approx(apart, abs=1e-3)
    assert found[PRV] == pytest.approx(apart, abs=0.02)
    assert found[CLOSED_FORM] <= 4
    without = gaussian_epsilon(math.sqrt(20) / z_update, 1e-5)
    assert without < apart - 0.05  # a ledger that forgot the count would claim this


def test_the_updates_noise_grows_as_little_as_the_paper_says() -> None:
    """σ_b = n/20 = 5 at z = 4.84 for 20 rounds: √(1/(1 − (z/2σ_b)²)) is 14 % more; with 1,000 clients 0.1 %."""
    for clients, growth in ((100, 1.143), (1000, 1.0012)):
        fixed, adaptive = (plan(clients, count_noise=noise) for noise in (None, default_count_noise(clients)))
        noise = [p.sigma_local / p.scale for p in (adaptive, fixed)]
        assert noise[0] / noise[1] == pytest.approx(growth, rel=2e-3)


def test_a_run_through_ledger_encoding_and_ring() -> None:
    """As the module's docstring has it, with norms about 5 and a first clip norm of 1."""
    clients, rounds, d = 100, 15, 64
    p, rule = plan(clients, rounds), AdaptiveClip(rate=1.0)
    ledger, c, norms = Ledger(4, 1e-5), p.clip_norm, []
    rng = np.random.default_rng(0)
    for t in range(1, rounds + 1):
        of_round = p.with_clip(c)
        ledger.authorise(of_round.event(t, of_round.survivors_minimum))
        turn = Rotation(d, 0, t) if p.rotated else None
        xs = rng.normal(size=(clients, d))
        xs *= (rng.uniform(4, 6, clients) / np.linalg.norm(xs, axis=1))[:, None]
        ring = np.zeros(p.length, dtype=np.uint32)
        for i, x in enumerate(xs):
            sampler = RoundedGaussian((1000 * t + i).to_bytes(32, "big"))
            ring = (ring + encode(x, of_round, sampler, turn, below=within(x, c))) & np.uint32(2**p.bits - 1)
        ledger.record(of_round.event(t, clients))
        estimate = decode(ring, of_round, clients, turn)
        clipped = xs * np.minimum(1, c / np.linalg.norm(xs, axis=1))[:, None]
        noise = p.sigma_local * math.sqrt(clients) / of_round.scale
        assert np.linalg.norm(estimate - clipped.sum(axis=0)) < 1.6 * noise * math.sqrt(d)
        c = rule.next_norm(c, decode_count(ring, of_round, clients), clients)
        norms.append(c)
    assert norms[0] == pytest.approx(math.exp(0.5), rel=0.25)
    assert 4 < np.mean(norms[6:]) < 6
    assert ledger.epsilon <= 4
    assert ledger.mu == pytest.approx(math.sqrt(rounds) / p.event(1, clients).noise_multiplier, rel=1e-9)


def test_the_bit() -> None:
    assert within(np.array([3.0, 4.0]), 5.0)
    assert not within(np.array([3.0, 4.0]), 4.999)
    assert within(np.zeros(3, dtype=np.float32), 1e-9)
    assert not within(np.array([math.nan]), 1.0)


def test_bad_input_is_named() -> None:
    for bad in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="quantile"):
            AdaptiveClip(quantile=bad)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="rate"):
            AdaptiveClip(rate=bad)
    for arguments in ((0.0, 1.0, 1), (math.nan, 1.0, 1), (1.0, math.nan, 1), (1.0, 1.0, 0)):
        with pytest.raises(ValueError, match="expected"):
            AdaptiveClip().next_norm(*arguments)
    with pytest.raises(ValueError, match="clients must be at least 1"):
        default_count_noise(0)
