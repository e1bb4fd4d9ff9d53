"""How events are counted: the closed form for composed Gaussian mechanisms, and the ledger that can refuse a round.

Rounds with noise multipliers z_t compose, adaptively, to one Gaussian mechanism with μ² = Σ 1/z_t² (Dong, Roth and Su,
1905.02383, corollary 3.3), whose exact ε(δ) is Balle and Wang's (1805.06530, theorem 8), computed by dp-accounting.
The aliasing slack κ = Σ κ_t of rounding before summing enters as δ(ε) <= e^κ·δ_Gauss(ε − 2κ).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import dp_accounting

from .events import RoundEvent

# z is larger by this fraction, so that the tolerance of root finding, 1e-12, cannot carry a planned run over its budget
_MARGIN = 1e-9


class BudgetExceededError(RuntimeError):
    """The next round would pass the privacy budget; it must not run."""


class LedgerError(RuntimeError):
    """The ledger was used out of order."""


def check_budget(epsilon: float, delta: float) -> None:
    """ValueError unless epsilon > 0 (infinity allowed) and 0 < delta < 1."""
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0 (or inf for no privacy), got {epsilon!r}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, got {delta!r}; below 1/clients is usual")


def default_delta(clients: int) -> float:
    """δ when none is asked for: min(1e-5, clients^-1.1), less than giving one client away at random would be."""
    if clients < 1:
        raise ValueError(f"there must be at least 1 client, got {clients}")
    return float(min(1e-5, clients**-1.1))


def noise_multiplier_for(epsilon: float, delta: float, rounds: int) -> float:
    """The least z for which `rounds` Gaussian releases are (epsilon, delta)-DP. 0 for epsilon = inf.

    Raises:
        ValueError: epsilon <= 0, delta outside (0, 1), rounds < 1.
    """
    check_budget(epsilon, delta)
    if rounds < 1:
        raise ValueError(f"there must be at least 1 round, got {rounds}")
    if epsilon == math.inf:
        return 0.0
    return float(dp_accounting.get_sigma_gaussian(epsilon, delta)) * math.sqrt(rounds) * (1 + _MARGIN)


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


def epsilon_of(events: Iterable[RoundEvent], delta: float) -> float:
    """ε at `delta` of these rounds together, for a server that sees every released sum and who survived."""
    rounds = list(events)
    mu = gaussian_mu(e.noise_multiplier for e in rounds)
    return gaussian_epsilon(mu, delta, math.fsum(e.aliasing_slack for e in rounds))


def epsilon_local(events: Iterable[RoundEvent], delta: float) -> float:
    """ε at `delta` of one client's uploads by themselves: the server and every other client collude, or masks fail."""
    return gaussian_epsilon(gaussian_mu(e.noise_multiplier_local for e in events), delta)


class Ledger:
    """The budget of one run: what was released, and whether one more round still fits.

    Call `authorise` with the worst event that the round may become (fewest survivors) before it starts, and `record`
    with what it did become. An aborted round released nothing and is not recorded; authorise it again, or the next.

    Args:
        target_epsilon: > 0; math.inf for a run without differential privacy.
        delta: between 0 and 1.
    """

    def __init__(self, target_epsilon: float, delta: float) -> None:
        check_budget(target_epsilon, delta)
        self.target_epsilon = target_epsilon
        self.delta = delta
        self._events: list[RoundEvent] = []
        self._authorised: RoundEvent | None = None

    def __repr__(self) -> str:
        return f"Ledger(rounds={len(self._events)}, epsilon={self.epsilon:.4g} of {self.target_epsilon:g})"

    @property
    def events(self) -> tuple[RoundEvent, ...]:
        """Every recorded round, in order."""
        return tuple(self._events)

    @property
    def mu(self) -> float:
        """Gaussian DP parameter of all recorded rounds; infinity when one of them added no noise."""
        return gaussian_mu(e.noise_multiplier for e in self._events)

    @property
    def aliasing_slack(self) -> float:
        """κ of all recorded rounds."""
        return math.fsum(e.aliasing_slack for e in self._events)

    @property
    def epsilon(self) -> float:
        """ε spent so far, server view, from who really survived. 0 before the first round."""
        return epsilon_of(self._events, self.delta)

    @property
    def epsilon_local(self) -> float:
        """ε spent so far by one client's uploads by themselves."""
        return epsilon_local(self._events, self.delta)

    def authorise(self, event: RoundEvent) -> None:
        """Let a round begin, or refuse it.

        Raises:
            BudgetExceededError: with this round the budget would be passed. Nothing changes.
            LedgerError: the round's number is not after the last recorded one.
        """
        if self._events and event.round <= self._events[-1].round:
            raise LedgerError(f"round {event.round} comes after round {self._events[-1].round}: number rounds upwards")
        after = epsilon_of([*self._events, event], self.delta)
        if after > self.target_epsilon:
            raise BudgetExceededError(
                f"round {event.round} would raise epsilon from {self.epsilon:.6g} to {after:.6g}, above the budget of "
                f"{self.target_epsilon:g} at delta {self.delta:g}: stop here, or plan a new run with more noise or "
                f"fewer rounds"
            )
        self._authorised = event

    def record(self, event: RoundEvent) -> None:
        """Enter what the authorised round released. It is entered even if it was noisier or fainter than announced.

        Raises:
            LedgerError: this round was not the last one authorised; nothing is entered.
        """
        if self._authorised is None or self._authorised.round != event.round:
            raise LedgerError(f"round {event.round} was not authorised: call authorise before the round runs")
        self._authorised = None
        self._events.append(event)
