"""The sections of a run's description: what each key may be, and which keys go together.

``None`` means "derived from the rest". Bad values raise :class:`ConfigError`: its message names key, value and remedy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flora_secure.errors import require, require_positive
from flora_secure.planning.placements import PLACEMENTS

Placement = Literal[
    "text-projection",
    "text-attention",
    "text-attention-full",
    "text-mlp",
    "visual-projection",
    "both-projections",
    "visual-attention",
]
Crops = Literal[1, 2, 4]
Rule = Literal["prompt-basis", "ab", "frozen-a", "alternate", "local-alternate"]
SecAgg = Literal["off", "semi-honest", "malicious-server"]
Unit = Literal["client", "example"]
Sampling = Literal["poisson", "fixed"]
Precision = Literal["float32", "bfloat16"]

# chosen on public data alone: docs/studies/choose_defaults.py
CLIP_NORM: dict[Unit, float] = {"client": 0.15, "example": 3.0}
EXAMPLE_RATE = 0.1

# what the accountants can count, in seconds: docs/privacy/accounting.md, "Limits"
MOST_EPSILON = 100.0
LEAST_DELTA: dict[Unit, float] = {"client": 1e-12, "example": 1e-10}
LEAST_EXAMPLE_RATE = 1e-4
MOST_ROUNDS, MOST_CLIENTS = 100_000, 1_000_000


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the clients hold. ``data_root`` is the folder (or file) of data sets that are not shipped; ``class_names``
    and ``templates`` are files, one a line, in the place of the data set's own. ``unseen_classes``: names of classes
    that nothing trains on, evaluated apart."""

    dataset: str = "embedded"
    data_root: str | None = None
    class_names: str | None = None
    templates: str | None = None
    unseen_classes: tuple[str, ...] | None = None
    clients: int = 100
    partition: str = "dirichlet:0.5"

    def __post_init__(self) -> None:
        names = self.unseen_classes
        require(
            names is None or (len(names) > 0 and all(names) and len(set(names)) == len(names)),
            "unseen_classes must name at least one class, and each once; got "
            + (", ".join(map(repr, names or ())) or "nothing"),
        )
        require(
            self.clients >= 2,
            f"clients must be at least 2, since one client's sum is its own update; got {self.clients}",
        )
        require(self.clients <= MOST_CLIENTS, f"clients must be at most {MOST_CLIENTS:,}, got {self.clients}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The frozen CLIP and where its adapter sits. ``rule`` and ``rank``: ``None`` for the placement's own.

    ``alpha``: LoRA's, ``None`` for the rank, which adds A B as it is. ``last_layers``: hold a placement in a tower's
    blocks to the last so many. ``mirror``: embed an image together with its mirror image; ``None`` does so where the
    data set allows it. ``crops`` of an image are embedded together: 1 is the whole image, 2 also it a little
    smaller, 4 also it a little lower and higher (`views`).
    """

    model: str = "tiny"
    pretrained: str | None = None
    placement: Placement = "text-projection"
    rule: Rule | None = None
    rank: int | None = None
    alpha: float | None = None
    last_layers: int | None = None
    mirror: bool | None = None
    crops: Crops = 1

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"rank must be at least 1, got {self.rank}")
        require(
            self.placement == "text-projection" or self.rule != "prompt-basis",
            f"rule prompt-basis is for placement text-projection, not {self.placement}; use --rule frozen-a or ab",
        )
        require_positive("alpha", self.alpha)
        require(
            self.last_layers is None or self.last_layers >= 1, f"last_layers must be at least 1, got {self.last_layers}"
        )
        require(
            self.last_layers is None or PLACEMENTS[self.placement].blocks,
            f"last_layers {self.last_layers} is for a placement in a tower's blocks, such as text-attention; "
            f"{self.placement} has one matrix a tower",
        )

    @property
    def trained_rule(self) -> str:
        """The rule's name: as given, or the placement's default."""
        return self.rule or PLACEMENTS[self.placement].rule

    def scale(self, rank: int) -> float:
        """What A B is multiplied by: alpha ÷ ``rank``."""
        return 1.0 if self.alpha is None else self.alpha / rank


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Rounds, local steps (full batch) and the server's step; `None` means the tuned default of rule or unit.

    Local steps and rate are those of unit `client`; unit `example` takes one gradient a round. `server_momentum` is
    FedAvgM's. `warm_start`: steps of self-training on public images, without labels, before round 1; 0 starts from the
    frozen model. `control_variate`: how much of what public images say about a client's class frequencies its gradient
    leaves out, 0 for nothing. `precision`: of the products inside a tower that stays frozen; all that trains is
    float32.
    """

    rounds: int = 20
    local_steps: int = 3
    local_rate: float | None = None
    logit_scale: float = 28.0
    server_step: float | None = None
    server_momentum: float = 0.5
    warm_start: int = 100
    control_variate: float = 1.0
    device: str = "cpu"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}")
        require(self.rounds <= MOST_ROUNDS, f"rounds must be at most {MOST_ROUNDS:,}, got {self.rounds}")
        require(self.local_steps >= 1, f"local_steps must be at least 1, got {self.local_steps}")
        require(self.warm_start >= 0, f"warm_start must be at least 0 steps, got {self.warm_start}")
        require(0 <= self.control_variate <= 1, f"control_variate must lie between 0 and 1, got {self.control_variate}")
        for name in ("local_rate", "server_step", "logit_scale"):
            require_positive(name, getattr(self, name))
        require(
            0 <= self.server_momentum < 1,
            f"server_momentum must be at least 0 and below 1, got {self.server_momentum}",
        )


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """The budget of the whole run. ``epsilon = inf`` means no noise; ``dropout_tolerance`` sizes the noise shares.

    ``example_rate``: probability of an example to enter its client's upload in a round, unit ``example`` only.
    ``adaptive_clip``: quantile of the updates' norms that the clip norm follows, from ``clip_norm`` on; unit ``client``
    only; ``None`` keeps the clip norm.
    """

    epsilon: float = 4.0
    delta: float | None = None
    unit: Unit = "client"
    clip_norm: float | None = None
    example_rate: float | None = None
    adaptive_clip: float | None = None
    dropout_tolerance: float | None = None
    bits: int | None = None
    simulation_noise: bool = False

    def __post_init__(self) -> None:
        require(self.epsilon > 0, f"epsilon must be above 0, or inf for a run without noise; got {self.epsilon:g}")
        require(
            self.epsilon <= MOST_EPSILON or self.epsilon == math.inf,
            f"epsilon {self.epsilon:g} is more than the {MOST_EPSILON:g} that can be accounted for, and hardly any "
            "privacy: take less, or inf for a run without noise",
        )
        require(
            self.delta is None or 0 < self.delta < 1,
            f"delta must lie between 0 and 1 (leave it out for min(1e-5, 1/clients^1.1)); got {self.delta}",
        )
        least = LEAST_DELTA[self.unit]
        require(
            self.delta is None or self.delta >= least,
            f"delta {self.delta} is less than the {least:g} that can be accounted for with unit {self.unit}; take more",
        )
        require_positive("clip_norm", self.clip_norm)
        require(
            self.example_rate is None or self.unit == "example",
            f"example_rate {self.example_rate} is for unit example; set --unit example or leave it out",
        )
        require(
            self.example_rate is None or 0 < self.example_rate <= 1,
            f"example_rate must be above 0 and at most 1, got {self.example_rate}",
        )
        require(
            self.example_rate is None or self.example_rate >= LEAST_EXAMPLE_RATE,
            f"example_rate must be at least {LEAST_EXAMPLE_RATE:g}, less cannot be accounted for; got "
            f"{self.example_rate}",
        )
        require(
            self.adaptive_clip is None or self.unit == "client",
            f"adaptive_clip {self.adaptive_clip} is for unit client, whose updates have norms to follow; leave it out",
        )
        require(
            self.adaptive_clip is None or 0 < self.adaptive_clip < 1,
            f"adaptive_clip is a quantile between 0 and 1, such as 0.5; got {self.adaptive_clip}",
        )
        require(
            self.dropout_tolerance is None or 0 <= self.dropout_tolerance < 1,
            f"dropout_tolerance must be at least 0 and below 1, got {self.dropout_tolerance}",
        )
        require(self.bits is None or 8 <= self.bits <= 32, f"bits must lie in 8…32, got {self.bits}")


