"""The invitation: all that the server says of a round before a client does anything.

    long   magic "fI" · version u8 · masked u8 · session 16 · unit u8 · placement, rule (u8 length, ASCII)
           · rotation seed u64 · the plan's numbers · members (bitmap) · round u64 · model hash 32 [· parameters]
    short  magic "fi" · version u8 · first 8 bytes of the long one's SHA-256 · round u32 · round in which the masking
           session began u32 · model hash 32 · clip norm, upload norm, scale f64 · members (bitmap)
           · first 8 bytes of the set-up id

All numbers are little-endian; a bitmap has a bit a client of the enrolment, the lowest bit of a byte first. The short
form is for later rounds of a run, and repeats nothing: what it does not say is as in the long one that the client
has accepted. Decoding is canonical: one invitation has one encoding of each form, and everything else is refused.

A masking session is set up for several rounds (`flora_protocols`). Its number is that of the round in which it begins,
and a later round takes the slot of as many rounds as have passed since.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

import numpy as np

from flora_protocols import Bitmap, Code, ParameterError, PeerError, RoundParams, SessionParams
from flora_protocols.params import PARAMS_BYTES
from flora_secure.planning.protection import Unit
from flora_secure.privacy.events import RoundEvent
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rotation import Rotation
from flora_secure.rounds.enrolment import Enrolment

MAGIC, SHORT_MAGIC, VERSION = b"fI", b"fi", 2
SESSION = 16
_TAG = 8
_DIGEST_LABEL = b"flora-secure invitation 2\0"
_UNITS: tuple[Unit, ...] = ("client", "example")
_INTEGERS = ("clients", "dimension", "rounds", "participations", "colluders", "bits", "count_coordinates")
_FLOATS = (
    "sampling_rate",
    "epsilon",
    "delta",
    "clip_norm",
    "upload_norm",
    "dropout_tolerance",
    "noise_multiplier",
    "sigma_local",
    "scale",
    "count_scale",
    "peak_fraction",
    "overflow_probability",
    "aliasing_slack",
    "rounding_error",
)
_PLAN = struct.Struct(f"<?{len(_INTEGERS)}I{len(_FLOATS)}d")
_ROUND = struct.Struct("<Q32s")
_SHORT = struct.Struct("<2sB8sII32sddd")
_MOST_DIMENSION = 1 << 30
_ROUNDING = 1e-9  # of a clip norm that was stretched


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """One round as the server proposes it. Every field is public.

    Attributes:
        session: 16 bytes, of the run; the number of a round is used once in it.
        round: from 1.
        members: the cohort, numbers of the enrolment in ascending order; the i-th is at position i of the protocol.
        unit: whom the budget protects.
        placement, rule: where the adapter sits, and which of its factors train.
        rotation_seed: of the run, 0 .. 2^64 - 1.
        plan: noise and grid of this round: for this cohort, at this round's clip norm.
        model_hash: 32 bytes, SHA-256 of the model's hash and of the adapter's float16 bytes, however it is sent.
        params: the parameters of the masking session; None without masking.
    """

    session: bytes
    round: int
    members: tuple[int, ...]
    unit: Unit
    placement: str
    rule: str
    rotation_seed: int
    plan: NoisePlan
    model_hash: bytes
    params: SessionParams | None

    @cached_property
    def rotation(self) -> Rotation | None:
        """The rotation of this round, if the plan has one: clients apply it, the server takes it back."""
        plan = self.plan
        return Rotation(plan.dimension, self.rotation_seed, self.round) if plan.rotated else None

    @property
    def worst_event(self) -> RoundEvent:
        """What the round releases at the worst, with the fewest survivors that the plan allows.

        Raises ValueError where the plan's numbers are impossible.
        """
        return self.plan.event(self.round, self.plan.survivors_minimum)

    @property
    def slot(self) -> int:
        """Which of the masking session's slots the round takes: 0 where the session begins. Of a masked round."""
        assert self.params is not None
        return self.round - self.params.number

    def start(self, enrolment: Enrolment, positions: Iterable[int]) -> RoundParams:
        """What the masking protocol is told of the round, in which the members at these `positions` take part.

        What it binds into every mask is a digest of this whole invitation.
        """
        assert self.params is not None
        digest = hashlib.sha256(_DIGEST_LABEL + self.to_bytes(enrolment)).digest()
        invited = positions if isinstance(positions, Bitmap) else Bitmap.of(self.params.clients, positions)
        return RoundParams(slot=self.slot, round=self.round, model_hash=digest, invited=invited)

    @property
    def tag(self) -> bytes:
        """The name by which a short invitation refers to this one: 8 bytes."""
        return hashlib.sha256(self._head).digest()[:_TAG]

    @staticmethod
    def sizes(clients: int, placement: str, rule: str, *, masked: bool) -> tuple[int, int]:
        """Bytes of an invitation in its long and in its short form, where so many `clients` are enrolled."""
        members = -(-clients // 8)
        fixed = 4 + SESSION + 1 + 2 + len(placement) + len(rule) + 8 + _PLAN.size
        return fixed + members + _ROUND.size + PARAMS_BYTES * masked, _SHORT.size + members + _TAG

    def position(self, client: int) -> int | None:
        """The client's place among the members, or None where it is not invited."""
        return self.members.index(client) if client in self.members else None

    def to_bytes(self, enrolment: Enrolment, after: Invitation | None = None) -> bytes:
        """The invitation on the wire.

        `after`: an earlier one of the session that every member has accepted in its long form; where nothing but the
        round, the model, the members and the clip norm differ from it, the short form is written.
        """
        members = _bitmap(self.members, enrolment.clients)
        if after is not None and self.follows(after):
            plan = self.plan
            head = _SHORT.pack(
                SHORT_MAGIC,
                VERSION,
                after.tag,
                self.round,
                0 if self.params is None else self.params.number,
                self.model_hash,
                plan.clip_norm,
                plan.upload_norm,
                plan.scale,
            )
            return head + members + self._setup_tag
        params = b"" if self.params is None else self.params.to_bytes()
        return self._head + members + _ROUND.pack(self.round, self.model_hash) + params

    @classmethod
    def from_bytes(cls, data: bytes, enrolment: Enrolment, after: Invitation | None = None) -> Invitation:
        """The inverse of `to_bytes`. `enrolment` is the reader's own, as is `after`, the last one in long form.

        Raises PeerError naming the server for other bytes, impossible numbers, members that are not enrolled or are
        revoked, and a short form that does not follow `after`.
        """
        if data[:2] not in (MAGIC, SHORT_MAGIC):
            _refuse("these bytes are no invitation", Code.NOT_A_MESSAGE)
        if data[2:3] != bytes([VERSION]):
            _refuse(f"an invitation of version {data[2:3].hex()}; this side reads {VERSION}", Code.OTHER_VERSION)
        try:
            found = _read_long(data, enrolment) if data[:2] == MAGIC else _read_short(data, enrolment, after)
            _check(found)
        except (struct.error, UnicodeDecodeError, IndexError):
            _refuse("the invitation is cut short or damaged", Code.BAD_BODY)
        if any(member in enrolment.revoked for member in found.members):
            _refuse("the invitation has a revoked member", Code.BAD_BODY)
        if found.to_bytes(enrolment, after if data[:2] == SHORT_MAGIC else None) != data:
            _refuse("the invitation is not canonically encoded", Code.BAD_BODY)
        return found

    @cached_property
    def _head(self) -> bytes:
        plan, names = self.plan, b""
        for name in (self.placement, self.rule):
            encoded = name.encode("ascii")
            names += bytes([len(encoded)]) + encoded
        numbers = _PLAN.pack(
            plan.rotated, *(getattr(plan, name) for name in _INTEGERS), *(getattr(plan, name) for name in _FLOATS)
        )
        head = MAGIC + bytes([VERSION, self.params is not None]) + self.session + bytes([_UNITS.index(self.unit)])
        return head + names + struct.pack("<Q", self.rotation_seed) + numbers

    @property
    def _setup_tag(self) -> bytes:
        return bytes(_TAG) if self.params is None else self.params.setup_id[:_TAG]

    def follows(self, other: Invitation) -> bool:
        """Whether the short form can say this one to somebody who has `other` in its long form."""
        plan = self.plan
        as_before = dataclasses.replace(
            other.plan, clip_norm=plan.clip_norm, upload_norm=plan.upload_norm, scale=plan.scale
        )
        if plan != as_before or (self.params is None) != (other.params is None):
            return False
        fixed = ("session", "unit", "placement", "rule", "rotation_seed")
        if any(getattr(self, name) != getattr(other, name) for name in fixed):
            return False
        if self.params is None or other.params is None:
            return True
        return self.params == dataclasses.replace(
            other.params, number=self.params.number, identities=self.params.identities
        )


def _refuse(reason: str, code: Code) -> NoReturn:
    raise PeerError("server", reason, code)


def _bitmap(members: Sequence[int], clients: int) -> bytes:
    flags = np.zeros(clients, bool)
    flags[list(members)] = True
    return np.packbits(flags, bitorder="little").tobytes()


def _members(bitmap: bytes, clients: int) -> tuple[int, ...]:
    flags = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    if flags[clients:].any():
        _refuse("the invitation's bitmap names clients that are not enrolled", Code.BAD_BODY)
    return tuple(np.flatnonzero(flags).tolist())


def _read_long(data: bytes, enrolment: Enrolment) -> Invitation:
    at = 4 + SESSION
    session, unit, at = data[4:at], data[at], at + 1
    if data[3] > 1 or unit >= len(_UNITS) or len(session) != SESSION:
        _refuse("the invitation's flags are none that there are", Code.BAD_BODY)
    names = []
    for _ in range(2):
        size = data[at]
        names.append(data[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    (seed,) = struct.unpack_from("<Q", data, at)
    rotated, *numbers = _PLAN.unpack_from(data, at + 8)
    at += 8 + _PLAN.size
    width = -(-enrolment.clients // 8)
    members, at = _members(data[at : at + width], enrolment.clients), at + width
    number, model_hash = _ROUND.unpack_from(data, at)
    rest, params = data[at + _ROUND.size :], None
    if data[3]:
        params = SessionParams.from_bytes(rest, _identities(enrolment, members, rest))
    elif rest:
        _refuse("the invitation has left-over bytes", Code.BAD_BODY)
    plan = NoisePlan(
        **dict(zip((*_INTEGERS, *_FLOATS), numbers, strict=True)), smallest_cohort=numbers[0], rotated=rotated
    )
    return Invitation(
        session=session,
        round=number,
        members=members,
        unit=_UNITS[unit],
        placement=names[0],
        rule=names[1],
        rotation_seed=seed,
        plan=plan,
        model_hash=model_hash,
        params=params,
    )


def _identities(enrolment: Enrolment, members: tuple[int, ...], params: bytes) -> tuple[bytes, ...]:
    """Those of the members where the parameters are of the profile that has some: their fifth byte (SPEC.md, 16)."""
    return enrolment.identities_of(members) if params[4:5] == b"\x01" else ()


def _read_short(data: bytes, enrolment: Enrolment, after: Invitation | None) -> Invitation:
    _, _, tag, number, began, model_hash, clip_norm, upload_norm, scale = _SHORT.unpack_from(data)
    if after is None or tag != after.tag:
        _refuse("a short invitation that follows none known here; send the long one", Code.OTHER_SESSION)
    width = -(-enrolment.clients // 8)
    members = _members(data[_SHORT.size : _SHORT.size + width], enrolment.clients)
    plan = dataclasses.replace(after.plan, clip_norm=clip_norm, upload_norm=upload_norm, scale=scale)
    params = after.params
    if params is not None:
        try:
            keys = enrolment.identities_of(members) if params.malicious else ()
            params = dataclasses.replace(params, number=began, identities=keys)
        except ParameterError as error:
            raise PeerError("server", f"proposes what cannot be: {error}", Code.PARAMETERS) from None
    found = dataclasses.replace(after, round=number, members=members, plan=plan, model_hash=model_hash, params=params)
    if found._setup_tag != data[_SHORT.size + width :]:
        _refuse("the invitation is damaged, or of a session among other identities", Code.OTHER_SESSION)
    return found


def _check(invitation: Invitation) -> None:
    """PeerError for numbers that no plan has: they come from the server, and are computed with."""
    plan, params = invitation.plan, invitation.params
    numbers = [getattr(plan, name) for name in _FLOATS if name != "epsilon"]
    sound = (
        all(math.isfinite(value) and value >= 0 for value in numbers)
        and plan.epsilon > 0
        and 0 < plan.delta < 1
        and 0 < plan.sampling_rate <= 1
        and 0 < plan.clip_norm <= plan.upload_norm * (1 + _ROUNDING)
        # what the noise is counted for is c; where the whole upload is the unit, it must not be longer
        and (invitation.unit == "example" or plan.upload_norm <= plan.clip_norm * (1 + _ROUNDING))
        and plan.scale > 0
        and plan.dropout_tolerance < 1
        and 1 <= plan.dimension <= _MOST_DIMENSION
        and 8 <= plan.bits <= 32
        and plan.count_coordinates in (0, *(4**power for power in range(16)))
        and (plan.count_coordinates > 0) == (plan.count_scale > 0)
        and plan.noisy == (plan.sigma_local > 0)
        and invitation.round >= 1
        and plan.clients == len(invitation.members) >= 2
        and plan.honest_minimum >= 1
        and (invitation.unit == "example" or plan.sampling_rate == 1)
    )
    if sound and params is not None:
        sound = (params.clients, params.bits, params.dimension) == (plan.clients, plan.bits, plan.length)
        sound = sound and 0 <= invitation.slot < params.slots
    if not sound:
        _refuse("the invitation's numbers are impossible", Code.PARAMETERS)
