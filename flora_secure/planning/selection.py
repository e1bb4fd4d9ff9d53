"""Who takes part in the rounds of a run, and what the noise must be sized for before anybody has been drawn.

The server knows the cohorts; outsiders must not, if their ε is to be amplified. docs/privacy/participation.md has the
rules.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from flora_protocols import corrupt_holders
from flora_protocols.params import MAX_CLIENTS
from flora_secure.errors import ConfigError
from flora_secure.planning.config import RunConfig
from flora_secure.planning.participation import (
    FixedCohort,
    PoissonCohort,
    TooFewEligibleError,
    binomial_range,
    draw_cohort,
    eligible,
)

# Of a Poisson cohort that is too small or too large, on either side, in each round: it is skipped.
COHORT_MISS = 1e-3
# Of a client to be drawn more often than the budget pays for, over the whole run: it sits out from then on.
PARTICIPATION_MISS = 0.05


@dataclass(frozen=True)
class Selection:
    """How cohorts are drawn, and their bounds.

    Attributes:
        clients: N, of the federation.
        scheme: `None` where everybody takes part.
        min_separation: rounds between two participations of a client.
        smallest, largest: cohorts that the noise is sized for; a round with another one is skipped.
        rounds: of the run.
        participations: rounds that the budget of one client pays for.
        colluders: of the corrupt clients, so many at most are in a cohort, except with probability 2^-41 a round.
    """

    clients: int
    scheme: PoissonCohort | FixedCohort | None
    min_separation: int
    smallest: int
    largest: int
    rounds: int
    participations: int
    colluders: int

    @classmethod
    def of(cls, config: RunConfig) -> Selection:
        """Raises `ConfigError` where cohorts would be too small for the colluders."""
        clients, rounds, how = config.clients, config.training.rounds, config.participation
        corrupt = config.aggregation.corrupt
        if how.sampling is None:
            return cls(clients, None, 1, clients, clients, rounds, rounds, corrupt_clients(config))
        # a separation of R rounds leaves room for every R-th
        most = min(binomial_range(rounds, how.rate, PARTICIPATION_MISS)[1], -(-rounds // how.min_separation))
        if how.sampling == "fixed":
            size = config.cohort_size
            held = _colluders(clients, size, corrupt)
            return cls(clients, FixedCohort(size), how.min_separation, size, size, rounds, most, held)
        # fewest are eligible, on average, in round R: nobody of the rounds before is
        fewest = math.floor(clients * (1 - how.rate) ** (how.min_separation - 1))
        low = binomial_range(max(fewest, 1), how.rate, COHORT_MISS)[0]
        high = max(binomial_range(clients, how.rate, COHORT_MISS)[1], 2)
        held = _colluders(clients, high, corrupt)
        # the total noise is that of the largest cohort: small ones cost nothing as long as honest clients are in them
        smallest = max(low, 2)
        while smallest < high and smallest - _dropouts(config, smallest) - held < 2:
            smallest += 1
        if smallest > fewest * how.rate:
            raise ConfigError(
                f"`participation.rate` {how.rate:g} of {clients} clients makes cohorts of {fewest * how.rate:.3g} on "
                f"average, but {smallest} are needed beside {held} colluders: raise it, or lower "
                "`aggregation.corrupt`, `privacy.dropout_tolerance` or `participation.min_separation`"
            )
        return cls(clients, PoissonCohort(how.rate), how.min_separation, smallest, high, rounds, most, held)

    def candidates(self, number: int, last_round: Mapping[int, int]) -> tuple[int, ...]:
        """Who may be in round `number`, the budget apart. `last_round`: client → its last round so far."""
        return eligible(self.clients, number, last_round, minimum_separation=self.min_separation)

    def draw(self, seed: int | None, number: int, candidates: Collection[int]) -> tuple[int, ...]:
        """The cohort of round `number`; empty where a fixed cohort finds too few candidates.

        `seed`: of the experiment, which reports publish; `None` draws from the operating system's randomness.
        """
        if self.scheme is None:
            return tuple(candidates)
        try:
            rng = np.random.default_rng(None if seed is None else [seed, 2, number])
            return draw_cohort(rng, self.scheme, candidates)
        except TooFewEligibleError:
            return ()

    @property
    def uniform(self) -> bool:
        """Whether each cohort is a uniform subset of all clients, given its size, whatever the earlier ones were.

        Not where clients keep a distance between rounds, nor where one may have to sit out for its budget: what is then
        released says something about earlier cohorts, which amplification takes to be secret for ever. Both are known
        before the first round, so that the claim does not depend on how the coins fell.
        """
        return self.scheme is not None and self.min_separation == 1 and self.participations >= self.rounds


def corrupt_clients(config: RunConfig) -> int:
    """How many of all clients are taken to be corrupt."""
    return math.floor(config.aggregation.corrupt * config.clients + 1e-9)


def _colluders(clients: int, cohort: int, corrupt: float) -> int:
    """Most corrupt clients in a random cohort: the tail of the masking's parameter finder, 2^-41 or less.

    The finder takes as many clients as a session has. Beyond these, a binomial, whose tail is the heavier one of the
    two (Uhlmann, Metrika 10, 1966).
    """
    if corrupt == 0 or clients <= MAX_CLIENTS:
        return corrupt_holders(clients, min(cohort, clients - 1), corrupt) if corrupt > 0 else 0
    return binomial_range(min(cohort, clients - 1), corrupt, 2.0**-41 / clients)[1]


def _dropouts(config: RunConfig, size: int) -> int:
    return math.floor(config.dropout_tolerance * size + 1e-9)
