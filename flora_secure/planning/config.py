"""One description of a run: TOML ↔ frozen dataclasses; unknown keys are errors.

Every section (`flora_secure.planning.sections`) is a table of the TOML file and a field of `RunConfig`.
`None` means "derived from the rest" and is left out of the file. Bad values raise `ConfigError`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from flora_secure.boundary.foreign import read_text, toml_of
from flora_secure.errors import ConfigError, ForeignError, did_you_mean, require
from flora_secure.planning.architectures import own_clients
from flora_secure.planning.names import GENERIC, PASSED, SHIPPED, proposed
from flora_secure.planning.options import SIMULATE, option
from flora_secure.planning.protection import (
    CLIP_NORM,
    EXAMPLE_RATE,
    AggregationConfig,
    EvidenceConfig,
    ParticipationConfig,
    PrivacyConfig,
)
from flora_secure.planning.sections import CLIENTS, PARTITION, DataConfig, ModelConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that determines a run. Equal configs (and simulation noise) give equal runs."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    participation: ParticipationConfig = field(default_factory=ParticipationConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    seed: int = option(
        0, "--seed", "Seed of the experiment: partition, dropouts.", commands=(SIMULATE,), panel="Training"
    )

    def __post_init__(self) -> None:
        require(
            self.privacy.unit == "client" or self.model.rule != "local-alternate",
            "`model.rule` local-alternate takes turns in local steps, and `privacy.unit` example has none: use "
            "alternate",
        )
        require(self.seed >= 0, f"`seed` must be a non-negative integer, got {self.seed}")
        require(self.seed < 2**63, f"`seed` must be at most 2^63 - 1 = {2**63 - 1}, got {self.seed}")
        _require_effect(self)
        # how many clients a data set has of its own is known when it has been read
        if self.data.clients is not None or not self.data.dataset.startswith((*GENERIC, PASSED)):
            self._require_cohorts()

    def _require_cohorts(self) -> None:
        n, t, k = self.clients, self.aggregation.threshold, self.aggregation.neighbours
        if self.participation.sampling == "fixed":
            n = self.cohort_size
            require(
                n >= 2,
                f"`participation.rate` {self.participation.rate:g} of {self.clients} clients is a cohort of {n}; "
                "a sum needs at least 2",
            )
            needed = n * self.participation.min_separation
            require(
                needed <= self.clients,
                f"cohorts of {n} with `participation.min_separation` {self.participation.min_separation} need {needed} "
                f"clients, there are {self.clients}; lower that or `participation.rate`",
            )
        require(
            t is None or 2 <= t <= n, f"`aggregation.threshold` must lie in 2…{n} (the clients of a round), got {t}"
        )
        require(
            k is None or k == n - 1 or (2 <= k < n - 1 and k % 2 == 0),
            f"`aggregation.neighbours` must be {n - 1} (everybody) or an even number from 2 to {n - 2}, got {k}",
        )

    @property
    def clients(self) -> int:
        """How many clients there are, canaries among them as the last ones."""
        return self.data_clients + self.evidence.canaries

    @property
    def data_clients(self) -> int:
        """How many clients hold data: as given, or the default where the data do not say otherwise. A run gives them
        once it has read the data (`flora_secure.data.federation.Federation.settled`)."""
        return self.data.clients or own_clients(self.data) or CLIENTS

    @property
    def partition(self) -> str:
        """How images are dealt: as given, or the default where the data do not say otherwise; see `clients`."""
        return self.data.partition or (PARTITION if own_clients(self.data) is None else "natural")

    @property
    def dropout_tolerance(self) -> float:
        """Fraction of clients the noise shares allow to drop: as given, or at least 10 %, or what `dropout` needs."""
        given = self.privacy.dropout_tolerance
        return max(0.1, self.aggregation.dropout) if given is None else given

    @property
    def cohort_size(self) -> int:
        """Clients of a round of fixed size, or on average: the participation's share of them, rounded half up."""
        return math.floor(self.participation.rate * self.clients + 0.5)

    @property
    def clip_norm(self) -> float:
        """The clip norm c before round 1: the one given, or the tuned default of the unit."""
        given = self.privacy.clip_norm
        return CLIP_NORM[self.privacy.unit] if given is None else given

    @property
    def sampling_rate(self) -> float:
        """The rate q at which examples are drawn: the one given, or the tuned default; 1 for unit `client`."""
        if self.privacy.unit == "client":
            return 1.0
        return EXAMPLE_RATE if self.privacy.example_rate is None else self.privacy.example_rate

    def to_toml(self) -> str:
        """The TOML text that `from_toml` reads back to an equal config."""
        return tomli_w.dumps(_without_none(dataclasses.asdict(self)))

    @property
    def digest(self) -> str:
        """SHA-256 of the TOML text, hex."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()


MOST_CONFIG = 1 << 20  # bytes of a file; ours have two thousand
_Where = Callable[[RunConfig], bool]


def _unit_example(run: RunConfig) -> bool:
    return run.privacy.unit == "example"


def _off_the_projection(run: RunConfig) -> bool:
    return run.model.placement != "text-projection"


def _unmasked(run: RunConfig) -> bool:
    return run.aggregation.secagg == "off"


# settings that do nothing in some runs: the key, which runs, and what to do; what is data's to say is said with the
# data, and what lies within one section is said there
_IDLE: tuple[tuple[str, _Where, str], ...] = (
    ("data.data_root", lambda run: run.data.name in SHIPPED,
     "is not read by `data.dataset` {run.data.dataset}, which ships with the program: leave it out; {proposed}"),
    ("data.layout", lambda run: run.data.dataset != "folder",
     "is for `data.dataset` folder, not {run.data.dataset}: leave it out"),
    ("model.rule", lambda run: run.model.rule == "alternate" and run.training.rounds == 1,
     "takes turns by round, and with `training.rounds` 1 the second factor never trains: use frozen-a, or more rounds"),
    ("model.rule", lambda run: run.model.rule == "local-alternate" and run.training.local_steps == 1,
     "takes turns by local step, and with `training.local_steps` 1 the second factor never trains: use frozen-a, or "
     "more steps"),
    ("training.local_steps", _unit_example,
     "is for `privacy.unit` client; unit example takes one gradient a round: leave it out"),
    ("training.local_rate", _unit_example,
     "is for `privacy.unit` client; unit example takes one gradient a round: leave it out, or set "
     "`training.server_step`"),
    ("training.warm_start", lambda run: run.training.warm_start != "none" and _off_the_projection(run),
     "is for `model.placement` text-projection; {run.model.placement} starts from the frozen model: leave it out"),
    ("training.control_variate", lambda run: run.training.control_variate != 0 and _off_the_projection(run),
     "is for `model.placement` text-projection, not {run.model.placement}: leave it out"),
    ("training.control_variate", lambda run: run.training.control_variate != 0 and _unit_example(run),
     "is for `privacy.unit` client, whose class frequencies it takes out: leave it out"),
    ("privacy.delta", lambda run: run.privacy.epsilon == math.inf,
     "is of a budget, and with `privacy.epsilon` inf there is none: leave it out, or set a budget"),
    ("privacy.adaptive_clip", lambda run: run.training.rounds == 1,
     "moves the clip norm from round to round, and `training.rounds` is 1: set `privacy.clip_norm` instead"),
    ("aggregation.masking", _unmasked,
     "is of masks, and with `aggregation.secagg` off there are none: leave it out, or set that to semi-honest"),
    ("aggregation.neighbours", _unmasked,
     "is of masks, and with `aggregation.secagg` off there are none: leave it out, or set that to semi-honest"),
    ("aggregation.threshold", _unmasked,
     "is of masks, and with `aggregation.secagg` off there are none: leave it out, or set that to semi-honest"),
    ("aggregation.slots", _unmasked,
     "is of masks, and with `aggregation.secagg` off there are none: leave it out, or set that to semi-honest"),
    ("aggregation.suite", _unmasked,
     "is of masks, and with `aggregation.secagg` off there are none: leave it out, or set that to semi-honest"),
    ("evidence.canaries", _unit_example,
     "are clients, and `privacy.unit` example protects images: leave them out"),
    ("evidence.canaries", lambda run: run.privacy.epsilon == math.inf,
     "measure noise, and with `privacy.epsilon` inf there is none: leave them out"),
    ("evidence.canaries", lambda run: run.privacy.adaptive_clip is not None,
     "are longer than any clip norm, or zero, and `privacy.adaptive_clip` would follow them: leave one of both out"),
    ("aggregation.slots", lambda run: run.participation.sampling is not None and (run.aggregation.slots or 1) > 1,
     "prepares rounds of one cohort, and `participation.sampling` {run.participation.sampling} draws another one in "
     "each round: leave it out"),
    ("evidence.transcript", lambda run: bool(run.evidence.transcript) and run.aggregation.masks != "run",
     "keeps the messages of masks, and `aggregation.secagg` {run.aggregation.secagg} with `aggregation.masking` "
     "{run.aggregation.masking} makes none: leave it out"),
)  # fmt: skip


def _require_effect(run: RunConfig) -> None:
    """ConfigError for a setting that somebody has set and that does nothing in this run: whoever set it believes
    something of the run that is not so."""
    for key, where, says in _IDLE:
        section, _, name = key.partition(".")
        part = getattr(run, section)
        value, default = getattr(part, name), type(part).__dataclass_fields__[name].default
        if value != default and where(run):
            found = proposed(Path(value)) if "{proposed}" in says else ""
            raise ConfigError(f"`{key}` {value} {says.format(run=run, proposed=found)}")


def from_toml(text: str) -> RunConfig:
    """Parse a TOML document. Raises `ConfigError` for bad syntax, unknown keys, wrong types and bad values."""
    try:
        table = toml_of(text)
    except ForeignError as error:
        raise ConfigError(str(error)) from None
    return typing.cast(RunConfig, _build(RunConfig, table, ""))


def load_config(path: Path) -> RunConfig:
    """Read a TOML file. Raises `ConfigError`, naming the file."""
    try:
        return from_toml(read_text(path, MOST_CONFIG))
    except ForeignError as error:
        raise ConfigError(f"`config` {path} cannot be read: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error.args[0]}") from None


def keys_of(path: Path) -> frozenset[str]:
    """The keys ("section.key" or "seed") that a TOML file sets, known or not; none where it cannot be read."""
    try:
        table = toml_of(read_text(path, MOST_CONFIG))
    except ForeignError:
        return frozenset()
    sections = [(key, value) for key, value in table.items() if isinstance(value, dict)]
    return frozenset({key for key in table if key not in dict(sections)}).union(
        f"{section}.{key}" for section, values in sections for key in values
    )


def override(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """A new config with `changes` ("section.key" or "seed" → value) applied; those that are `None` are skipped."""
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
            known = sorted(prefix + name for name in hints)
            near = did_you_mean(prefix + key, known) or f"; known: {', '.join(known)}"
            raise ConfigError(f"unknown key {prefix + key!r}{near}")
    values = {}
    for key, value in table.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise ConfigError(f"`{prefix + key}` must be a table, got {value!r}")
            values[key] = _build(typing.cast(type, hint), value, prefix + key + ".")
        else:
            values[key] = _coerce(prefix + key, value, hint)
    return kind(**values)


# The steps of the warm start that files of earlier releases say, and what is called so now.
_STEPS = {0: "none", 100: "images"}


def _coerce(name: str, value: Any, hint: Any) -> Any:
    if name == "training.warm_start" and type(value) is int:
        require(
            value in _STEPS,
            f"`{name}` {value} was a number of steps, and these are fixed now: write 'images' for what 100 did, 'none' "
            "for 0, or leave it out, to have it decided on public data",
        )
        value = _STEPS[value]
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    hint = next(option for option in options if option is not type(None))
    if typing.get_origin(hint) is Literal:
        allowed = typing.get_args(hint)
        known = value in allowed and type(value) is type(allowed[0])  # True is 1 for Python
        near = did_you_mean(str(value), map(str, allowed))
        require(known, f"`{name}` must be one of {', '.join(map(str, allowed))}; got {value!r}{near}")
        return value
    if typing.get_origin(hint) is tuple:
        names = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        require(names, f"`{name}` must be a list of strings, got {value!r}")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) <= sys.float_info.max, f"`{name}` is too large for a number: {len(str(abs(value)))} digits")
        return float(value)
    # bool is an int for isinstance, and never what a numeric key wants
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"`{name}` must be of type {hint.__name__}, got {value!r}")
    return value
