"""How likely a coordinate of a sum is to leave the ring Z_{2^b}, all clients surviving.

The coordinate holds a signal, Gaussian noise of deviation r and n independent rounding errors. It leaves the ring if
they pass t = 2^(b−1) − ½ − |bounded signal|. Let a = t/r, V the rounding errors (E e^{λV} <= e^{nλ²/24}), W the part of
the signal that random signs have made sub-Gaussian (E e^{λW} <= e^{λ²v²/2}), ρ = (n/12 + v²)/r². log Q lies below its
tangent at any a₀, m = φ(a₀)/Q(a₀) its slope, so P <= 2·Q(a₀)·exp(−m·(a − a₀) + m²ρ/2)·e^η; a₀ = a/(1 + ρ) is nearly
the best as long as the noise outweighs the rest. Where the signal does (ρ large), noise and all are taken as one
sub-Gaussian variable: P <= 2·exp(−a²/(2·(1 + ρ)))·e^η. Proof: docs/privacy/rounded-gaussian.md, section 5, and
docs/privacy/rotation.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flora_secure.privacy.events import aliasing_exponent

_FLOAT_ERROR = 1e-12  # of a rotated upload, relative to its norm, generously


@dataclass(frozen=True)
class RingLoad:
    """What a coordinate of a sum holds when the grid scale is 1; everything grows in proportion to the scale.

    Attributes:
        clients: n, uploads in the sum at most.
        reach: bound on the signal that always holds.
        spread: v, sub-Gaussian parameter of the signal under the rotation's signs; 0 without rotation.
        sigma_local: least standard deviation of one upload's noise.
        deviation: r, largest standard deviation of the noise in the sum.
    """

    clients: int
    reach: float
    spread: float
    sigma_local: float
    deviation: float


def overflow_bound(bits: int, load: RingLoad, scale: float) -> float:
    """Bound on the probability that one coordinate of one sum wraps modulo 2^bits at this grid scale, in [0, 1]."""
    deviation = load.deviation * scale
    room = 2.0 ** (bits - 1) - 0.5 - load.reach * scale - load.clients * load.spread * scale * _FLOAT_ERROR
    spread = (load.spread * scale) ** 2
    aliasing = aliasing_exponent(load.sigma_local * scale, load.clients)
    # the rounding errors as random variables, or, better for a few clients with little noise, as ½ at most each
    return min(
        _tail(room, deviation, spread + load.clients / 12, aliasing),
        _tail(room - load.clients / 2, deviation, spread, 0.0),
    )


def _tail(room: float, deviation: float, variance: float, log_factor: float) -> float:
    """Bound on P(|G + X| > room)·e^log_factor, G normal, X independent and sub-Gaussian with this variance proxy."""
    if room <= 0:
        return 1.0
    a, excess = room / deviation, variance / deviation**2
    tangent = a / (1 + excess)
    if tangent > 37:  # Q underflows beyond, and the bound for a tangent at 37 is below this
        return 1e-298
    q = 0.5 * math.erfc(tangent / math.sqrt(2))
    slope = math.exp(-tangent * tangent / 2) / math.sqrt(2 * math.pi) / q
    of_noise = 2 * q * math.exp(min(slope**2 * excess / 2 - slope * (a - tangent) + log_factor, 700.0))
    of_all = 2 * math.exp(min(-a * tangent / 2 + log_factor, 700.0))
    return min(1.0, of_noise, of_all)


def noiseless_scale(bits: int, load: RingLoad, allowed: float) -> float:
    """Largest scale at which the sum of n rounded uploads leaves the ring with probability at most `allowed`, <= 0 if
    there is none. Without spread that is never. Each rounding errs by at most ½."""
    room = 2.0 ** (bits - 1) - 1 - load.clients / 2
    return room / (load.reach + load.spread * (math.sqrt(2 * math.log(2 / allowed)) + load.clients * _FLOAT_ERROR))
