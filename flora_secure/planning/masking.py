"""Who shares masks with whom: graph and threshold of a round, from its noise plan."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from flora_protocols import Profile, corrupt_holders, find_parameters
from flora_secure.privacy.noise_plan import NoisePlan


@dataclass(frozen=True)
class MaskingPlan:
    """Who shares masks with whom: `neighbours` k (clients − 1: everybody), `threshold` t, and how many of the
    holders of any client's shares may be `corrupt`."""

    neighbours: int
    threshold: int
    corrupt: int


def plan_masking(
    plan: NoisePlan, profile: Profile, neighbours: int | None = None, threshold: int | None = None
) -> MaskingPlan:
    """Graph and threshold for the dropouts and colluders that the noise of `plan` is sized for.

    `neighbours`, taken as all the others where there are fewer, defaults to the least that keeps the promises of
    `flora_protocols.find_parameters`. So does `threshold`, but in the complete graph it is a majority where the
    dropouts allow one: there it costs nothing.
    Raises `flora_protocols.ParameterError` where nothing can work.
    """
    n, corrupt = plan.clients, Fraction(plan.colluders, plan.clients)
    found, least = find_parameters(n, corrupt, Fraction(plan.dropouts, n), profile)
    k = found if neighbours is None else min(neighbours, n - 1)
    holding = corrupt_holders(n, k, corrupt)
    if threshold is not None:
        return MaskingPlan(k, threshold, holding)
    if k == n - 1:
        least = max(2, plan.colluders + 1, (n + plan.colluders) // 2 + 1 if profile is Profile.MALICIOUS_SERVER else 0)
        return MaskingPlan(k, max(least, min(n // 2 + 1, plan.survivors_minimum)), holding)
    if k != found:
        least = (holding + k) // 2 + 1 if profile is Profile.MALICIOUS_SERVER else max(holding + 1, 2)
    return MaskingPlan(k, least, holding)
