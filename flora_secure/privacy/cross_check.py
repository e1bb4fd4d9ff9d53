"""The ledger's ε derived again by accountants that other people wrote. Disagreement is an error, not a warning."""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp

from .accounting import epsilon_of
from .events import RoundEvent

CLOSED_FORM = "closed form"
PLD = "dp-accounting PLD"
RDP = "dp-accounting RDP"
PRV = "opacus PRV"
TOLERANCE = 0.02  # in ε, between accountants that are tight
_FINE, _COARSE = 1e-4, 1e-3  # widths of a privacy-loss cell, a pessimistic rounding either way
_ZERO_OUT = dp_accounting.NeighboringRelation.REPLACE_SPECIAL


class CrossCheckError(RuntimeError):
    """Two accountants disagree about the same events: do not publish either figure."""


def cross_check(events: Iterable[RoundEvent], delta: float, *, opacus: bool = True) -> dict[str, float]:
    """ε at `delta` of `events` by every accountant at hand.

    Args:
        events: recorded or planned rounds.
        delta: between 0 and 1.
        opacus: also ask opacus' PRV accountant, which imports torch (seconds).

    Returns:
        Name of the accountant → ε, aliasing slack included; first the closed form, which the ledger uses. Events
        without noise have ε = inf and need no second opinion. RDP is an upper bound, looser by some 10 %.

    Raises:
        CrossCheckError: a tight accountant is further than TOLERANCE from the closed form, or RDP is below PLD.
        ImportError: `opacus` is asked for and not installed.

    Sources: PLD: Doroshenko et al. 2207.04380; RDP: Mironov 1702.07476; PRV: Gopi, Lee and Wutschitz 2106.02848.
    """
    rounds = list(events)
    found = {CLOSED_FORM: epsilon_of(rounds, delta)}
    if not rounds or found[CLOSED_FORM] == math.inf:
        return found
    multipliers = Counter(e.noise_multiplier for e in rounds)
    slack = math.fsum(e.aliasing_slack for e in rounds)
    accountants: dict[str, Callable[[Mapping[float, int], float], float]] = {PLD: _pld, RDP: _rdp}
    if opacus:
        accountants[PRV] = _prv
    for name, epsilon in accountants.items():
        found[name] = epsilon(multipliers, delta * math.exp(-slack)) + 2 * slack
    compare(found)
    return found


def compare(found: Mapping[str, float]) -> None:
    """CrossCheckError unless these figures for the same events are consistent. Keys as `cross_check` returns them."""
    for name in (PLD, PRV):
        if name in found and not abs(found[name] - found[CLOSED_FORM]) <= TOLERANCE:
            raise CrossCheckError(
                f"{name} finds epsilon {found[name]:.5g}, the closed form {found[CLOSED_FORM]:.5g}: more than "
                f"{TOLERANCE} apart for the same rounds"
            )
    if found[RDP] < found[PLD] - _COARSE:
        raise CrossCheckError(
            f"{RDP} finds epsilon {found[RDP]:.5g}, below {PLD}'s {found[PLD]:.5g}: an upper bound cannot be below"
        )


def accountant_versions(found: Iterable[str]) -> dict[str, str]:
    """Installed version of the packages behind the accountants in `found`; the closed form is dp-accounting's."""
    packages = {"opacus" if name == PRV else "dp-accounting" for name in found}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}


def _pld(multipliers: Mapping[float, int], delta: float) -> float:
    accountant = pld.PLDAccountant(_ZERO_OUT, _FINE if len(multipliers) <= 20 else _COARSE)
    for z, count in multipliers.items():
        accountant.compose(dp_accounting.GaussianDpEvent(z), count)
    return float(accountant.get_epsilon(delta))


def _rdp(multipliers: Mapping[float, int], delta: float) -> float:
    accountant = rdp.RdpAccountant(neighboring_relation=_ZERO_OUT)
    for z, count in multipliers.items():
        accountant.compose(dp_accounting.GaussianDpEvent(z), count)
    return float(accountant.get_epsilon(delta))


def _prv(multipliers: Mapping[float, int], delta: float) -> float:
    from opacus.accountants import PRVAccountant  # imports torch, which planning a run must not need

    accountant = PRVAccountant()
    accountant.history = [(z, 1.0, count) for z, count in multipliers.items()]
    with np.errstate(divide="ignore"):  # at a sampling rate of 1 opacus takes log(1 − 1), harmlessly
        return float(accountant.get_epsilon(delta, eps_error=TOLERANCE / 4))
