"""Who shares masks with whom, for how many rounds at once and over which channels."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction

from flora_protocols import Profile, SessionParams, Suite, corrupt_holders, find_parameters
from flora_protocols.params import MAX_CLIENTS, MAX_HELD
from flora_secure.errors import require
from flora_secure.planning.config import RunConfig
from flora_secure.planning.protection import SuiteName
from flora_secure.privacy.noise_plan import NoisePlan

MOST_SLOTS = 64  # of a session, unless asked: what a client keeps grows with them, and a set-up's share hardly falls
SPARE = 0.1
SUITES: dict[str, Suite] = {"x25519": Suite.X25519, "x25519-mlkem768": Suite.X25519_MLKEM768}


@dataclass(frozen=True)
class MaskingPlan:
    """Who shares masks with whom: `neighbours` k (clients − 1: everybody), `threshold` t, and how many of the
    holders of any client's shares may be `corrupt`; for how many rounds a session is set up, its `slots`, and the
    `suite` of its channels."""

    neighbours: int
    threshold: int
    corrupt: int
    slots: int
    suite: Suite

    def session(
        self,
        plan: NoisePlan,
        profile: Profile,
        *,
        number: int = 0,
        identities: tuple[bytes, ...] = (),
    ) -> SessionParams:
        """The parameters of a masking session with this graph, for rounds with that noise.

        `number` of the round in which it begins, `identities` of the members in their order (malicious-server
        profile). Raises `flora_protocols.ParameterError` for what cannot work together.
        """
        return SessionParams(
            clients=plan.clients,
            neighbours=self.neighbours,
            threshold=self.threshold,
            bits=plan.bits,
            dimension=plan.length,
            profile=profile,
            suite=self.suite,
            slots=self.slots,
            number=number,
            corrupt=self.corrupt,
            identities=identities,
        )


def plan_masking(
    plan: NoisePlan,
    profile: Profile,
    neighbours: int | None = None,
    threshold: int | None = None,
    *,
    slots: int = 1,
    suite: Suite = Suite.X25519,
) -> MaskingPlan:
    """Graph and threshold for the dropouts and colluders that the noise of `plan` is sized for, each of `slots` rounds.

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
    found, least = find_parameters(n, corrupt, Fraction(plan.dropouts, n), profile, slots=slots)
    k = found if neighbours is None else min(neighbours, n - 1)
    holding = corrupt_holders(n, k, corrupt)
    if threshold is not None:
        return MaskingPlan(k, threshold, holding, slots, suite)
    if k == n - 1:
        least = max(2, plan.colluders + 1, (n + plan.colluders) // 2 + 1 if profile is Profile.MALICIOUS_SERVER else 0)
        return MaskingPlan(k, max(least, min(n // 2 + 1, plan.survivors_minimum)), holding, slots, suite)
    if k != found:
        least = (holding + k) // 2 + 1 if profile is Profile.MALICIOUS_SERVER else max(holding + 1, 2)
    return MaskingPlan(k, least, holding, slots, suite)


def slots_of(config: RunConfig) -> int:
    """For how many rounds a masking session is set up: with a tenth to spare where everybody takes part, in as many
    sessions as `MOST_SLOTS`, or the neighbours asked for, need; for one where each round has a cohort of its own."""
    if config.aggregation.slots is not None:
        return config.aggregation.slots
    rounds = config.training.rounds
    if config.participation.sampling is not None or rounds == 1:
        return 1
    wanted = math.ceil((1 + SPARE) * rounds - 1e-9)
    most = min(MOST_SLOTS, MAX_HELD // min((config.aggregation.neighbours or 0) + 1, config.clients))
    return math.ceil(wanted / math.ceil(wanted / most))


def suite_of(config: RunConfig) -> Suite:
    """What the clients' channels rest on: X25519 and ML-KEM-768 together where a set-up serves several rounds and this
    installation has both, unless the config says what. Raises ConfigError for one that it lacks."""
    if config.aggregation.suite is None:
        hybrid = Suite.X25519_MLKEM768
        return hybrid if slots_of(config) > 1 and hybrid.available else Suite.X25519
    suite = SUITES[config.aggregation.suite]
    require(
        suite.available,
        f"`aggregation.suite` {config.aggregation.suite} needs ML-KEM-768, which this installation's cryptography "
        "lacks: install cryptography 48 or later, or take x25519",
    )
    return suite


def name_of(suite: Suite) -> SuiteName:
    """The suite as configs and policies call it."""
    return "x25519-mlkem768" if suite.hybrid else "x25519"


def settled(config: RunConfig) -> RunConfig:
    """The config with slots and suite as they are, so that a run goes on with them anywhere. Raises as `suite_of`."""
    if config.aggregation.secagg == "off":
        return config
    how = dataclasses.replace(config.aggregation, slots=slots_of(config), suite=name_of(suite_of(config)))
    return dataclasses.replace(config, aggregation=how)


def warning_of(config: RunConfig) -> str | None:
    """What to say where a set-up serves several rounds and this installation could not have taken ML-KEM."""
    hybrid = Suite.X25519_MLKEM768
    if config.aggregation.secagg == "off" or slots_of(config) == 1 or hybrid.available:
        return None
    return (
        "the channels of the masking rest on X25519 alone, since this installation's cryptography lacks ML-KEM-768: a "
        "quantum computer to come could read recordings; cryptography 48 or later has it"
    )


def masking_of(config: RunConfig, plan: NoisePlan) -> MaskingPlan | None:
    """Graph, threshold, slots and suite of the config's rounds with that noise; None without masking. Raises as
    `plan_masking` and `suite_of`."""
    how = config.aggregation
    if how.secagg == "off":
        return None
    profile = Profile(how.secagg)
    return plan_masking(plan, profile, how.neighbours, how.threshold, slots=slots_of(config), suite=suite_of(config))
