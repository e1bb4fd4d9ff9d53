"""The ledger's ε derived again by accountants that other people wrote. Disagreement is an error, not a warning."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from dp_accounting import rdp

from flora_secure.privacy.accounting import epsilon_of
from flora_secure.privacy.amplification import ZERO_OUT, Counts, counts_of, gaussian_event, poisson_epsilon
from flora_secure.privacy.events import RoundEvent

CLOSED_FORM = "closed form"
PLD = "dp-accounting PLD"
RDP = "dp-accounting RDP"
PRV = "opacus PRV"
PRV_MODULE = "opacus.accountants"
TOLERANCE = 0.02  # in ε, between accountants that are tight
_WHOLE_ORDERS = (*range(2, 65), 128, 256, 512)
_ROUNDING = 1e-3  # in ε, by which the cells of PLD may overstate what RDP finds


class CrossCheckError(RuntimeError):
    """Two accountants disagree about the same events: do not publish either figure."""


def headline_accountant(events: Iterable[RoundEvent]) -> str:
    """Name of what the ledger counts these rounds by: the closed form, or PLD where examples were sampled."""
    return PLD if any(e.sampling_rate < 1 for e in events) else CLOSED_FORM


def cross_check(events: Iterable[RoundEvent], delta: float, *, opacus: bool = True) -> dict[str, float]:
    """ε at `delta` of `events` by every accountant at hand.

    Args:
        events: recorded or planned rounds of one client; of a ledger, its `worst_events`.
        delta: between 0 and 1.
        opacus: also ask opacus' PRV accountant, which imports torch (seconds).

    Returns:
        Name of the accountant → ε, aliasing slack included; first the one that the ledger uses. Events without noise
        have ε = inf and need no second opinion. PRV is left out where opacus refuses to count. RDP is an upper bound,
        looser by some 10 %.

    Raises:
        CrossCheckError: a tight accountant is further than TOLERANCE from the first, or RDP is below PLD.
        ImportError: `opacus` is asked for and not installed.

    Sources: PLD: Doroshenko et al. 2207.04380; RDP: Mironov 1702.07476 and, sampled, Mironov, Talwar and Zhang
    1908.10530; PRV: Gopi, Lee and Wutschitz 2106.02848.
    """
    rounds = list(events)
    first = headline_accountant(rounds)
    found = {first: epsilon_of(rounds, delta)}
    if not rounds or found[first] == math.inf:
        return found
    counts = counts_of(rounds)
    slack = math.fsum(e.aliasing_slack for e in rounds)
    accountants: dict[str, Callable[[Counts, float], float]] = {PLD: poisson_epsilon, RDP: _rdp}
    if opacus:
        accountants[PRV] = _prv
    for name, epsilon in accountants.items():
        if name != first:
            try:
                found[name] = epsilon(counts, delta * math.exp(-slack)) + 2 * slack
            except ValueError:
                if name != PRV:
                    raise
                # opacus refuses where its floating point ends: no opinion, and no reason to publish nothing
    compare(found)
    return found


def compare(found: Mapping[str, float]) -> None:
    """CrossCheckError unless these figures for the same events are consistent. As `cross_check` returns them."""
    first = next(iter(found))
    for name in (PLD, PRV):
        if name in found and not abs(found[name] - found[first]) <= TOLERANCE:
            raise CrossCheckError(
                f"{name} finds epsilon {found[name]:.5g}, the {first} {found[first]:.5g}: more than "
                f"{TOLERANCE} apart for the same rounds"
            )
    if found[RDP] < found[PLD] - _ROUNDING:
        raise CrossCheckError(
            f"{RDP} finds epsilon {found[RDP]:.5g}, below {PLD}'s {found[PLD]:.5g}: an upper bound cannot be below"
        )


def accountant_versions(found: Iterable[str]) -> dict[str, str]:
    """Installed version of the packages behind the accountants in `found`; the closed form is dp-accounting's."""
    packages = {"opacus" if name == PRV else "dp-accounting" for name in found}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}


def _rdp(counts: Counts, delta: float) -> float:
    # fractional orders of sampled rounds are slow series, which do not converge for little noise
    orders = _WHOLE_ORDERS if any(q < 1 for _, q in counts) else None
    accountant = rdp.RdpAccountant(orders, ZERO_OUT)
    for (z, q), count in counts.items():
        accountant.compose(gaussian_event(z, q), count)
    return float(accountant.get_epsilon(delta))


def _prv(counts: Counts, delta: float) -> float:
    from opacus.accountants import PRVAccountant  # imports torch, which planning a run must not need

    accountant = PRVAccountant()
    accountant.history = [(z, q, count) for (z, q), count in counts.items()]
    with np.errstate(divide="ignore"):  # at a sampling rate of 1 opacus takes log(1 − 1), harmlessly
        return float(accountant.get_epsilon(delta, eps_error=TOLERANCE / 4))
