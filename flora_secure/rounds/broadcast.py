"""The broadcast: what the server sends of the adapter when a round begins, in as few bytes as the client can do with.

    "fB" · version u8 · form u8 · since u32
    · form 0  nothing: the client has the state in which round `since` began, or a later one
      form 1  server step, momentum f64 · adapter float16        that state, which float16 holds exactly, no momentum
      form 2  server step, momentum f64 · adapter f64            that state, no momentum
      form 3  server step, momentum f64 · adapter, momenta f64   that state
      form 4  adapter float16                                    nothing but what is trained from in this round
    · of each sum that was released since then, in order: round u32 · clip norm, scale, contributions f64
      · the values, packed at the plan's b bits

All numbers are little-endian. Whoever has a state takes the server's step with each sum (`step.py`) and arrives at the
server's state, bit for bit; a round without a sum moves nothing. Decoding is canonical: one broadcast has one encoding,
and everything else is refused.
"""

from __future__ import annotations

import itertools
import math
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from flora_protocols import Code, PeerError, packed_bytes, unpack
from flora_secure.planning.rules import TrainedValues
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.rounds.float16 import to_wire
from flora_secure.rounds.optimiser import MomentumAverage, ServerState
from flora_secure.rounds.step import ReleasedSum

MAGIC, VERSION = b"fB", 1
_HEAD = struct.Struct("<2sBBI")
_OPTIMISER = struct.Struct("<dd")
_SUM = struct.Struct("<Iddd")


class Form(IntEnum):
    """What stands between the head of a broadcast and its sums."""

    SUMS = 0
    HALF = 1
    STEADY = 2
    MOVING = 3
    ADAPTER = 4


_ITEMSIZES = {Form.HALF: 2, Form.STEADY: 8, Form.MOVING: 16}  # bytes a trained value


@dataclass(frozen=True)
class Layout:
    """The sizes of a run's broadcasts.

    Attributes:
        dimension: trained values.
        length, bits: of a sum.
    """

    dimension: int
    length: int
    bits: int

    @classmethod
    def of(cls, plan: NoisePlan, trained: TrainedValues) -> Layout:
        """The layout of a run by the plan of any of its rounds."""
        return cls(trained.dimension, plan.length, plan.bits)

    @property
    def packed(self) -> int:
        """Bytes of a sum's values."""
        return packed_bytes(self.length, self.bits)

    @property
    def entry(self) -> int:
        """Bytes that a sum takes in a broadcast."""
        return _SUM.size + self.packed

    def size(self, form: Form, sums: int = 0) -> int:
        """Bytes of a broadcast of this form with so many sums."""
        start = 2 * self.dimension if form is Form.ADAPTER else 0
        if form in _ITEMSIZES:
            start = _OPTIMISER.size + _ITEMSIZES[form] * self.dimension
        return _HEAD.size + start + sums * self.entry

    def alone(self, *, everybody: bool) -> bool:
        """Whether members are sent the adapter alone, in float16, where that is shorter than what keeps up a state.

        Where `everybody` is in every round and a sum is shorter than the adapter, states pay: whoever has one goes on
        with sums. Elsewhere most members have missed rounds, whose sums take more than the adapter.
        """
        return not everybody or self.entry >= 2 * self.dimension


@dataclass(frozen=True, eq=False)
class FullState:
    """All that a client needs to follow the server from some round on: the state in which it began, and how the server
    goes on from it."""

    state: ServerState
    optimiser: MomentumAverage

    @cached_property
    def form(self) -> Form:
        """The shortest that holds it exactly; also zeros must have the right sign."""
        adapter, momentum = self.state.adapter, self.state.momentum
        if _bits(momentum).any():
            return Form.MOVING
        with np.errstate(over="ignore"):
            half = adapter.astype("<f2").astype(np.float64)
        return Form.HALF if np.array_equal(_bits(half), _bits(adapter)) else Form.STEADY

    @cached_property
    def half(self) -> bytes:
        """The adapter as clients train from it. Raises DivergedError where it is beyond float16."""
        return to_wire(self.state.adapter)

    def to_bytes(self) -> bytes:
        """What stands in a broadcast of `form`."""
        adapter = self.state.adapter.astype("<f2" if self.form is Form.HALF else "<f8").tobytes()
        momentum = self.state.momentum.astype("<f8").tobytes() if self.form is Form.MOVING else b""
        return _OPTIMISER.pack(self.optimiser.step, self.optimiser.momentum) + adapter + momentum


