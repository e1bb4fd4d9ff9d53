"""What all parties of one round agree on, beside the session: which slot it takes, who is invited, what is trained.

How a client learns it is outside the protocol, as with the session's parameters; START is a frame for those who have no
invitation of their own:

    START   server → client   slot u16 · round u64 · model hash 32 · bitmap over all clients: who is invited

The *round id* is a SHA-256 digest of all that and of the session id. It stands in every mask, message and signature of
the round: who is told another story masks and signs something else.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from flora_protocols.codec import OVERHEAD, Bitmap, Kind, decode_frame, encode_frame
from flora_protocols.errors import Code, MisuseError, ParameterError
from flora_protocols.params import MAX_SLOTS, SessionParams
from flora_protocols.ranges import integer, shown, whole

_HEAD = struct.Struct("<HQ32s")


@dataclass(frozen=True, kw_only=True)
class RoundParams:
    """One round of a session.

    slot         which of the session's prepared slots it takes, 0 .. B - 1. A slot is used once, in ascending order
    round        number of the training round
    model_hash   32 bytes, a digest of the model that is trained and of whatever else all who take part must agree on:
                 clients that were told something else must not share a sum
    invited      who may take part, `Bitmap.of(params.clients, indices)`

    Raises ParameterError or MisuseError.
    """

    slot: int
    round: int
    model_hash: bytes
    invited: Bitmap
    _ids: dict[bytes, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("slot", "round"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        whole("slot", self.slot, 0, MAX_SLOTS - 1)
        whole("round", self.round, 0, 2**64 - 1)
        if not isinstance(self.model_hash, bytes) or len(self.model_hash) != 32:
            raise MisuseError(f"model_hash must be 32 bytes, such as a SHA-256, not {shown(self.model_hash)}")
        if not isinstance(self.invited, Bitmap):
            raise MisuseError(f"invited must be a Bitmap, not {type(self.invited).__name__}; use Bitmap.of")

    def fits(self, params: SessionParams) -> bool:
        """Whether the session has such a slot, and all that are invited."""
        size, tail = params.clients, params.clients % 8
        raw = self.invited.raw
        return self.slot < params.slots and len(raw) == (size + 7) // 8 and not (tail and raw[-1] >> tail)

    def id(self, params: SessionParams, session: bytes) -> bytes:
        """The round id, 32 bytes. ParameterError if it does not fit the session."""
        if session not in self._ids:
            if not self.fits(params):
                text = f"slot {self.slot} and a bitmap of {8 * len(self.invited.raw)} clients do not fit a session of "
                raise ParameterError(f"{text}{params.slots} slots and {params.clients} clients")
            self._ids[session] = hashlib.sha256(b"flora-secure/2 round\0" + session + self._body()).digest()
        return self._ids[session]

    def to_bytes(self, params: SessionParams, session: bytes) -> bytes:
        """The START frame. `session`: the session id. ParameterError as `id`."""
        self.id(params, session)
        return encode_frame(Kind.START, params.suite, session, self._body())

    @classmethod
    def from_bytes(cls, params: SessionParams, session: bytes, message: bytes) -> RoundParams:
        """The round that a START frame speaks of. PeerError naming the server for anything else."""
        reader = decode_frame(message, Kind.START, params.suite, session, "server", start_bytes(params) - OVERHEAD)
        slot, number, model_hash = _HEAD.unpack(reader.take(_HEAD.size))
        invited = reader.bitmap(params.clients)
        reader.finish()
        if slot >= params.slots:
            raise reader.refusal(f"slot {slot}: the session has {params.slots}, from 0", Code.PARAMETERS)
        return cls(slot=slot, round=number, model_hash=model_hash, invited=invited)

    def _body(self) -> bytes:
        return _HEAD.pack(self.slot, self.round, self.model_hash) + self.invited.raw


def start_bytes(params: SessionParams) -> int:
    """Length of a START frame."""
    return OVERHEAD + _HEAD.size + (params.clients + 7) // 8
