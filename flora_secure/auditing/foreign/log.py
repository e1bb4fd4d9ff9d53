"""The log of a system that is not ours, `flora-secure/foreign-log/1`: what is wrong in it becomes a problem."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

SCHEMA = "flora-secure/foreign-log/1"
SERVER, OUTSIDER, UPLOAD = "server", "outsider", "upload"
CLIENT, EXAMPLE = "client", "example"
ZERO_OUT, ADD_REMOVE, REPLACE_ONE = "zero-out", "add-remove", "replace-one"
FULL, FIXED, POISSON, SHUFFLED = "full", "fixed", "poisson", "shuffled"
CLIENTS, OPEN, SECURE = "clients", "open", "secure"
SUM, MEAN = "sum", "mean"
GAUSSIAN, SPARSE, NO_MECHANISM = "gaussian", "sparse-vector", "none"
TOTAL, ROUND = "total", "round"

Problem = tuple[str, str]
Check = Callable[[Any], Any]  # returns the value as it is kept; raises ValueError that says what it should be
T = TypeVar("T")


def _number(low: float, high: float, *, open_low: bool = False) -> Check:
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError("a number")
        if not low <= value <= high or (open_low and value == low):
            raise ValueError(f"a number from {low:g}{' (not itself)' if open_low else ''} to {high:g}")
        return float(value)

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low:,} to {high:,}")
        return value

    return check


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 500:
        raise ValueError("a text of 1 to 500 characters")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def _members(value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list) or not all(type(one) in (int, str) for one in value):
        raise ValueError("a list of names or numbers")
    if len(set(value)) < len(value):
        raise ValueError("a list that names nobody twice")
    return tuple(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of texts")
    return tuple(_text(one) for one in value)


_MOST = 10**12
_CLIENTS, _RATE = _whole(1, _MOST), _number(0, 1, open_low=True)
_NOISE, _NORM, _EPSILON = _number(0, 1e12), _number(0, 1e12, open_low=True), _number(0, 1e12)
_DELTA = _number(0, 1)


def _key(check: Check) -> Any:
    return field(default=None, metadata={"check": check})


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """`count` rounds (of unit example: steps) that are alike; `None` is not known.

    `cohort`: clients that were asked; `contributors`: those in the released sum; `participants`: who they were.
    `divisor`: what the sum was divided by, where it is not the number of contributors. `noise`: standard deviation of
    what was added, to each upload where clients add it, else to the log's `noise_on`. `noise_multiplier`: z as the
    system says it, standard deviation on the sum ÷ clip norm. `clip`: the norm that contributions were clipped to.
    `count_noise`: standard deviation on the released count of adaptive clipping, in clients. `sampling_rate`: the
    rate of examples.
    """

    count: int | None = _key(_whole(1, _MOST))
    cohort: int | None = _key(_CLIENTS)
    contributors: int | None = _key(_CLIENTS)
    participants: tuple[int | str, ...] | None = _key(_members)
    divisor: float | None = _key(_number(0, 1e12, open_low=True))
    noise: float | None = _key(_NOISE)
    noise_multiplier: float | None = _key(_NOISE)
    clip: float | None = _key(_NORM)
    count_noise: float | None = _key(_NOISE)
    sampling_rate: float | None = _key(_RATE)

    @property
    def times(self) -> int:
        """How many rounds these are."""
        return self.count or 1

    @property
    def present(self) -> int | None:
        """How many contributions the sum had, as far as anything says."""
        if self.contributors is not None:
            return self.contributors
        return len(self.participants) if self.participants is not None else self.cohort


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An ε that the system, or somebody about it, claims: against whom (server, outsider or upload), of what (total or
    round), for which adjacency where it is not the log's."""

    epsilon: float | None = _key(_EPSILON)
    delta: float | None = _key(_DELTA)
    against: str | None = _key(_one_of(SERVER, OUTSIDER, UPLOAD))
    scope: str | None = _key(_one_of(TOTAL, ROUND))
    adjacency: str | None = _key(_one_of(ZERO_OUT, ADD_REMOVE, REPLACE_ONE))
    accountant: str | None = _key(_text)


