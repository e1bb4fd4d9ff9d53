"""Who shares masks with whom: graph and threshold of a round, from its noise plan."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from flora_protocols import Profile, SessionParams, corrupt_holders, find_parameters
from flora_protocols.params import MAX_CLIENTS
from flora_secure.errors import require
from flora_secure.privacy.noise_plan import NoisePlan


@dataclass(frozen=True)
class MaskingPlan:
    """Who shares masks with whom: `neighbours` k (clients − 1: everybody), `threshold` t, and how many of the
    holders of any client's shares may be `corrupt`."""

    neighbours: int
    threshold: int
    corrupt: int

    def session(
        self,
        plan: NoisePlan,
        profile: Profile,
        *,
        number: int = 0,
        model_hash: bytes = bytes(32),
        identities: tuple[bytes, ...] = (),
    ) -> SessionParams:
        """The masking protocol's parameters of a round with this graph and that noise.

        `number` of the round, `model_hash` 32 bytes, `identities` of the members in their order (malicious-server
        profile). Raises `flora_protocols.ParameterError` for what cannot work together.
        """
        return SessionParams(
            clients=plan.clients,
            neighbours=self.neighbours,
            threshold=self.threshold,
            bits=plan.bits,
            dimension=plan.length,
            profile=profile,
            round=number,
            model_hash=model_hash,
            corrupt=self.corrupt,
            identities=identities,
        )


def plan_masking(
    plan: NoisePlan, profile: Profile, neighbours: int | None = None, threshold: int | None = None
) -> MaskingPlan:
    """Graph and threshold for the dropouts and colluders that the noise of `plan` is sized for.

    `neighbours`, taken as all the others where there are fewer, defaults to the least that keeps the promises of
    `flora_protocols.find_parameters`. So does `threshold`, but in the complete graph it is a majority where the
    dropouts allow one: there it costs nothing.
    Raises `flora_protocols.ParameterError` where nothing can work, and ConfigError for more clients than a session has.
    """
    require(
        plan.clients <= MAX_CLIENTS,
        f"{plan.clients:,} of `data.clients` may be in one round, and masks are for at most {MAX_CLIENTS:,}: take a "
        "smaller `participation.rate` with `participation.sampling` fixed or poisson, or `aggregation.secagg` off",
    )
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
