"""From the run's parameters to noise, grid and ring: the least modulus that costs at most 1 % of accuracy.

Given b, the finest grid (largest s) is taken whose sums stay inside the ring with the stated probability. The sum of n
uploads has in each coordinate a signal of at most S = n·s·c·peak_fraction, Gaussian noise of variance n·σ_loc² and n
independent rounding errors; it leaves the ring if noise and rounding pass t = 2^(b−1) − ½ − S. With a = t/(σ_loc·√n),
λ = φ(a)/Q(a)/(σ_loc·√n), concavity of log Q and the moments of a uniform variable give
P <= 2·Q(a)·exp(n·λ²/24)·e^η for a coordinate of a round, and T·d times that for the run
(docs/privacy/rounded-gaussian.md, section 5).
"""

from __future__ import annotations

import itertools
import math
import warnings

from .accounting import check_budget, epsilon_of, noise_multiplier_for
from .events import aliasing_exponent
from .plan import NoisePlan

ERROR_RATIO = 1.01  # of the released sum to plain Gaussian noise; what "within 1 %" means
MAX_SLACK = 1e-9  # κ above which aliasing is no longer negligible; z pays for this much, 2e-9 of ε and a 1e-9th of δ
NOISELESS_ERROR = 1e-3  # rounding error of a run without noise, as a fraction of c·√n
_MARGIN = 1e-9


class InfeasibleError(ValueError):
    """No grid and modulus satisfy the parameters; the message says which numbers clash and what to change."""


