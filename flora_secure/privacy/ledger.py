"""The budget of a run: a ledger of events for each client, which refuses the round that would pass the budget.

A client is charged for the rounds that it took part in, and for no others; the headline is the worst client's ε.
Clients with the same rounds share one history, so a full roster costs what one client does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import dp_accounting

from flora_secure.privacy.accounting import check_budget, epsilon_local, epsilon_of, epsilon_outsider, gaussian_mu
from flora_secure.privacy.amplification import CALIBRATION_CELL, counts_of
from flora_secure.privacy.events import RoundEvent


class BudgetExceededError(RuntimeError):
    """The next round would pass the privacy budget; it must not run.

    `clients` are those whose budget it would pass; the round may be authorised again without them. Empty where the
    round has no list of participants.
    """

    def __init__(self, message: str, clients: Collection[int] = ()) -> None:
        super().__init__(message)
        self.clients = frozenset(clients)


class LedgerError(RuntimeError):
    """The ledger was used out of order, which is a mistake of the program: nothing was recorded."""


@dataclass(frozen=True, eq=False)
class _History:
    """The rounds of one client, or of many that were in the same ones; compared by identity.

    `unsummed`: rounds whose uploads were sent and never released as a sum.
    """

    events: tuple[RoundEvent, ...] = ()
    unsummed: tuple[RoundEvent, ...] = ()

    def __add__(self, event: RoundEvent) -> _History:
        return _History((*self.events, event), self.unsummed)

    def exposed(self, event: RoundEvent) -> _History:
        return _History(self.events, (*self.unsummed, event))

    @functools.cached_property
    def sampled(self) -> bool:
        return any(e.sampling_rate < 1 for e in self.events)

    @functools.cached_property
    def loss(self) -> tuple[float, float]:
        """(μ², κ): without sampling ε is a function of these, increasing in both."""
        zs = [e.noise_multiplier for e in self.events]
        squares = math.inf if 0.0 in zs else math.fsum(z**-2 for z in zs)
        return squares, math.fsum(e.aliasing_slack for e in self.events)

    @property
    def uploads(self) -> tuple[RoundEvent, ...]:
        return (*self.events, *self.unsummed)

    @functools.cached_property
    def loss_local(self) -> float:
        """Orders histories by what their uploads cost: μ², where examples were sampled that of the central limit
        (Bu et al. 2019, arXiv 1911.11607)."""
        zs = [(e.noise_multiplier_local, e.sampling_rate) for e in self.uploads]
        if any(z == 0.0 for z, _ in zs):
            return math.inf
        return math.fsum(z**-2 if q == 1 else q * q * math.expm1(min(z**-2, 700.0)) for z, q in zs)


class Ledger:
    """What was released, to whom it is charged, and whether one more round still fits.

    Call `authorise` with the worst event that the round may become (fewest survivors, every client that may end up in
    the sum) before it starts, and `record` with what it did become. An aborted round released no sum and is not
    recorded; call `expose` if uploads had been sent, which counts for `epsilon_local` alone. Authorise it again, or
    the next.

    Clients whose budget would be passed are named by `refused`, and by the error: leave them out and authorise the
    round of the others.

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
        self._unnamed = _History()  # of a client that no event names
        self._named: dict[int, _History] = {}

    def __repr__(self) -> str:
        return f"Ledger(rounds={len(self._events)}, epsilon={self.epsilon:.4g} of {self.target_epsilon:g})"

    @property
    def events(self) -> tuple[RoundEvent, ...]:
        """Every round that was recorded, in the order of their numbers."""
        return tuple(self._events)

    @property
    def clients(self) -> tuple[int, ...]:
        """Clients that the events name, in order. A round without a list of participants charges all, named or not."""
        return tuple(sorted(self._named))

    def events_of(self, client: int) -> tuple[RoundEvent, ...]:
        """The recorded rounds that charge this client, in order."""
        return self._history(client).events

    @property
    def worst_events(self) -> tuple[RoundEvent, ...]:
        """The rounds of the client that lost most: what the headline counts and the accountants cross-check."""
        return self._worst.events

    @property
    def epsilon(self) -> float:
        """ε spent so far by the worst client, server view, from who really survived. 0 before the first round."""
        return epsilon_of(self._worst.events, self.delta)

    def epsilon_of_client(self, client: int) -> float:
        """ε spent so far by this client, server view; 0 if it was in no round."""
        return epsilon_of(self.events_of(client), self.delta)

    def epsilon_by_client(self) -> dict[int, float]:
        """ε spent so far by each client that the events name, in order. About 1 ms a distinct history at q = 1."""
        spent = {history: epsilon_of(history.events, self.delta) for history in set(self._named.values())}
        return {client: spent[self._named[client]] for client in self.clients}

    @property
    def mu(self) -> float:
        """Gaussian DP parameter of the worst client's rounds; infinity when one of them added no noise.

        Where examples were sampled the rounds are no Gaussian mechanism, and this is the μ of the one with the same ε
        at δ.
        """
        worst = self._worst
        if not worst.sampled:
            return gaussian_mu(e.noise_multiplier for e in worst.events)
        spent = self.epsilon
        return math.inf if spent == math.inf else 1 / float(dp_accounting.get_sigma_gaussian(spent, self.delta))

    @property
    def aliasing_slack(self) -> float:
        """The aliasing slack κ, summed over the rounds of the client with the largest ε."""
        return self._worst.loss[1]

    @property
    def epsilon_local(self) -> float:
        """ε spent so far by the uploads of the client that gave away most, by themselves, of aborted rounds too."""
        worst = max(self._histories(), key=lambda history: history.loss_local)
        return epsilon_local(worst.uploads, self.delta)

    @property
    def epsilon_outsider(self) -> float:
        """ε for those who see only the released models: amplified where cohorts were uniform, never above `epsilon`."""
        return min(self.epsilon, epsilon_outsider(self._events, self.delta))

    def refused(self, event: RoundEvent) -> frozenset[int]:
        """Which of the event's participants would pass their budget with it: the round must run without them."""
        participants = event.participants
        if participants is None:
            raise LedgerError(f"round {event.round} does not say who takes part")
        after = {history: history + event for history in {self._history(client) for client in participants}}
        if not after:
            return frozenset()
        over: set[_History] = set()
        most_slack = max(history.loss[1] for history in after.values())
        # Worst first: once a history fits with the largest slack of all, the milder ones fit too.
        for before, history in sorted(after.items(), key=lambda item: -item[1].loss[0]):
            if not self._fits(history):
                over.add(before)
            elif not history.sampled and history.loss[1] == most_slack:
                break
        return frozenset(client for client in participants if self._history(client) in over)

    def authorise(self, event: RoundEvent) -> None:
        """Let a round begin, or refuse it.

        Raises:
            BudgetExceededError: with this round a client would pass the budget. Nothing changes.
            LedgerError: the round's number is not after the last recorded one.
        """
        if self._events and event.round <= self._events[-1].round:
            raise LedgerError(f"round {event.round} comes after round {self._events[-1].round}: number rounds upwards")
        if event.participants is None:
            if not self._fits(self._worst + event):
                raise self._exceeded(event, self._worst)
        elif refused := self.refused(event):
            raise self._exceeded(event, self._history(max(refused, key=lambda c: self._history(c).loss)), refused)
        self._authorised = event

    def record(self, event: RoundEvent) -> None:
        """Enter what the authorised round released. It is entered even if it was noisier or fainter than announced.

        Raises:
            LedgerError: this round was not the last one authorised, or it charges clients that were not; nothing is
                entered.
        """
        announced = self._authorised
        if announced is None or announced.round != event.round:
            raise LedgerError(f"round {event.round} was not authorised: call authorise before the round runs")
        if announced.participants is not None:
            strangers = None if event.participants is None else event.participants - announced.participants
            if strangers is None or strangers:
                whom = "every client" if strangers is None else f"clients {sorted(strangers)}"
                raise LedgerError(f"round {event.round} charges {whom}, which it was not authorised for")
        self._authorised = None
        self._events.append(event)
        self._enter(event, _History.__add__)

    def expose(self) -> None:
        """The authorised round ended without a sum, but its uploads were sent.

        Whoever saw them singly has seen them: `epsilon_local` counts them.

        Raises:
            LedgerError: no round is authorised.
        """
        event = self._authorised
        if event is None:
            raise LedgerError("no round is authorised whose uploads could have been sent")
        self._authorised = None
        self._enter(event, _History.exposed)

    def _enter(self, event: RoundEvent, add: Callable[[_History, RoundEvent], _History]) -> None:
        charged = self._named.keys() if event.participants is None else event.participants
        after = {history: add(history, event) for history in {self._history(client) for client in charged}}
        self._named.update({client: after[self._history(client)] for client in charged})
        if event.participants is None:
            self._unnamed = add(self._unnamed, event)

    def _history(self, client: int) -> _History:
        return self._named.get(client, self._unnamed)

    def _histories(self) -> set[_History]:
        return {self._unnamed, *self._named.values()}

    @property
    def _worst(self) -> _History:
        return _worst_of(self._histories(), self.delta)

    def _fits(self, history: _History) -> bool:
        if self.target_epsilon == math.inf:
            return True
        if history.sampled:  # first as if all rounds were as loud as the loudest: one quick composition
            loudest = min(history.events, key=lambda e: e.noise_multiplier)
            rate = max(e.sampling_rate for e in history.events)
            if loudest.sampling_rate == rate and self._count([loudest] * len(history.events)) <= self.target_epsilon:
                return True
        return self._count(history.events) <= self.target_epsilon

    def _count(self, events: Collection[RoundEvent]) -> float:
        return epsilon_of(events, self.delta, cell=CALIBRATION_CELL)

    def _exceeded(self, event: RoundEvent, before: _History, clients: Collection[int] = ()) -> BudgetExceededError:
        spent, after = epsilon_of(before.events, self.delta), self._count((before + event).events)
        remedy = (
            f"leave out the {len(clients)} clients whose budget is used up"
            if clients
            else "stop here, or plan a new run with more noise or fewer rounds"
        )
        return BudgetExceededError(
            f"round {event.round} would raise epsilon from {spent:.6g} to {after:.6g}, above the budget of "
            f"{self.target_epsilon:g} at delta {self.delta:g}: {remedy}",
            clients,
        )