@dataclass(frozen=True, kw_only=True)
class ParticipationConfig:
    """Who takes part in a round. ``rate``: fraction of the clients; below 1 ``sampling`` says how a cohort is drawn.

    ``min_separation``: rounds between two participations of a client, 1 for no restriction.
    """

    rate: float = 1.0
    sampling: Sampling | None = None
    min_separation: int = 1

    def __post_init__(self) -> None:
        require(0 < self.rate <= 1, f"participation must be above 0 and at most 1 (everybody), got {self.rate:g}")
        require(
            self.rate == 1 or self.sampling is not None,
            f"participation {self.rate:g} needs a kind of sampling: --sampling poisson (each client by a coin, cohorts "
            "of varying size) or --sampling fixed (always the same size)",
        )
        require(
            self.rate < 1 or self.sampling is None,
            f"sampling {self.sampling} is for a participation below 1; at 1 everybody takes part",
        )
        require(self.min_separation >= 1, f"min_separation must be at least 1, got {self.min_separation}")
        require(
            self.rate < 1 or self.min_separation == 1,
            f"min_separation {self.min_separation} is for a participation below 1; at 1 everybody is in every round",
        )


@dataclass(frozen=True, kw_only=True)
class AggregationConfig:
    """How updates are summed. ``dropout`` is the fraction of a cohort that vanishes in every round after sharing keys,
    ``corrupt`` the fraction of all clients that may collude with the server: masks and noise resist them."""

    secagg: SecAgg = "semi-honest"
    neighbours: int | None = None
    threshold: int | None = None
    corrupt: float = 0.05
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(
            0 <= self.corrupt < 1,
            f"corrupt must be at least 0 and below 1 (nobody would be left to protect); got {self.corrupt:g}",
        )
        require(
            0 <= self.dropout < 1,
            f"dropout must be at least 0 and below 1 (at 1 no client is left to sum); got {self.dropout:g}",
        )