def calibrate(
    *,
    clients: int,
    dimension: int,
    rounds: int,
    epsilon: float,
    delta: float,
    clip_norm: float,
    dropout_tolerance: float = 0.1,
    colluders: int = 0,
    bits: int | None = None,
    max_bits: int = 32,
    peak_fraction: float = 1.0,
    overflow_probability: float = 1e-3,
) -> NoisePlan:
    """Solve for z, σ_loc, s and b, and verify the solution.

    Args:
        clients: n >= 2, all of whom take part in every round or drop out.
        dimension: d >= 1.
        rounds: T >= 1.
        epsilon: target > 0; math.inf for no noise.
        delta: target, between 0 and 1; from 1/clients upwards a warning is issued.
        clip_norm: c > 0, finite.
        dropout_tolerance: fraction of the clients, in [0, 1), that may drop out of a round; ⌊fraction·n⌋ clients. It
            costs 1/√(1 − fraction) in noise when nobody drops out.
        colluders: clients whose noise the server is assumed to know.
        bits: b in 8..32, or None for the least within ERROR_RATIO of a central Gaussian's error. A given b is accepted
            with a larger error (see `NoisePlan.error_ratio`) as long as aliasing stays negligible.
        max_bits: largest b considered when none is given.
        peak_fraction: in (0, 1]. The largest coordinate of the sum of clipped updates ÷ (n·c). The default is proven:
            it holds even if all updates agree and sit in one coordinate. A smaller value saves up to log2(1/fraction)
            bits but is an assumption, which `encoding.overflow_rate` watches during the run.
        overflow_probability: of any wrap in the whole run, in (0, 1); without noise there are none, and it is ignored.

    Raises:
        InfeasibleError: no b fits, or σ_loc is too small for the aliasing bound.
        ValueError: a parameter is out of range.
    """
    check_budget(epsilon, delta)
    for name, value, least in (("clients", clients, 2), ("dimension", dimension, 1), ("rounds", rounds, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 < clip_norm < math.inf:
        raise ValueError(f"clip_norm must be a finite number > 0, got {clip_norm!r}")
    if not 0 <= dropout_tolerance < 1:
        raise ValueError(f"dropout_tolerance must be in [0, 1), got {dropout_tolerance!r}")
    if not 0 < peak_fraction <= 1:
        raise ValueError(f"peak_fraction must be in (0, 1], got {peak_fraction!r}")
    if not 0 < overflow_probability < 1:
        raise ValueError(f"overflow_probability must lie between 0 and 1, got {overflow_probability!r}")
    for name, b in (("bits", 8 if bits is None else bits), ("max_bits", max_bits)):
        if not 8 <= b <= 32:
            raise ValueError(f"{name} must be in 8..32, got {b}")
    dropouts = math.floor(dropout_tolerance * clients + 1e-9)
    if colluders < 0 or clients - dropouts - colluders < 1:
        raise ValueError(
            f"{clients} clients less {dropouts} dropouts less {colluders} colluders leave nobody to add noise: "
            f"tolerate fewer"
        )
    if delta >= 1 / clients:
        warnings.warn(
            f"delta {delta:g} is not below 1/clients = {1 / clients:g}: it allows giving one client away entirely",
            stacklevel=2,
        )

    def plan(z: float, sigma: float, scale: float, b: int, overflow: float, slack: float, rounding: float) -> NoisePlan:
        return NoisePlan(
            clients=clients,
            dimension=dimension,
            rounds=rounds,
            epsilon=epsilon,
            delta=delta,
            clip_norm=clip_norm,
            dropouts=dropouts,
            colluders=colluders,
            noise_multiplier=z,
            sigma_local=sigma,
            scale=scale,
            bits=b,
            peak_fraction=peak_fraction,
            overflow_probability=overflow,
            aliasing_slack=slack,
            rounding_error=rounding,
        )

    candidates = range(8, max_bits + 1) if bits is None else (bits,)
    if epsilon == math.inf:
        for b in candidates:
            # Each of n rounded uploads errs by at most 1/2, so this scale cannot wrap.
            room = 2 ** (b - 1) - 1 - clients / 2
            scale = room / (clients * clip_norm * peak_fraction) * (1 - _MARGIN)
            rounding = math.sqrt(dimension / 12) / (scale * clip_norm) if scale > 0 else math.inf
            if rounding <= NOISELESS_ERROR or (bits is not None and scale > 0):
                return plan(0.0, 0.0, scale, b, 0.0, 0.0, rounding)
        raise InfeasibleError(
            f"{clients} clients' sums of {dimension} coordinates need more than {candidates[-1]} bits without noise: "
            f"allow more bits or take fewer clients"
        )

    if epsilon <= 1e3 * MAX_SLACK:
        raise InfeasibleError(f"epsilon {epsilon:g} is not far above the aliasing slack {MAX_SLACK:g}: allow more")
    honest = clients - dropouts - colluders
    z = noise_multiplier_for(epsilon - 2 * MAX_SLACK, delta * math.exp(-MAX_SLACK), rounds)
    per_scale = z * clip_norm / math.sqrt(honest)  # σ_loc ÷ s
    reach = clip_norm * peak_fraction
    sigma_least = _least_sigma(honest, MAX_SLACK / (rounds * dimension))
    if bits is None:
        sigma_least = max(sigma_least, 1 / math.sqrt(12 * (ERROR_RATIO**2 - 1)))
    scale_least = sigma_least / per_scale
    allowed = overflow_probability / (rounds * dimension)
    for b in candidates:
        if overflow_bound(b, clients, reach, per_scale, scale_least) > allowed:
            continue
        scale = _finest_scale(b, clients, reach, per_scale, scale_least, allowed)
        sigma = per_scale * scale
        overflow = rounds * dimension * overflow_bound(b, clients, reach, per_scale, scale)
        slack = rounds * dimension * aliasing_exponent(sigma, honest)
        solved = plan(z, sigma, scale, b, overflow, slack, 1 / (math.sqrt(12) * sigma))
        _verify(solved, overflow_probability)
        return solved
    needed = next(b for b in itertools.count(2) if overflow_bound(b, clients, reach, per_scale, scale_least) <= allowed)
    raise InfeasibleError(
        f"{clients} clients with {sigma_least:.3g} grid units of noise each (the least for "
        f"{'1 % of error' if bits is None else 'the aliasing bound'}) make sums of up to "
        f"{clients * reach * scale_least:.4g} plus noise of {sigma_least * math.sqrt(clients):.4g}: that needs "
        f"{needed} bits, more than {candidates[-1]}; allow them, or take a smaller epsilon, fewer clients or a "
        f"peak_fraction below {peak_fraction:g}"
    )


def overflow_bound(bits: int, clients: int, reach: float, per_scale: float, scale: float) -> float:
    """Bound on the probability that one coordinate of one sum wraps modulo 2^bits, all clients surviving.

    Args:
        reach: bound on one client's share of a coordinate of the sum, units of the update.
        per_scale: σ_loc ÷ s, units of the update, > 0.
        scale: s > 0.
    """
    sigma_local = per_scale * scale
    deviation = sigma_local * math.sqrt(clients)
    a = (2.0 ** (bits - 1) - 0.5 - clients * reach * scale) / deviation
    if a <= 0:
        return 1.0
    if a > 37:  # Q(a) underflows; 1e-300 is bound enough
        return 1e-300
    q = 0.5 * math.erfc(a / math.sqrt(2))
    slope = math.exp(-a * a / 2) / math.sqrt(2 * math.pi) / q / deviation
    exponent = clients * slope**2 / 24 + aliasing_exponent(sigma_local, clients)
    return min(1.0, 2 * q * math.exp(min(exponent, 700.0)))


def _finest_scale(bits: int, clients: int, reach: float, per_scale: float, least: float, allowed: float) -> float:
    """Largest s >= least, which is known to do, whose overflow bound is at most `allowed`."""
    low, high = least, (2.0 ** (bits - 1) - 0.5) / (clients * reach)
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if overflow_bound(bits, clients, reach, per_scale, middle) <= allowed:
            low = middle
        else:
            high = middle
    return low


def _least_sigma(honest: int, allowed: float) -> float:
    """Least σ_loc, to a thousandth, whose aliasing exponent is at most `allowed`."""
    low, high = 0.0, 1.0
    while aliasing_exponent(high, honest) > allowed:
        low, high = high, 2 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        if aliasing_exponent(middle, honest) <= allowed:
            high = middle
        else:
            low = middle
    return high


def _verify(plan: NoisePlan, overflow_allowed: float) -> None:
    """The constraints themselves, recomputed from the plan alone by the code that will count the run."""
    spent = epsilon_of(plan.worst_events(), plan.delta)
    if not spent <= plan.epsilon or not plan.overflow_probability <= overflow_allowed:
        raise AssertionError(
            f"solved plan misses its constraints: epsilon {spent:.12g} of {plan.epsilon:.12g}, overflow probability "
            f"{plan.overflow_probability:.3g} of {overflow_allowed:.3g}"
        )
