"""The server's steps of a run, taken again from what its folder has of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_protocols import lane, pack
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.planning.rules import TrainedValues, rule_named
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rotation import padded
from flora_secure.records.record import RoundRecord
from flora_secure.rounds.float16 import to_wire
from flora_secure.rounds.optimiser import MomentumAverage, ServerState
from flora_secure.rounds.step import ReleasedSum, ServerStep

Sums = Mapping[int, NDArray[np.uint32]]  # by the round's number


@dataclass(frozen=True)
class Replayed:
    """The adapter that a round began with, as the wire has it; after the last round, `record` is None."""

    record: RoundRecord | None
    broadcast: bytes

    def model_hash(self, frozen: str) -> str:
        """What the log calls it, for the frozen model of that SHA-256."""
        return hashlib.sha256(bytes.fromhex(frozen) + self.broadcast).hexdigest()


def trained_values(case: Case, count: int, of_b: int | None) -> TrainedValues:
    """Which of an adapter's `count` trained values a round of the run trains. `of_b`: how many of them are B's, which
    matters where the factors take turns, and is not known where None; then ValueError."""
    rule = rule_named(case.config.model.trained_rule)
    if not rule.trains_a:
        return TrainedValues(rule, 0, count)
    if of_b is None:
        if rule.alternates == "rounds":
            raise ValueError("the adapter's file says where B ends and A begins, and it is not there")
        of_b = count
    return TrainedValues(rule, count - of_b, of_b)


def plan_of(record: RoundRecord) -> NoisePlan:
    """What the server's step needs of a round's plan; all else is that of no plan."""
    return NoisePlan(
        clients=max(len(record.participants), 1),
        smallest_cohort=1,
        dimension=record.values,
        rounds=1,
        participations=1,
        sampling_rate=record.sampling_rate,
        epsilon=math.inf if record.target_epsilon is None else record.target_epsilon,
        delta=record.delta,
        clip_norm=record.clip_norm,
        upload_norm=record.clip_norm,
        dropout_tolerance=1.0,
        colluders=0,
        noise_multiplier=0.0,
        sigma_local=record.sigma_local,
        scale=record.scale,
        bits=record.bits,
        rotated=record.rotated,
        count_scale=record.count_scale,
        count_coordinates=record.dimension - length_of(record),
        peak_fraction=1.0,
        overflow_probability=0.0,
        aliasing_slack=0.0,
        rounding_error=0.0,
    )


def length_of(record: RoundRecord) -> int:
    """Coordinates of an upload without those of adaptive clipping's count."""
    return padded(record.values) if record.rotated else record.values


def replay(case: Case, initial: NDArray[np.float32], trained: TrainedValues, sums: Sums) -> Iterator[Replayed]:
    """The adapter before every round and after the last, from the sums of the rounds that had one.

    Raises `ValueError` and `flora_secure.errors.DivergedError` for numbers that no server has stepped with.
    """
    state = ServerState.initial(initial)
    momentum = case.config.training.server_momentum
    for record in case.records:
        yield Replayed(record, to_wire(state.adapter))
        if not record.summed:
            continue
        if record.divisor is None or not 0 < record.divisor < math.inf:
            raise ValueError(f"round {record.round} divides its sum by {record.divisor}")
        step = ServerStep(MomentumAverage(record.server_step, momentum), trained, plan_of(record), case.config.seed)
        total = sums[record.round]
        released = ReleasedSum(
            round=record.round,
            clip_norm=record.clip_norm,
            scale=record.scale,
            contributions=record.divisor,
            packed=pack(total.astype(lane(record.bits)), record.bits),
        )
        state = step.after(state, released)
    yield Replayed(None, to_wire(state.adapter))
