"""A foreign log under audit: what it claims, for which δ its views are worked out, and within which tolerance."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

from flora_secure.auditing.foreign.costs import MOST_FOR_PLD
from flora_secure.auditing.foreign.log import (
    EXAMPLE,
    OUTSIDER,
    ROUND,
    SERVER,
    SPARSE,
    SUM,
    UPLOAD,
    Claim,
    ForeignLog,
    Problem,
)
from flora_secure.auditing.foreign.views import AS_IT_STANDS, Reading, amplifies, epsilon, least_rounds
from flora_secure.privacy.accounting import default_delta

VIEWS = (SERVER, OUTSIDER, UPLOAD)
WORDS = {SERVER: "the server", OUTSIDER: "an outsider", UPLOAD: "whoever sees single uploads"}
ONE_ROUND = Reading(rounds=1)


@dataclass(frozen=True)
class ForeignCase:
    """`log` as read from `source`, with the `problems` of reading it, and `notes`: what its importer knows of the
    system's code, a warning each."""

    source: str
    log: ForeignLog
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @cached_property
    def units(self) -> int | None:
        """How many units there are, as far as the log says: clients, or examples."""
        return (self.log.examples or self.log.population) if self.log.unit == EXAMPLE else self.log.population

    @cached_property
    def delta(self) -> float:
        """δ of the three views: the first one claimed that is one, else the usual one."""
        claimed = [c.delta for c in self.log.claims if c.delta is not None and 0 < c.delta < 1]
        return claimed[0] if claimed else default_delta(self.units or 1)

    @cached_property
    def views(self) -> dict[str, float]:
        """Observer → ε at `delta` of all rounds; infinity where nothing bounds it, NaN where it is not known."""
        return {view: self.epsilon(view, self.delta, None) for view in VIEWS}

    def epsilon(self, view: str, delta: float, adjacency: str | None, reading: Reading = AS_IT_STANDS) -> float:
        """The ε of a view, as `views.epsilon`; NaN without rounds, or where one has numbers that are not possible.

        Who sees sums or models sees no more than the uploads; who knows no cohort knows no more than who knows them.
        """
        if not self.countable:
            return math.nan
        word = adjacency or self.log.adjacency
        found = epsilon(self.log, view, delta, word, reading)
        if math.isnan(found):
            return epsilon(self.log, UPLOAD, delta, word, reading)
        if amplifies(self.log, view, reading):
            open_cohorts = dataclasses.replace(reading, amplified=False)
            return min(found, epsilon(self.log, view, delta, word, open_cohorts))
        return found

    @cached_property
    def countable(self) -> bool:
        """Whether there are rounds, and each can be read."""
        broken = any(where.startswith("rounds") and what.startswith("must be") for where, what in self.problems)
        return bool(self.log.rounds) and not broken

    def derived(self, claim: Claim) -> float:
        """ε of what a claim is about, with every round of the log counted."""
        return self.epsilon(claim.against or OUTSIDER, self._delta(claim), claim.adjacency, self.reading(claim))

    def least(self, claim: Claim) -> float:
        """The same for as few rounds as the busiest client can have been in."""
        if claim.scope == ROUND or not self.uncertain(claim):
            return self.derived(claim)
        reading = Reading(rounds=least_rounds(self.log))
        return self.epsilon(claim.against or OUTSIDER, self._delta(claim), claim.adjacency, reading)

    def at_best(self, claim: Claim) -> float | None:
        """The same if what the log leaves open were as good as can be: cohorts kept secret, noise on the sum by the
        server; `None` where sampling leaves nothing open."""
        log = self.log
        if claim.against not in (OUTSIDER, None) or (log.secret_sampling is not None and log.noise_by is not None):
            return None
        if log.secret_sampling is False or log.unit == EXAMPLE:
            return None
        best = dataclasses.replace(log, secret_sampling=True)
        if log.noise_by is None:
            best = dataclasses.replace(best, noise_by=SERVER, noise_on=log.noise_on or SUM)
        if not self.countable or not amplifies(best, OUTSIDER):
            return None
        return epsilon(best, OUTSIDER, self._delta(claim), claim.adjacency or log.adjacency, self.reading(claim))

    def uncertain(self, claim: Claim) -> bool:
        """Whether the log leaves open in how many rounds the busiest client was."""
        log = self.log
        named = bool(log.rounds) and all(run.participants is not None for run in log.rounds)
        open_rounds = log.most_rounds is None and not named and log.unit != EXAMPLE and log.mechanism != SPARSE
        return open_rounds and not amplifies(log, claim.against or OUTSIDER) and least_rounds(log) < log.times

    def reading(self, claim: Claim) -> Reading:
        """How many rounds a claim is about."""
        return ONE_ROUND if claim.scope == ROUND else AS_IT_STANDS

    def _delta(self, claim: Claim) -> float:
        return self.delta if claim.delta is None else claim.delta

    def said(self, claim: Claim) -> str:
        """A claim in words."""
        delta = "" if claim.delta is None else f" at δ = {claim.delta:g}"
        whom = f"against {WORDS[claim.against]}" if claim.against else "against nobody in particular"
        epsilon = "an ε that is not known" if claim.epsilon is None else f"ε = {claim.epsilon:.6g}"
        return f"{epsilon}{delta} {whom}, {'one round' if claim.scope == ROUND else 'in total'}"

    def below(self, claimed: float, derived: float) -> bool:
        """Whether a claim is smaller than accountants that differ a little could make it; more than a little where so
        many rounds are sampled that they are counted by Rényi divergences."""
        if not math.isfinite(derived):
            return derived == math.inf
        apart = 0.15 if self.log.sampling is not None and self.log.times > MOST_FOR_PLD else 0.005
        return claimed < derived - max(0.02, apart * derived)