@dataclass(frozen=True, kw_only=True, eq=False)
class Broadcast:
    """What a member of a round is sent of the adapter. Every field is public.

    Attributes:
        since: the round in whose state it starts; the round itself where `adapter` is given.
        start: that state; None where the client has it, or a later one.
        sums: those of all later rounds that released one, and of `since` itself, ascending.
        adapter: in float16, alone, for who is not to keep a state; None elsewhere.
    """

    since: int
    start: FullState | None = None
    sums: tuple[ReleasedSum, ...] = ()
    adapter: bytes | None = field(default=None, repr=False)

    @property
    def form(self) -> Form:
        """What stands between head and sums."""
        if self.adapter is not None:
            return Form.ADAPTER
        return Form.SUMS if self.start is None else self.start.form

    def to_bytes(self) -> bytes:
        """The broadcast on the wire."""
        parts = [_HEAD.pack(MAGIC, VERSION, self.form, self.since), self.adapter or b""]
        if self.start is not None:
            parts.append(self.start.to_bytes())
        for one in self.sums:
            parts += [_SUM.pack(one.round, one.clip_norm, one.scale, one.contributions), one.packed]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, layout: Layout, number: int) -> Broadcast:
        """The inverse of `to_bytes`, for round `number`. `layout` is of what the reader trains and was invited to.

        Raises PeerError naming the server for other bytes and for impossible numbers.
        """
        if data[:2] != MAGIC:
            _refuse("these bytes are no broadcast", Code.NOT_A_MESSAGE)
        if data[2:3] != bytes([VERSION]):
            _refuse(f"a broadcast of version {data[2:3].hex()}; this side reads {VERSION}", Code.OTHER_VERSION)
        if len(data) < _HEAD.size or data[3] > max(Form):
            _refuse("the broadcast is cut short or damaged", Code.BAD_BODY)
        _, _, form, since = _HEAD.unpack_from(data)
        form = Form(form)
        count, left = divmod(len(data) - layout.size(form), layout.entry)
        if count < 0 or left:
            _refuse(f"a broadcast of {len(data)} bytes fits no number of sums", Code.BAD_BODY)
        at, adapter, start = layout.size(form), None, None
        if form is Form.ADAPTER:
            adapter = data[_HEAD.size : at]
        elif form is not Form.SUMS:
            start = _read_state(data[_HEAD.size : at], layout.dimension, form)
        sums = tuple(_read_sum(data[i : i + layout.entry], layout) for i in range(at, len(data), layout.entry))
        found = cls(since=since, start=start, sums=sums, adapter=adapter)
        found._check(number)
        if found.to_bytes() != data:
            _refuse("the broadcast is not canonically encoded", Code.BAD_BODY)
        return found

    def _check(self, number: int) -> None:
        rounds = [self.since, *(one.round + 1 for one in self.sums)]
        ascending = all(first < second for first, second in itertools.pairwise(rounds))
        if not (self.since >= 1 and ascending and rounds[-1] <= number):
            _refuse("the broadcast's rounds are not those before the one that it opens", Code.PARAMETERS)
        if self.adapter is not None:
            if self.sums or self.since != number:
                _refuse("an adapter alone is of its own round, and has no sums", Code.BAD_BODY)
            if not np.isfinite(np.frombuffer(self.adapter, "<f2")).all():
                _refuse("the adapter holds values that are no finite numbers", Code.PARAMETERS)


def _read_state(data: bytes, dimension: int, form: Form) -> FullState:
    step, momentum = _OPTIMISER.unpack_from(data)
    if not (0 < step < math.inf and 0 <= momentum < 1):
        _refuse("the broadcast's server step is impossible", Code.PARAMETERS)
    values = np.frombuffer(data, "<f2" if form is Form.HALF else "<f8", offset=_OPTIMISER.size).astype(np.float64)
    momenta = values[dimension:] if form is Form.MOVING else np.zeros(dimension)
    if not np.isfinite(values).all() or (momentum == 0 and form is Form.MOVING):
        _refuse("the broadcast's state is impossible", Code.PARAMETERS)
    return FullState(ServerState(values[:dimension], momenta), MomentumAverage(step, momentum))


def _read_sum(data: bytes, layout: Layout) -> ReleasedSum:
    number, *numbers = _SUM.unpack_from(data)
    if not all(0 < value < math.inf for value in numbers):
        _refuse("the numbers beside a sum are impossible", Code.PARAMETERS)
    packed = data[_SUM.size :]
    if unpack(packed, layout.length, layout.bits) is None:
        _refuse("a sum is not canonically packed", Code.BAD_BODY)
    clip_norm, scale, contributions = numbers
    return ReleasedSum(round=number, clip_norm=clip_norm, scale=scale, contributions=contributions, packed=packed)


def _bits(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(values).view(np.uint64)


def _refuse(reason: str, code: Code) -> NoReturn:
    raise PeerError("server", reason, code)
