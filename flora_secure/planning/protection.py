"""The sections of a run's description that say how clients are protected: budget, cohorts, masks. As in
`flora_secure.planning.sections`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flora_secure.errors import require, require_positive
from flora_secure.planning.options import SIMULATE, option

Unit = Literal["client", "example"]
Sampling = Literal["poisson", "fixed"]
SecAgg = Literal["off", "semi-honest", "malicious-server"]
SuiteName = Literal["x25519", "x25519-mlkem768"]
Masking = Literal["run", "counted"]

# chosen on public data alone: docs/studies/choose_defaults.py
CLIP_NORM: dict[Unit, float] = {"client": 0.15, "example": 3.0}
EXAMPLE_RATE = 0.1

# what the accountants can count, in seconds: docs/privacy/accounting.md, "Limits"
MOST_EPSILON = 100.0
LEAST_DELTA: dict[Unit, float] = {"client": 1e-12, "example": 1e-10}
LEAST_EXAMPLE_RATE = 1e-4

MOST_SUMS = 64 << 20  # bytes of released sums that are kept unless a run is told otherwise
MOST_CANARIES = 1_000_000  # as many as clients
MAX_SLOTS = 1024  # of a session of flora_protocols, which takes numpy to import; a test holds them together


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """The budget of the whole run, and the noise that it takes."""

    epsilon: float = option(
        4.0,
        "--epsilon",
        "Privacy budget ε of the whole run, at most 100; inf trains without noise.",
        everyday=True,
    )
    delta: float | None = option(
        None,
        "--delta",
        "δ of the budget, at least 1e-12 (1e-10 for unit example).",
        derived="min(1e-5, 1/clients^1.1)",
    )
    unit: Unit = option("client", "--unit", "Whom the budget protects: client or example (one image).", metavar="UNIT")
    clip_norm: float | None = option(
        None,
        "--clip-norm",
        "L2 norm that updates, or the gradients of examples, are clipped to.",
        derived="tuned for the unit",
    )
    example_rate: float | None = option(
        None,
        "--example-rate",
        "Unit example: probability of an image to enter a round, by a secret coin, at least 1e-4.",
        derived="0.1",
    )
    adaptive_clip: float | None = option(
        None,
        "--adaptive-clip",
        "Unit client: let the clip norm follow this quantile of the updates' norms, estimated privately.",
        metavar="QUANTILE",
        derived="off",
        commands=(SIMULATE,),
    )
    dropout_tolerance: float | None = option(
        None,
        "--dropout-tolerance",
        "Fraction of dropped clients that the noise allows for.",
        derived="the larger of 0.1 and dropout",
    )
    bits: int | None = option(None, "--bits", "Bits a value on the wire, 8…32.", derived="solved for")
    simulation_noise: bool = option(
        False,
        "--simulation-noise",
        "Draw the noise from the seed: repeatable, and NOT secret.",
        commands=(SIMULATE,),
    )

    def __post_init__(self) -> None:
        require(
            self.epsilon > 0, f"`privacy.epsilon` must be above 0, or inf for a run without noise; got {self.epsilon:g}"
        )
        require(
            self.epsilon <= MOST_EPSILON or self.epsilon == math.inf,
            f"`privacy.epsilon` {self.epsilon:g} is more than the {MOST_EPSILON:g} that can be accounted for, and "
            "hardly any privacy: take less, or inf for a run without noise",
        )
        require(
            self.delta is None or 0 < self.delta < 1,
            f"`privacy.delta` must lie between 0 and 1 (leave it out for min(1e-5, 1/clients^1.1)); got {self.delta}",
        )
        least = LEAST_DELTA[self.unit]
        require(
            self.delta is None or self.delta >= least,
            f"`privacy.delta` {self.delta} is less than the {least:g} that can be accounted for with `privacy.unit` "
            f"{self.unit}; take more",
        )
        require_positive("privacy.clip_norm", self.clip_norm)
        require(
            self.example_rate is None or self.unit == "example",
            f"`privacy.example_rate` {self.example_rate} is for `privacy.unit` example; set that or leave it out",
        )
        require(
            self.example_rate is None or 0 < self.example_rate <= 1,
            f"`privacy.example_rate` must be above 0 and at most 1, got {self.example_rate}",
        )
        require(
            self.example_rate is None or self.example_rate >= LEAST_EXAMPLE_RATE,
            f"`privacy.example_rate` must be at least {LEAST_EXAMPLE_RATE:g}, less cannot be accounted for; got "
            f"{self.example_rate}",
        )
        require(
            self.adaptive_clip is None or self.unit == "client",
            f"`privacy.adaptive_clip` {self.adaptive_clip} is for `privacy.unit` client, whose updates have norms to "
            "follow; leave it out",
        )
        require(
            self.adaptive_clip is None or 0 < self.adaptive_clip < 1,
            f"`privacy.adaptive_clip` is a quantile between 0 and 1, such as 0.5; got {self.adaptive_clip}",
        )
        require(
            self.dropout_tolerance is None or 0 <= self.dropout_tolerance < 1,
            f"`privacy.dropout_tolerance` must be at least 0 and below 1, got {self.dropout_tolerance}",
        )
        require(self.bits is None or 8 <= self.bits <= 32, f"`privacy.bits` must lie in 8…32, got {self.bits}")


@dataclass(frozen=True, kw_only=True)
class ParticipationConfig:
    """Who takes part in a round."""

    rate: float = option(1.0, "--participation", "Fraction of the clients in a round.")
    sampling: Sampling | None = option(
        None,
        "--sampling",
        "How cohorts are drawn when participation is below 1: poisson (a coin each) or fixed (one size).",
        metavar="KIND",
    )
    min_separation: int = option(
        1, "--min-separation", "Rounds between two participations of a client, 1 for no restriction."
    )

    def __post_init__(self) -> None:
        require(
            0 < self.rate <= 1, f"`participation.rate` must be above 0 and at most 1 (everybody), got {self.rate:g}"
        )
        require(
            self.rate == 1 or self.sampling is not None,
            f"`participation.rate` {self.rate:g} needs a kind of sampling: `participation.sampling` poisson (each "
            "client by a coin, cohorts of varying size) or fixed (always the same size)",
        )
        require(
            self.rate < 1 or self.sampling is None,
            f"`participation.sampling` {self.sampling} is for a `participation.rate` below 1; at 1 everybody takes "
            "part",
        )
        require(
            self.min_separation >= 1, f"`participation.min_separation` must be at least 1, got {self.min_separation}"
        )
        require(
            self.rate < 1 or self.min_separation == 1,
            f"`participation.min_separation` {self.min_separation} is for a `participation.rate` below 1; at 1 "
            "everybody is in every round",
        )


@dataclass(frozen=True, kw_only=True)
class AggregationConfig:
    """How updates are summed."""

    secagg: SecAgg = option(
        "semi-honest", "--secagg", "Whom the masks resist: off, semi-honest or malicious-server.", metavar="PROFILE"
    )
    masking: Masking = option(
        "run",
        "--masking",
        "What to do with masks: run; or, for big studies, counted: count their messages by size and sum in the clear.",
        metavar="HOW",
    )
    neighbours: int | None = option(
        None,
        "--neighbours",
        "Clients that each shares masks with; clients − 1 for everybody.",
        derived="as many as its promises need",
    )
    threshold: int | None = option(
        None, "--threshold", "Shares needed to reveal a secret.", derived="as many as its promises need"
    )
    slots: int | None = option(
        None,
        "--slots",
        "Rounds for which masks are prepared at once.",
        derived="a tenth more than there are rounds where everybody takes part, at most 64; 1 for cohorts",
    )
    suite: SuiteName | None = option(
        None,
        "--suite",
        "What the clients' channels rest on: x25519, or x25519-mlkem768 against quantum computers to come.",
        metavar="SUITE",
        derived="x25519-mlkem768 where several rounds are prepared at once and cryptography has it, else x25519",
    )
    corrupt: float = option(
        0.05, "--corrupt", "Fraction of all clients that may collude with the server; sizes noise and masks."
    )
    dropout: float = option(0.0, "--dropout", "Fraction of a round's clients that vanish before their upload.")

    def __post_init__(self) -> None:
        require(
            self.slots is None or 1 <= self.slots <= MAX_SLOTS,
            f"`aggregation.slots` must lie in 1…{MAX_SLOTS}, got {self.slots}",
        )
        require(
            0 <= self.corrupt < 1,
            "`aggregation.corrupt` must be at least 0 and below 1 (nobody would be left to protect); got "
            f"{self.corrupt:g}",
        )
        require(
            0 <= self.dropout < 1,
            "`aggregation.dropout` must be at least 0 and below 1 (at 1 no client is left to sum); got "
            f"{self.dropout:g}",
        )

    @property
    def masks(self) -> Literal["off", "run", "counted"]:
        """What becomes of the masks: there are none, they are made, or their messages are counted only."""
        return "off" if self.secagg == "off" else self.masking


@dataclass(frozen=True, kw_only=True)
class EvidenceConfig:
    """What a run leaves for its auditors beside its log."""

    keep_sums: bool | None = option(
        None,
        "--keep-sums/--no-keep-sums",
        "Keep every released sum, from which an audit takes the server's steps again.",
        derived=f"kept up to {MOST_SUMS >> 20} MiB",
        commands=(SIMULATE,),
    )
    transcript: bool | None = option(
        None,
        "--transcript/--no-transcript",
        "Keep every message of the masking protocol, as the server sees it.",
        derived="kept by a federation of real sites, not by a simulation",
        commands=(SIMULATE,),
    )
    canaries: int = option(
        0,
        "--canaries",
        "Clients without data beside the others, which a secret coin lets contribute or not, so that an audit can "
        "measure the noise; 0 for none. They cost accuracy; the coins lie beside the run folder.",
        commands=(SIMULATE,),
    )
    canary_commitment: str | None = option(
        None, None, "SHA-256 of the file that keeps the canaries' coins, which the run writes down when it begins."
    )

    def __post_init__(self) -> None:
        require(
            0 <= self.canaries <= MOST_CANARIES,
            f"`evidence.canaries` must lie in 0…{MOST_CANARIES:,}, got {self.canaries}",
        )
        require(
            self.canaries == 0 or self.keep_sums is not False,
            "`evidence.keep_sums` false leaves nothing that `evidence.canaries` could be read from: keep them",
        )
        require(
            self.canaries > 0 or self.canary_commitment is None,
            "`evidence.canary_commitment` is of canaries, and `evidence.canaries` is 0: leave it out",
        )

    def keeps_sums(self, rounds: int, length: int) -> bool:
        """Whether a run of so many rounds keeps its sums of `length` values: as given, or up to `MOST_SUMS` bytes, and
        always where canaries are in them."""
        small = 4 * rounds * length <= MOST_SUMS or self.canaries > 0
        return small if self.keep_sums is None else self.keep_sums