@dataclass(frozen=True, kw_only=True)
class SparseVector:
    """A sparse-vector filter at each client: `fraction` of `parameters` values are released, each with Laplace noise.

    `epsilon`: for the selection; `epsilon_release`, or `noise_var` for each value: for the values; `gamma`: bound of a
    value.
    """

    fraction: float | None = _key(_RATE)
    epsilon: float | None = _key(_EPSILON)
    noise_var: float | None = _key(_NOISE)
    epsilon_release: float | None = _key(_EPSILON)
    gamma: float | None = _key(_NORM)
    parameters: int | None = _key(_whole(1, _MOST))
    released: int | None = _key(_whole(0, _MOST))


@dataclass(frozen=True, kw_only=True)
class ForeignLog:
    """What a system says of itself; every key may be `None`, which is not known. docs/foreign-log.md explains each."""

    system: str | None = _key(_text)
    date: str | None = _key(_text)
    unit: str | None = _key(_one_of(CLIENT, EXAMPLE))
    adjacency: str | None = _key(_one_of(ZERO_OUT, ADD_REMOVE, REPLACE_ONE))
    population: int | None = _key(_CLIENTS)
    mechanism: str | None = _key(_one_of(GAUSSIAN, SPARSE, NO_MECHANISM))
    noise_by: str | None = _key(_one_of(SERVER, CLIENTS))
    noise_on: str | None = _key(_one_of(SUM, MEAN))
    aggregation: str | None = _key(_one_of(OPEN, SECURE))
    sampling: str | None = _key(_one_of(FULL, FIXED, POISSON, SHUFFLED))
    secret_sampling: bool | None = _key(_flag)
    clip: float | None = _key(_NORM)
    noise_before_clip: bool | None = _key(_flag)
    adaptive_clip: bool | None = _key(_flag)
    secure_random: bool | None = _key(_flag)
    most_rounds: int | None = _key(_whole(1, _MOST))
    batch: int | None = _key(_CLIENTS)
    examples: int | None = _key(_CLIENTS)
    epochs: float | None = _key(_number(0, 1e9, open_low=True))
    accountant: str | None = _key(_text)
    chosen: str | None = _key(_text)
    unprotected: tuple[str, ...] | None = _key(_texts)
    sparse: SparseVector | None = None
    rounds: list[Rounds] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    @property
    def times(self) -> int:
        """How many rounds there were."""
        return sum(run.times for run in self.rounds)

    def to_table(self) -> dict[str, Any]:
        """The log as plain data for JSON, `schema` first; keys of a round that are not known are left out."""
        table = dataclasses.asdict(self)
        table["rounds"] = [{k: v for k, v in run.items() if v is not None} for run in table["rounds"]]
        return {"schema": SCHEMA, **table}


def log_of(table: dict[str, Any]) -> tuple[ForeignLog, list[Problem]]:
    """The log that a JSON object is, without its key `schema`, and what in it was not read: (where, what).

    A key of which the value is impossible, and one that is not known, is a problem and read as not known.
    """
    problems: list[Problem] = []
    outer = {key: value for key, value in table.items() if key not in ("rounds", "claims", "sparse")}
    sparse = table.get("sparse")
    log = dataclasses.replace(
        _read(ForeignLog, outer, "", problems),
        rounds=_several(Rounds, table.get("rounds"), "rounds", problems),
        claims=_several(Claim, table.get("claims"), "claims", problems),
        sparse=None if sparse is None else _read(SparseVector, sparse, "sparse", problems),
    )
    return log, problems


def _several(kind: type[T], value: Any, where: str, problems: list[Problem]) -> list[T]:
    if value is None:
        return []
    if not isinstance(value, list):
        problems.append((where, f"must be a list, got {value!r:.60}"))
        return []
    return [_read(kind, one, f"{where}[{place}]", problems) for place, one in enumerate(value)]


def _read(kind: type[T], table: Any, where: str, problems: list[Problem]) -> T:
    if not isinstance(table, dict):
        problems.append((where, f"must be an object, got {table!r:.60}"))
        return kind()
    values, checks = {}, _CHECKS[kind]
    for key, value in table.items():
        place = f"{where}.{key}" if where else key
        if key not in checks:
            problems.append((f"{place:.80}", "is no key of this log"))
        elif value is not None:
            try:
                values[key] = checks[key](value)
            except ValueError as error:
                problems.append((place, f"must be {error}, got {value!r:.60}"))
    return kind(**values)


_CHECKS: dict[type, dict[str, Check]] = {
    kind: {one.name: one.metadata["check"] for one in dataclasses.fields(kind) if "check" in one.metadata}
    for kind in (ForeignLog, Rounds, Claim, SparseVector)
}