def worst_rounds(
    histories: Iterable[Iterable[RoundEvent]], delta: float, *, cell: float = CALIBRATION_CELL
) -> tuple[RoundEvent, ...]:
    """The rounds of the client that lost most at `delta`, of those whose rounds these are; aliasing slack counts.

    `cell` matters only where examples were sampled, as in `epsilon_of`. At least one history is needed.
    """
    return _worst_of((_History(tuple(events)) for events in histories), delta, cell).events


def _worst_of(histories: Iterable[_History], delta: float, cell: float = CALIBRATION_CELL) -> _History:
    candidates = _undominated(histories)
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda history: epsilon_of(history.events, delta, cell=cell))


def _undominated(histories: Iterable[_History]) -> list[_History]:
    """Those of which no other one surely lost more, at least one."""
    ranked = sorted(histories, key=lambda history: history.loss, reverse=True)
    kept: list[_History] = []
    for history in ranked:
        if not any(_loses_less(history, other) for other in kept):
            kept.append(history)
    return kept


def _loses_less(history: _History, other: _History) -> bool:
    if not history.sampled and not other.sampled:
        return history.loss[0] <= other.loss[0] and history.loss[1] <= other.loss[1]
    return counts_of(history.events) <= counts_of(other.events) and history.loss[1] <= other.loss[1]
