"""Plans for the comparison mechanisms: what discrete Gaussian and Skellam noise cost where the default would do.

Both need the sensitivity of a *rounded* vector, longer than s·c by rounding, and Rényi accounting. A plan holds a
`NoisePlan`, so `encode` and `decode` work as for the default; budget and error are the mechanism's own.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from dp_accounting.rdp import compute_epsilon
from numpy.typing import NDArray

from flora_bench.lattice_noise import DiscreteGaussian, LatticeNoise, Skellam
from flora_secure.errors import InfeasibleError
from flora_secure.privacy.calibration import OVERFLOW_PROBABILITY, calibrate
from flora_secure.privacy.noise_plan import NoisePlan

REJECTION = 1e-6  # β: how often, at most, a rounding is repeated
_ORDERS = np.array([*range(2, 129), 256, 512])  # Skellam's bound holds for whole orders


@dataclass(frozen=True)
class LatticePlan:
    """The plan of a run with noise on a lattice, for comparison with ours.

    Attributes:
        mechanism: `DiscreteGaussian` or `Skellam`.
        noise: grid, ring and shares; its own `event`, `noise_multiplier` and `error_ratio` are the default mechanism's.
        l2, l1: sensitivities of a rounded upload, grid units.
        epsilon: of all rounds at `noise.honest_minimum`, by this mechanism's accounting; at most the target.
        error_ratio: root mean square error of the released sum ÷ that of a central Gaussian calibrated exactly, with
            the same tolerances.
    """

    mechanism: type[LatticeNoise]
    noise: NoisePlan
    l2: float
    l1: float
    epsilon: float
    error_ratio: float

    def sampler(self, key: bytes | None = None) -> LatticeNoise:
        """The sampler for one upload, as in `encode(update, plan.noise, plan.sampler(), rotation)`."""
        return self.mechanism(key, self.l2)


def lattice_plan(
    mechanism: type[LatticeNoise],
    *,
    clients: int,
    dimension: int,
    rounds: int,
    epsilon: float,
    delta: float,
    clip_norm: float,
    bits: int,
    dropout_tolerance: float = 0.1,
    colluders: int = 0,
    rotation: bool = True,
    overflow_probability: float = OVERFLOW_PROBABILITY,
) -> LatticePlan:
    """The finest grid that fits the ring at this modulus, with the least noise that the budget allows.

    Arguments as for `calibration.calibrate`; epsilon finite, full participation, peaks proven.

    Raises:
        InfeasibleError: the ring cannot hold the noise that rounding alone makes necessary.
        ValueError: a parameter is out of range.
    """
    if epsilon == math.inf:
        raise ValueError("without noise the mechanisms do not differ: epsilon must be finite")
    if not 8 <= bits <= 32:
        raise ValueError(f"bits must be in 8..32, got {bits}")
    default = calibrate(  # checks the parameters, and knows the central Gaussian's z
        clients=clients,
        dimension=dimension,
        rounds=rounds,
        epsilon=epsilon,
        delta=delta,
        clip_norm=clip_norm,
        dropout_tolerance=dropout_tolerance,
        colluders=colluders,
        rotation=rotation,
        overflow_probability=overflow_probability,
    )
    length, honest = default.length, default.honest_minimum
    spread = clients * clip_norm / math.sqrt(length) if rotation else 0.0
    reach = 0.0 if rotation else clients * clip_norm

    def share(scale: float) -> float:
        return _least_share(mechanism, scale * clip_norm, length, rounds, honest, epsilon, delta)

    def overflow(scale: float) -> float:
        room = 2.0 ** (bits - 1) - 1e-6 - reach * scale
        tail = _wrap_bound(mechanism, room, clients, share(scale), spread * scale)
        return rounds * length * tail * (1 - REJECTION) ** -clients

    low = 1e-6 / clip_norm
    if overflow(low) > overflow_probability:
        sigma = share(low)
        raise InfeasibleError(
            f"rounding {length} coordinates makes {sigma:.4g} grid units of {mechanism.name} noise a client necessary, "
            f"{sigma * math.sqrt(clients):.4g} in the sum: too much for {bits} bits; allow more"
        )
    high = 2.0**bits / clip_norm
    while high > low * (1 + 1e-6):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if overflow(middle) <= overflow_probability else (low, middle)
    sigma = share(low)
    l2, l1 = rounded_norms(low * clip_norm, length)
    central = default.noise_multiplier * clip_norm * math.sqrt(clients / honest)
    noise = dataclasses.replace(
        default,
        sigma_local=sigma,
        scale=low,
        bits=bits,
        overflow_probability=overflow(low),
        aliasing_slack=0.0,
        rounding_error=0.5 / sigma,
    )
    return LatticePlan(
        mechanism=mechanism,
        noise=noise,
        l2=l2,
        l1=l1,
        epsilon=lattice_epsilon(mechanism, sigma, honest, l2, l1, length, rounds, delta),
        error_ratio=math.sqrt(clients * (sigma**2 + 0.25)) / low / central,
    )


def rounded_norms(norm: float, length: int) -> tuple[float, float]:
    """Bounds on the L2 and L1 norm of a vector of `norm` after conditional stochastic rounding, grid units.

    Source: Kairouz, Liu and Steinke 2102.06387, theorem 1, with β = REJECTION. L1: integers, so |k| <= k².
    """
    root = math.sqrt(length)
    likely = norm**2 + length / 4 + math.sqrt(2 * math.log(1 / REJECTION)) * (norm + root / 2)
    l2 = math.sqrt(min(likely, (norm + root) ** 2))
    return l2, min(root * l2, l2**2)


def lattice_epsilon(
    mechanism: type[LatticeNoise],
    sigma: float,
    honest: int,
    l2: float,
    l1: float,
    length: int,
    rounds: int,
    delta: float,
) -> float:
    """ε at `delta` of `rounds` sums of `honest` shares, each of standard deviation sigma, zero-out adjacency."""
    rdp = rounds * mechanism_rdp(mechanism, sigma, honest, l2, l1, length)
    return float(compute_epsilon(_ORDERS, rdp, delta)[0])


def mechanism_rdp(
    mechanism: type[LatticeNoise], sigma: float, honest: int, l2: float, l1: float, length: int
) -> NDArray[np.float64]:
    """Rényi divergence bounds of one sum, at the orders 2…128, 256, 512.

    Sources: discrete Gaussian: Kairouz, Liu and Steinke 2102.06387, theorem 1 (½ε²-concentrated) and the term α·Δ²/2 +
    τ·d behind it. Skellam: Agarwal, Kairouz and Liu 2110.04995, corollary 4.1; sums of Skellam variables are Skellam.
    """
    if mechanism is DiscreteGaussian:
        k = np.arange(1, honest)
        tau = 10.0 * float(np.sum(np.exp(-2.0 * (math.pi * sigma) ** 2 * (k / (k + 1.0)))))
        moved = l2 / (math.sqrt(honest) * sigma)
        return np.minimum(_ORDERS / 2 * moved**2 + tau * length, _ORDERS / 2 * (moved + tau * math.sqrt(length)) ** 2)
    if mechanism is Skellam:
        mu = honest * sigma**2
        extra = np.minimum(((2 * _ORDERS - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
        return _ORDERS * l2**2 / (2 * mu) + extra
    raise TypeError(f"no accounting for {mechanism.__name__}")


def _least_share(
    mechanism: type[LatticeNoise], norm: float, length: int, rounds: int, honest: int, epsilon: float, delta: float
) -> float:
    l2, l1 = rounded_norms(norm, length)

    def spent(sigma: float) -> float:
        return lattice_epsilon(mechanism, sigma, honest, l2, l1, length, rounds, delta)

    low, high = 0.0, 1.0
    while spent(high) > epsilon:
        low, high = high, 2 * high
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
    return high


def _wrap_bound(mechanism: type[LatticeNoise], room: float, clients: int, sigma: float, spread: float) -> float:
    """Chernoff bound on |sum| > room: shares, rounding errors in [−1, 1] of width 1 (Hoeffding), rotated signal."""
    if room <= 0:
        return 1.0
    variance, others = clients * sigma**2, clients / 4 + spread**2
    if mechanism is DiscreteGaussian:  # sub-Gaussian (Canonne, Kamath and Steinke 2004.00010, lemma 25)
        return min(1.0, 2 * math.exp(-(room**2) / (2 * (variance + others))))

    def slope(rate: float) -> float:
        return variance * math.sinh(rate) + others * rate - room

    low, high = 0.0, min(room / (variance + others), 50.0)  # sinh(λ) >= λ: the root is below
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    exponent = variance * (math.cosh(low) - 1) + others * low**2 / 2 - low * room
    return min(1.0, 2 * math.exp(exponent))
