"""How events are counted.

Rounds with noise multipliers z_t compose, adaptively, to one Gaussian mechanism with μ² = Σ 1/z_t² (Dong, Roth and Su,
1905.02383, corollary 3.3), whose exact ε(δ) is Balle and Wang's (1805.06530, theorem 8), computed by dp-accounting.
The aliasing slack κ = Σ κ_t of rounding before summing enters as δ(ε) <= e^κ·δ_Gauss(ε − 2κ). Rounds whose examples
were sampled with secret coins (unit `example`) have no closed form; `amplification` counts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import dp_accounting

from flora_secure.privacy.amplification import (
    CALIBRATION_CELL,
    REPORT_CELL,
    cohort_epsilon,
    counts_of,
    poisson_epsilon,
    poisson_noise_multiplier,
)
from flora_secure.privacy.events import RoundEvent, require_whole

# z is larger by this fraction, so that the tolerance of root finding, 1e-12, cannot carry a planned run over its budget
_MARGIN = 1e-9


def check_budget(epsilon: float, delta: float) -> None:
    """ValueError unless epsilon > 0 (infinity allowed) and 0 < delta < 1."""
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0 (or inf for no privacy), got {epsilon!r}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, got {delta!r}; below 1/clients is usual")


def default_delta(clients: int) -> float:
    """δ when none is asked for: min(1e-5, clients^-1.1), less than giving one client away at random would be."""
    require_whole("clients", clients, 1)
    return float(min(1e-5, clients**-1.1))


def noise_multiplier_for(epsilon: float, delta: float, rounds: int, sampling_rate: float = 1.0) -> float:
    """The least z for which `rounds` Gaussian releases are (epsilon, delta)-DP. 0 for epsilon = inf.

    Args:
        epsilon: > 0. delta: between 0 and 1.
        rounds: >= 1, that one unit takes part in.
        sampling_rate: q in (0, 1], for secret Poisson sampling of the unit in each of them (unit `example`). Below 1
            privacy loss distributions are searched, about a second; at 1 the closed form takes a millisecond.

    Raises:
        ValueError: a parameter is out of range.
    """
    check_budget(epsilon, delta)
    require_whole("rounds", rounds, 1)
    if not 0 < sampling_rate <= 1:
        raise ValueError(f"sampling_rate must be in (0, 1], got {sampling_rate!r}")
    if epsilon == math.inf:
        return 0.0
    if sampling_rate < 1:
        return poisson_noise_multiplier(epsilon, delta, rounds, sampling_rate)
    return float(dp_accounting.get_sigma_gaussian(epsilon, delta)) * math.sqrt(rounds) * (1 + _MARGIN)


def epsilon_for(noise_multiplier: float, delta: float, rounds: int, sampling_rate: float = 1.0) -> float:
    """The ε that `rounds` releases with this z cost: the inverse of `noise_multiplier_for`, same arguments and errors.

    Raises ValueError for z <= 0 too: no noise has no finite ε.
    """
    if not 0 < noise_multiplier < math.inf:
        raise ValueError(f"the noise multiplier must be a finite number > 0, got {noise_multiplier!r}")
    require_whole("rounds", rounds, 1)
    if not 0 < sampling_rate <= 1:
        raise ValueError(f"sampling_rate must be in (0, 1], got {sampling_rate!r}")
    check_budget(1.0, delta)
    if sampling_rate < 1:
        return poisson_epsilon({(noise_multiplier, sampling_rate): rounds}, delta)
    return gaussian_epsilon(math.sqrt(rounds) / noise_multiplier, delta)


def gaussian_mu(noise_multipliers: Iterable[float]) -> float:
    """μ of the composition of Gaussian mechanisms; infinity when one of them adds no noise."""
    zs = list(noise_multipliers)
    return math.inf if 0.0 in zs else math.sqrt(math.fsum(z**-2 for z in zs))


def gaussian_epsilon(mu: float, delta: float, slack: float = 0.0) -> float:
    """ε at `delta` of a μ-GDP Gaussian mechanism whose density is known within e^{±slack} only."""
    if mu == math.inf or slack == math.inf:
        return math.inf
    if mu == 0.0:
        return 0.0
    return float(dp_accounting.get_epsilon_gaussian(1.0 / mu, delta * math.exp(-slack))) + 2.0 * slack


def epsilon_of(events: Iterable[RoundEvent], delta: float, *, cell: float = REPORT_CELL) -> float:
    """ε at `delta` of these rounds together for one who was in all of them, against a server that sees every sum.

    `cell` matters only where examples were sampled: the width of a privacy-loss cell.
    """
    rounds = list(events)
    slack = math.fsum(e.aliasing_slack for e in rounds)
    if all(e.sampling_rate == 1 for e in rounds):
        return gaussian_epsilon(gaussian_mu(e.noise_multiplier for e in rounds), delta, slack)
    if slack == math.inf:
        return math.inf
    return poisson_epsilon(counts_of(rounds), delta * math.exp(-slack), cell) + 2 * slack


def epsilon_local(events: Iterable[RoundEvent], delta: float) -> float:
    """ε at `delta` of one client's uploads by themselves: the server and every other client collude, or masks fail.

    Where examples were sampled it is counted in cells of CALIBRATION_CELL: the losses are large, and so is the figure.
    """
    rounds = list(events)
    if all(e.sampling_rate == 1 for e in rounds):
        return gaussian_epsilon(gaussian_mu(e.noise_multiplier_local for e in rounds), delta)
    return poisson_epsilon(counts_of(rounds, local=True), delta, CALIBRATION_CELL)


def epsilon_outsider(events: Iterable[RoundEvent], delta: float) -> float:
    """ε at `delta` for those who see only released models and how many took part, any client in any round.

    Sampling of cohorts amplifies here, where `RoundEvent.population` says that it was uniform. The rounds' own
    participants are not looked at: see `ledger.Ledger.epsilon_outsider`.
    """
    rounds = list(events)
    slack = math.fsum(e.aliasing_slack for e in rounds)
    if slack == math.inf:
        return math.inf
    if all(e.population is None for e in rounds):
        return epsilon_of(rounds, delta)
    return cohort_epsilon(rounds, delta * math.exp(-slack)) + 2 * slack
