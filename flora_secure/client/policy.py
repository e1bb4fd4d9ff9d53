"""What a client insists on, from its own file: nothing of it comes from the server, and none of it is sent."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from flora_protocols import Floors
from flora_secure.boundary.foreign import read_text, toml_of
from flora_secure.errors import ConfigError, ForeignError, PlainError, Refusal, RefusalError, require
from flora_secure.plain import from_plain
from flora_secure.planning.masking import SUITES, name_of
from flora_secure.planning.placements import ARRAYS, PLACEMENTS
from flora_secure.privacy.events import RoundEvent
from flora_secure.rounds.invitation import Invitation

_STRENGTH = {"semi-honest": 0, "malicious-server": 1}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A client's own terms. An invitation that falls short of one of them is refused.

    Attributes:
        profile: weakest profile of the masking that is accepted, `semi-honest` or `malicious-server`.
        least_noise: least noise multiplier z of a round's sum, counted from the noise that the honest clients among
            its fewest survivors add. 0 accepts rounds without noise, and so without differential privacy.
        most_epsilon: largest ε of this client's own ledger, over everything that it has ever given; infinity for none.
        delta: at which that ε is counted.
        most_rounds: how many rounds of one session it uploads in.
        last_round: largest number of a round that it takes part in; None for `most_rounds`. A masking session's graph
            follows from the number of its first round: a server that could take any would look for a graph that it
            likes. Where cohorts are drawn, set it to the rounds of a run.
        corrupt: fraction of the cohort that may collude with the server, whatever the server says of it: their noise
            counts for nothing. 0 leaves it to the plan.
        least_clients: smallest cohort that it joins.
        least_threshold: smallest threshold t of the secret sharing.
        least_survivors: smallest number of vectors, its own included, in whose sum it lets its own disappear.
        suite: weakest suite of the masking's channels that is accepted, `x25519` or `x25519-mlkem768`.
        unit: whom the noise must protect, `client` or `example`.
        placements: names of the placements that it trains; `arrays` is a model of its user's own, which is not among
            the default.

    Raises ConfigError for values out of range.
    """

    profile: str = "malicious-server"
    least_noise: float
    most_epsilon: float
    delta: float
    most_rounds: int
    last_round: int | None = None
    corrupt: float = 0.05
    least_clients: int = 2
    least_threshold: int = 2
    least_survivors: int = 2
    suite: str = "x25519"
    unit: str = "client"
    placements: tuple[str, ...] = tuple(PLACEMENTS)

    def __post_init__(self) -> None:
        require(self.profile in _STRENGTH, f"profile must be {' or '.join(_STRENGTH)}, got {self.profile!r}")
        require(0 <= self.least_noise < math.inf, f"least_noise must be a number of at least 0, got {self.least_noise}")
        require(self.most_epsilon > 0, f"most_epsilon must be above 0, got {self.most_epsilon}")
        require(0 < self.delta < 1, f"delta must lie between 0 and 1, got {self.delta}")
        require(0 <= self.corrupt < 1, f"corrupt must be at least 0 and below 1, got {self.corrupt}")
        require(self.most_rounds >= 1, f"most_rounds must be at least 1, got {self.most_rounds}")
        last = self.last_round
        require(last is None or last >= 1, f"last_round must be at least 1, got {last}")
        for name in ("least_clients", "least_threshold", "least_survivors"):
            require(2 <= getattr(self, name) <= 1 << 16, f"{name} must lie in 2…65536, got {getattr(self, name)}")
        require(self.suite in SUITES, f"suite must be {' or '.join(SUITES)}, got {self.suite!r}")
        require(self.unit in ("client", "example"), f"unit must be client or example, got {self.unit!r}")
        known = (*PLACEMENTS, ARRAYS)
        unknown = set(self.placements).difference(known)
        require(not unknown, f"placements {sorted(unknown)} are not known; known: {', '.join(known)}")

    @classmethod
    def read(cls, path: Path) -> Policy:
        """The policy in a TOML file that gives every key of this class. Raises ConfigError naming the file."""
        try:
            table = toml_of(read_text(path, 1 << 20))
            table["placements"] = list(table["placements"])
            return cls(**{**vars(from_plain(_PolicyFile, table)), "placements": tuple(table["placements"])})
        except ForeignError as error:
            raise ConfigError(f"policy {path} cannot be read: {error}") from None
        except KeyError as error:
            raise ConfigError(f"policy {path}: key {error} is missing") from None
        except (TypeError, ConfigError, PlainError) as error:
            raise ConfigError(f"policy {path}: {error}") from None

    def worst_event(self, invitation: Invitation) -> RoundEvent:
        """What the round releases at the worst, with as many colluders as the plan or this policy says.

        Raises ValueError where that leaves nobody's noise, or the plan's numbers are impossible.
        """
        event = invitation.worst_event
        colluders = math.ceil(self.corrupt * invitation.plan.clients - 1e-9)
        return dataclasses.replace(event, colluders=max(event.colluders, colluders))

    def accept(self, invitation: Invitation) -> tuple[RoundEvent, Floors]:
        """What the round costs this client at the worst, and the floors that it brings to the protocol.

        The floors are the stricter of its own and the plan's: it lets its vector disappear in no sum of fewer clients
        than the noise needs. Raises RefusalError naming the term that the invitation falls short of.
        """
        plan, params = invitation.plan, invitation.params
        if params is None:
            raise RefusalError(Refusal.PROFILE, "the round has no masking: the server would see the upload by itself")
        if _STRENGTH[params.profile.value] < _STRENGTH[self.profile]:
            raise RefusalError(
                Refusal.PROFILE, f"the round's profile is {params.profile.value}, this client insists on {self.profile}"
            )
        if invitation.unit != self.unit:
            raise RefusalError(
                Refusal.UNIT, f"the round protects unit {invitation.unit}, this client insists on {self.unit}"
            )
        last = self.most_rounds if self.last_round is None else self.last_round
        if invitation.round > last:
            raise RefusalError(
                Refusal.ROUNDS, f"round {invitation.round} is beyond the last that this client takes part in, {last}"
            )
        if invitation.placement not in self.placements:
            raise RefusalError(Refusal.PLACEMENT, f"placement {invitation.placement!r} is none that this client trains")
        try:
            event = self.worst_event(invitation)
        except ValueError as error:
            raise RefusalError(Refusal.PLAN, f"the round's plan is impossible: {error}") from None
        if event.noise_multiplier < self.least_noise:
            raise RefusalError(
                Refusal.NOISE,
                f"the round's noise multiplier is {event.noise_multiplier:.4g} at the worst, this client insists on "
                f"{self.least_noise:.4g}",
            )
        survivors = max(self.least_survivors, plan.survivors_minimum)
        clients = max(self.least_clients, plan.survivors_minimum)
        for what, offered, least in (
            ("clients", params.clients, clients),
            ("threshold", params.threshold, self.least_threshold),
            ("survivors", plan.survivors_minimum, self.least_survivors),
        ):
            if offered < least:
                raise RefusalError(Refusal.FLOORS, f"the round's {what} are {offered}, this client insists on {least}")
        if params.suite < SUITES[self.suite]:
            raise RefusalError(
                Refusal.PROFILE, f"the round's suite is {name_of(params.suite)}, this client insists on {self.suite}"
            )
        floors = Floors(clients=clients, threshold=params.threshold, survivors=survivors, suite=SUITES[self.suite])
        return event, floors


@dataclass(frozen=True, kw_only=True)
class _PolicyFile:
    """The keys of a policy's file: `Policy` with a list, as TOML has it."""

    profile: str
    least_noise: float
    most_epsilon: float
    delta: float
    most_rounds: int
    last_round: int
    corrupt: float
    least_clients: int
    least_threshold: int
    least_survivors: int
    suite: str
    unit: str
    placements: list[str]
