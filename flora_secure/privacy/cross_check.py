"""The ledger's ε derived again by accountants that other people wrote. Disagreement is an error, not a warning."""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from dp_accounting import rdp
from numpy.typing import NDArray

from flora_secure.privacy.accounting import epsilon_of, epsilon_outsider
from flora_secure.privacy.amplification import ZERO_OUT, Counts, counts_of, gaussian_event, poisson_epsilon
from flora_secure.privacy.events import RoundEvent

CLOSED_FORM = "closed form"
PLD = "dp-accounting PLD"
RDP = "dp-accounting RDP"
PRV = "opacus PRV"
PRV_MODULE = "opacus.accountants"
QUADRATURE = "quadrature and FFT"
TOLERANCE = 0.02  # in ε, between accountants that are tight
_CELLS, _POINTS = 1 << 17, 20_001  # of a loss distribution, of a round's quadrature
_NOTHING = 1e-30  # probability of a loss that moves no figure
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


def cross_check_outsiders(events: Iterable[RoundEvent], delta: float) -> dict[str, float]:
    """ε at `delta` of all released `events` for outsiders, by two accountants that share no code.

    Returns:
        Name of the accountant → ε, aliasing slack included: dp-accounting's PLD, which the ledger uses, and privacy
        losses by quadrature over the pair of sums that docs/privacy/accounting.md names, composed by FFT. Nothing where
        no round is amplified, or one had no noise.

    Raises:
        CrossCheckError: they are further than TOLERANCE apart.
    """
    rounds = list(events)
    if all(e.population is None for e in rounds) or any(e.noise_multiplier == 0 for e in rounds):
        return {}
    slack = math.fsum(e.aliasing_slack for e in rounds)
    pairs = Counter((e.noise_multiplier, 1.0 if e.population is None else e.survivors / e.population) for e in rounds)
    found = {
        PLD: epsilon_outsider(rounds, delta),
        QUADRATURE: _by_quadrature(pairs, delta * math.exp(-slack)) + 2 * slack,
    }
    if found[PLD] != found[QUADRATURE] and not abs(found[PLD] - found[QUADRATURE]) <= TOLERANCE:
        raise CrossCheckError(
            f"for outsiders {PLD} finds epsilon {found[PLD]:.5g}, {QUADRATURE} {found[QUADRATURE]:.5g}: more than "
            f"{TOLERANCE} apart for the same rounds"
        )
    return found


def _by_quadrature(pairs: Mapping[tuple[float, float], int], delta: float) -> float:
    """ε of rounds, (z, k/N) → how many: the larger of both directions."""
    return max(_direction(pairs, delta, added) for added in (True, False))


def _direction(pairs: Mapping[tuple[float, float], int], delta: float, added: bool) -> float:
    """ε of the sums with the client against those without it (`added`), or the other way round."""
    losses = {pair: _losses(*pair, added) for pair in pairs}
    mean, variance, largest = 0.0, 0.0, 0.0
    for pair, count in pairs.items():
        value, mass = losses[pair]
        first = float(mass @ value)
        mean += count * first
        variance += count * (float(mass @ value**2) - first**2)
        largest = max(largest, float(np.abs(value[mass > _NOTHING]).max()))  # rare ones are far from the mean
    reach = abs(mean) + 14 * math.sqrt(variance) + largest + 1
    cell = 2 * reach / _CELLS
    spectrum = np.ones(_CELLS // 2 + 1, np.complex128)
    for pair, count in pairs.items():
        value, mass = losses[pair]
        place = value / cell
        low = np.floor(place).astype(np.int64)
        binned = np.zeros(_CELLS)  # each loss is split between two cells, so that the mean stays
        np.add.at(binned, low % _CELLS, mass * (low + 1 - place))
        np.add.at(binned, (low + 1) % _CELLS, mass * (place - low))
        spectrum *= np.fft.rfft(binned) ** count
    mass = np.maximum(np.roll(np.fft.irfft(spectrum, _CELLS), _CELLS // 2), 0.0)
    loss = (np.arange(_CELLS) - _CELLS // 2) * cell

    def excess(epsilon: float) -> float:
        above = loss > epsilon
        return float(mass[above] @ -np.expm1(epsilon - loss[above])) - delta

    if excess(0.0) <= 0:
        return 0.0
    low_epsilon, high = 0.0, reach
    for _ in range(60):
        middle = (low_epsilon + high) / 2
        low_epsilon, high = (middle, high) if excess(middle) > 0 else (low_epsilon, middle)
    return high


def _losses(z: float, kept: float, added: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Privacy losses of one round and their masses; noise z for a contribution of 1.

    With probability `kept` the client is in the sum, where neighbouring sums lie 2 apart; the pair is symmetric about
    the sum without it, as for the replacement of a record, which bounds every other pair.
    """
    x = np.linspace(-2 - 14 * z, 2 + 14 * z, _POINTS)
    ahead, absent, behind = (-(((x - centre) / z) ** 2) / 2 for centre in (2.0, 0.0, -2.0))
    share = math.log(kept), math.log1p(-kept) if kept < 1 else -math.inf
    with_client = np.logaddexp(share[0] + ahead, share[1] + absent)
    without = np.logaddexp(share[0] + behind, share[1] + absent)
    if kept == 1:  # everybody is: with it or without it
        with_client, without = -(((x - 1) / z) ** 2) / 2, absent
    if not added:
        with_client, without = without, with_client
    mass = np.exp(with_client)
    return with_client - without, mass / mass.sum()


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
