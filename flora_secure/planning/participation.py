"""Who takes part in a round: pure functions of a seeded generator and of what happened before.

Cohorts are no secret from the server, so drawing them amplifies nothing against it; each client pays for the rounds
that it was in (`accounting.Ledger`). Outsiders do not know them: that is `RoundEvent.population`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np


class TooFewEligibleError(ValueError):
    """Fewer clients may take part than a cohort of fixed size needs."""


@dataclass(frozen=True)
class PoissonCohort:
    """Every eligible client takes part with probability `rate`, in (0, 1], independently; the size varies."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"a participation rate lies in (0, 1], got {self.rate!r}")


@dataclass(frozen=True)
class FixedCohort:
    """`size` of the eligible clients, every subset of that size equally likely."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a cohort has at least 1 client, got {self.size}")


Scheme = PoissonCohort | FixedCohort


def eligible(
    clients: int,
    round_number: int,
    last_round: Mapping[int, int],
    *,
    minimum_separation: int = 1,
    exhausted: Collection[int] = (),
) -> tuple[int, ...]:
    """Clients 0..clients−1 that may take part in this round, in order.

    Args:
        clients: N >= 1.
        round_number: >= 1.
        last_round: client → the last round that it took part in; clients that never did are absent.
        minimum_separation: >= 1; rounds between two participations of a client, 1 for no restriction. Above 1 the
            draws of different rounds depend on each other and the cohort is no uniform subset: amplification by
            sampling, Poisson or fixed, does not hold for outsiders either. Leave `RoundEvent.population` None.
        exhausted: clients that the ledger refuses (`Ledger.refused`); leaving some out has the same consequence.
    """
    if clients < 1 or round_number < 1 or minimum_separation < 1:
        raise ValueError(
            f"clients, round and minimum separation start at 1, got {clients}, {round_number}, {minimum_separation}"
        )
    out = set(exhausted)
    return tuple(
        i
        for i in range(clients)
        if i not in out and (i not in last_round or round_number - last_round[i] >= minimum_separation)
    )


def draw_cohort(rng: np.random.Generator, scheme: Scheme, candidates: Collection[int]) -> tuple[int, ...]:
    """The clients of one round, in order.

    Args:
        rng: consumed. Of secret randomness where outsiders are to gain from not knowing the cohort.
        scheme: Poisson or fixed size.
        candidates: from `eligible`.

    Returns:
        A Poisson cohort may be empty; the round is then skipped.

    Raises:
        TooFewEligibleError: fewer candidates than a fixed cohort's size.
    """
    pool = np.array(sorted(candidates), dtype=np.int64)
    if isinstance(scheme, PoissonCohort):
        return tuple(pool[rng.random(pool.size) < scheme.rate].tolist())
    if pool.size < scheme.size:
        raise TooFewEligibleError(
            f"{pool.size} clients may take part, a cohort needs {scheme.size}: take smaller cohorts, a smaller "
            f"minimum separation or fewer rounds"
        )
    return tuple(sorted(rng.choice(pool, scheme.size, replace=False).tolist()))


def vanishing_of(seed: int | None, number: int, cohort: Collection[int], dropout: float) -> set[int]:
    """The clients of round `number` that vanish before their upload, a fraction `dropout` of them.

    `seed`: of the experiment, which reports publish; None draws from the operating system's randomness. Who survived is
    as secret from outsiders as who was asked, where their epsilon is amplified.
    """
    members = list(cohort)
    count = math.floor(dropout * len(members))
    rng = np.random.default_rng(None if seed is None else [seed, 1, number])
    return {members[place] for place in rng.choice(len(members), count, replace=False).tolist()}


def binomial_range(trials: int, rate: float, miss: float) -> tuple[int, int]:
    """Least interval [low, high] that Binomial(trials, rate) leaves on either side with probability at most `miss`.

    For the sizes of Poisson cohorts (trials = clients) and the participations of a client (trials = rounds).
    """
    if trials < 1 or not 0 < rate <= 1 or not 0 < miss < 0.5:
        raise ValueError(f"trials >= 1, rate in (0, 1], miss in (0, 1/2) expected, got {trials}, {rate}, {miss}")
    if rate == 1:
        return trials, trials
    k = np.arange(trials + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    log_mass = (
        log_factorial[-1] - log_factorial - log_factorial[::-1] + k * math.log(rate) + (trials - k) * math.log1p(-rate)
    )
    mass = np.exp(log_mass)
    low = int(np.searchsorted(np.cumsum(mass), miss, side="right"))
    high = trials - int(np.searchsorted(np.cumsum(mass[::-1]), miss, side="right"))
    return low, high
