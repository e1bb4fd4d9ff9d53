"""One description of a run: TOML ↔ frozen dataclasses; unknown keys are errors.

Every section is a table of the TOML file and a field of :class:`RunConfig`. ``None`` means "derived from the rest"
and is left out of the file. Bad values raise :class:`ConfigError`, whose message names key, value and remedy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from flora_secure.errors import InputError
from flora_secure.placements import PLACEMENTS


class ConfigError(InputError):
    """A value of the configuration is wrong; the message is one line for the person who set it."""


Placement = Literal[
    "text-projection",
    "text-attention",
    "text-attention-full",
    "text-mlp",
    "visual-projection",
    "both-projections",
    "visual-attention",
]
Rule = Literal["prompt-basis", "ab", "frozen-a", "alternate", "local-alternate"]
SecAgg = Literal["off", "semi-honest", "malicious-server"]
Unit = Literal["client", "example"]
Sampling = Literal["poisson", "fixed"]
ServerOptimiser = Literal["momentum", "adam", "yogi"]
Precision = Literal["float32", "bfloat16"]

# chosen on public data alone: benchmarks/choose_defaults.py
CLIP_NORM: dict[Unit, float] = {"client": 0.15, "example": 3.0}
SERVER_STEP: dict[Unit, float] = {"client": 0.4, "example": 10.0}  # the most; noise asks for less (server.quiet_step)
EXAMPLE_RATE = 0.1


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


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
        _require(
            names is None or (len(names) > 0 and all(names) and len(set(names)) == len(names)),
            "unseen_classes must name at least one class, and each once; got "
            + (", ".join(map(repr, names or ())) or "nothing"),
        )
        _require(
            self.clients >= 2,
            f"clients must be at least 2, since one client's sum is its own update; got {self.clients}",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The frozen CLIP and where its adapter sits. ``rule`` and ``rank``: ``None`` for the placement's own.

    ``alpha``: LoRA's, ``None`` for the rank, which adds A B as it is. ``last_layers``: hold a placement in a tower's
    blocks to the last so many. ``mirror``: embed an image together with its mirror image; ``None`` does so where the
    data set allows it. ``multi_scale``: embed it also a little smaller; ``None`` does so with the embedded model.
    """

    model: str = "tiny"
    pretrained: str | None = None
    placement: Placement = "text-projection"
    rule: Rule | None = None
    rank: int | None = None
    alpha: float | None = None
    last_layers: int | None = None
    mirror: bool | None = None
    multi_scale: bool | None = None

    def __post_init__(self) -> None:
        _require(self.rank is None or self.rank >= 1, f"rank must be at least 1, got {self.rank}")
        _require(
            self.placement == "text-projection" or self.rule != "prompt-basis",
            f"rule prompt-basis is for placement text-projection, not {self.placement}; use --rule frozen-a or ab",
        )
        _require(
            self.alpha is None or (math.isfinite(self.alpha) and self.alpha > 0),
            f"alpha must be a positive number (leave it out for the rank), got {self.alpha}",
        )
        _require(
            self.last_layers is None or self.last_layers >= 1, f"last_layers must be at least 1, got {self.last_layers}"
        )
        _require(
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
    """Rounds, local steps (full batch) and the server optimiser. ``None`` means the tuned default of rule or unit.

    Local steps and rate are those of unit ``client``; unit ``example`` takes one gradient a round. ``server_momentum``
    is β1 of an adaptive optimiser, which alone has ``server_beta2``, β2, and ``server_tau``, τ. ``warm_start``: steps
    of self-training on public images, without labels, before round 1; 0 starts from the frozen model. ``precision``: of
    the products inside a tower that stays frozen; all that trains is float32.
    """

    rounds: int = 20
    local_steps: int = 10
    local_rate: float | None = None
    logit_scale: float = 28.0
    server_optimiser: ServerOptimiser = "momentum"
    server_step: float | None = None
    server_momentum: float = 0.8
    server_beta2: float | None = None
    server_tau: float | None = None
    warm_start: int = 100
    device: str = "cpu"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        _require(self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}")
        _require(self.local_steps >= 1, f"local_steps must be at least 1, got {self.local_steps}")
        _require(self.warm_start >= 0, f"warm_start must be at least 0 steps, got {self.warm_start}")
        for name in ("server_beta2", "server_tau"):
            value = getattr(self, name)
            _require(
                value is None or self.server_optimiser != "momentum",
                f"{name} {value} is for server_optimiser adam or yogi; set --server-optimiser or leave it out",
            )
        for name in ("local_rate", "server_step", "server_tau", "logit_scale"):
            value = getattr(self, name)
            _require(
                value is None or (math.isfinite(value) and value > 0),
                f"{name} must be a positive number, got {value}",
            )
        _require(
            0 <= self.server_momentum < 1,
            f"server_momentum must be at least 0 and below 1, got {self.server_momentum}",
        )
        _require(
            self.server_beta2 is None or 0 < self.server_beta2 < 1,
            f"server_beta2 must lie between 0 and 1, such as 0.99; got {self.server_beta2}",
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
        _require(self.epsilon > 0, f"epsilon must be above 0, or inf for a run without noise; got {self.epsilon:g}")
        _require(
            self.delta is None or 0 < self.delta < 1,
            f"delta must lie between 0 and 1 (leave it out for min(1e-5, 1/clients^1.1)); got {self.delta}",
        )
        _require(
            self.clip_norm is None or (math.isfinite(self.clip_norm) and self.clip_norm > 0),
            f"clip_norm must be a positive number, got {self.clip_norm}",
        )
        _require(
            self.example_rate is None or self.unit == "example",
            f"example_rate {self.example_rate} is for unit example; set --unit example or leave it out",
        )
        _require(
            self.example_rate is None or 0 < self.example_rate <= 1,
            f"example_rate must be above 0 and at most 1, got {self.example_rate}",
        )
        _require(
            self.adaptive_clip is None or self.unit == "client",
            f"adaptive_clip {self.adaptive_clip} is for unit client, whose updates have norms to follow; leave it out",
        )
        _require(
            self.adaptive_clip is None or 0 < self.adaptive_clip < 1,
            f"adaptive_clip is a quantile between 0 and 1, such as 0.5; got {self.adaptive_clip}",
        )
        _require(
            self.dropout_tolerance is None or 0 <= self.dropout_tolerance < 1,
            f"dropout_tolerance must be at least 0 and below 1, got {self.dropout_tolerance}",
        )
        _require(self.bits is None or 8 <= self.bits <= 32, f"bits must lie in 8…32, got {self.bits}")


@dataclass(frozen=True, kw_only=True)
class ParticipationConfig:
    """Who takes part in a round. ``rate``: fraction of the clients; below 1 ``sampling`` says how a cohort is drawn.

    ``min_separation``: rounds between two participations of a client, 1 for no restriction.
    """

    rate: float = 1.0
    sampling: Sampling | None = None
    min_separation: int = 1

    def __post_init__(self) -> None:
        _require(0 < self.rate <= 1, f"participation must be above 0 and at most 1 (everybody), got {self.rate:g}")
        _require(
            self.rate == 1 or self.sampling is not None,
            f"participation {self.rate:g} needs a kind of sampling: --sampling poisson (each client by a coin, cohorts "
            "of varying size) or --sampling fixed (always the same size)",
        )
        _require(
            self.rate < 1 or self.sampling is None,
            f"sampling {self.sampling} is for a participation below 1; at 1 everybody takes part",
        )
        _require(self.min_separation >= 1, f"min_separation must be at least 1, got {self.min_separation}")
        _require(
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
        _require(
            0 <= self.corrupt < 1,
            f"corrupt must be at least 0 and below 1 (nobody would be left to protect); got {self.corrupt:g}",
        )
        _require(
            0 <= self.dropout < 1,
            f"dropout must be at least 0 and below 1 (at 1 no client is left to sum); got {self.dropout:g}",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that determines a run. Equal configs (and simulation noise) give equal runs."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    participation: ParticipationConfig = field(default_factory=ParticipationConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        _require(
            self.privacy.unit == "client" or self.model.rule != "local-alternate",
            "rule local-alternate takes turns in local steps, and unit example has none; use --rule alternate",
        )
        _require(self.seed >= 0, f"seed must be a non-negative integer, got {self.seed}")
        n, t, k = self.data.clients, self.aggregation.threshold, self.aggregation.neighbours
        if self.participation.sampling == "fixed":
            n = self.cohort_size
            _require(
                n >= 2,
                f"participation {self.participation.rate:g} of {self.data.clients} clients is a cohort of {n}; "
                "a sum needs at least 2",
            )
            needed = n * self.participation.min_separation
            _require(
                needed <= self.data.clients,
                f"cohorts of {n} with min_separation {self.participation.min_separation} need {needed} clients, there "
                f"are {self.data.clients}; lower participation or min_separation",
            )
        _require(t is None or 2 <= t <= n, f"threshold must lie in 2…{n} (the clients of a round), got {t}")
        _require(
            k is None or k == n - 1 or (2 <= k < n - 1 and k % 2 == 0),
            f"neighbours must be {n - 1} (everybody) or an even number from 2 to {n - 2}, got {k}",
        )

    @property
    def dropout_tolerance(self) -> float:
        """Fraction of clients the noise shares allow to drop: as given, or at least 10 %, or what ``dropout`` needs."""
        given = self.privacy.dropout_tolerance
        return max(0.1, self.aggregation.dropout) if given is None else given

    @property
    def cohort_size(self) -> int:
        """Clients of a round of fixed size, or on average: the participation's share of them, rounded half up."""
        return math.floor(self.participation.rate * self.data.clients + 0.5)

    @property
    def clip_norm(self) -> float:
        """As given, or the unit's tuned default."""
        given = self.privacy.clip_norm
        return CLIP_NORM[self.privacy.unit] if given is None else given

    @property
    def sampling_rate(self) -> float:
        """q: as given, or the tuned default of unit ``example``; 1 for unit ``client``."""
        if self.privacy.unit == "client":
            return 1.0
        return EXAMPLE_RATE if self.privacy.example_rate is None else self.privacy.example_rate

    def to_toml(self) -> str:
        """The TOML text that :func:`from_toml` reads back to an equal config."""
        return tomli_w.dumps(_without_none(dataclasses.asdict(self)))

    @property
    def digest(self) -> str:
        """SHA-256 of the TOML text, hex."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()


def from_toml(text: str) -> RunConfig:
    """Parse a TOML document. Raises :class:`ConfigError` for bad syntax, unknown keys, wrong types and bad values."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from None
    return typing.cast(RunConfig, _build(RunConfig, table, ""))


def load_config(path: Path) -> RunConfig:
    """Read a TOML file. Raises :class:`ConfigError`, naming the file."""
    try:
        return from_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"config {path} cannot be read: {reason}") from None
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from None


def override(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """A new config with ``changes`` ("section.key" or "seed" → value) applied; those that are ``None`` are skipped."""
    table = dataclasses.asdict(config)
    for dotted, value in changes.items():
        if value is None:
            continue
        *sections, key = dotted.split(".")
        target = table
        for section in sections:
            target = target[section]
        if key not in target:
            raise KeyError(dotted)
        target[key] = value
    return typing.cast(RunConfig, _build(RunConfig, _without_none(table), ""))


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def _build(kind: type, table: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            known = ", ".join(sorted(prefix + name for name in hints))
            raise ConfigError(f"unknown key {prefix + key!r}; known: {known}")
    values = {}
    for key, value in table.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix + key} must be a table, got {value!r}")
            values[key] = _build(typing.cast(type, hint), value, prefix + key + ".")
        else:
            values[key] = _coerce(prefix + key, value, hint)
    return kind(**values)


def _coerce(name: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    hint = next(option for option in options if option is not type(None))
    if typing.get_origin(hint) is Literal:
        allowed = typing.get_args(hint)
        _require(value in allowed, f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        return value
    if typing.get_origin(hint) is tuple:
        names = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        _require(names, f"{name} must be a list of strings, got {value!r}")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int for isinstance, and never what a numeric key wants
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be of type {hint.__name__}, got {value!r}")
    return value
