"""A client between two trips: who it is, and how its position is written down and read back.

A process that lives for one message only (as in Flower) ends with `dump` and starts with `load`:

    magic "fD" · version u8 · suite u8 · position u8 · set-up id 32 · index u32 · floors 3 x u32, u8 · contents
    · digest 32

The digest is SHA-256 of a label and of all that precedes it. It refuses every accident, and whatever belongs to another
version, position, client or session; but it has no key, so it stops nobody who can rewrite the whole dump. Who could,
could as well read it: *a dump holds the client's secrets of the session in the clear*, of all rounds to come. Store it
like a key, where the server cannot reach it, and delete it after the session. Identity keys are never in it; they are
given to `load` again.

Dumping spends the position, for a client is in one place at a time; once loaded, it belongs to the process that loaded
it. The library cannot see whether one dump is loaded
twice; the caller must overwrite it before the answer leaves. Two answers from one position mask two vectors with one
mask, or reveal both secrets of a peer.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import NoReturn, Self

from flora_protocols import keys
from flora_protocols.codec import Reader
from flora_protocols.errors import Code, MisuseError, PeerError
from flora_protocols.params import Floors, SessionParams, require_params
from flora_protocols.position import Position, transition
from flora_protocols.suites import Suite
from flora_protocols.trips import Trip

DUMP_MAGIC = b"fD"
DUMP_VERSION = 2
_LABEL = b"flora-secure/2 dump\0"
_HEAD = struct.Struct("<2sBBB32sIIIIB")
_DIGEST = 32


@dataclass(frozen=True)
class Member:
    """Who a client is: its parameters, its index in the roster, its own policy; and how it makes shared secrets."""

    params: SessionParams
    index: int
    floors: Floors
    exchange: keys.Exchange = field(default=keys.exchange_all, repr=False)

    @property
    def name(self) -> str:
        """The name that `repr` shows, without any secret."""
        return f"client {self.index} of {self.params.clients}, session {self.params.number}"


class ClientPosition(Position):
    """Base of a client's positions. `_CODE` names the position in a dump; `_SIGNS`: it will need its identity."""

    _CODE: int
    _SIGNS = False
    _trip: Trip | None

    def __init__(self, me: Member) -> None:
        super().__init__(me.name)
        self._me = me

    @property
    def index(self) -> int:
        """The client's place in the roster; of an unspent position."""
        return self._me.index

    @property
    def floors(self) -> Floors:
        """What the client insists on, in all rounds of the session; of an unspent position."""
        return self._me.floors

    @property
    def trip(self) -> Trip | None:
        """The trip in which this position makes its transition, or has made it; None where nothing is left to do."""
        return self._trip

    @transition
    def dump(self) -> bytes:
        """This position as bytes for `load`, possibly in another process. They hold secrets; see the module."""
        me = self._me
        floors = (me.floors.clients, me.floors.threshold, me.floors.survivors, me.floors.suite)
        suite = me.params.suite
        head = _HEAD.pack(DUMP_MAGIC, DUMP_VERSION, suite, self._CODE, me.params.setup_id, me.index, *floors)
        return _sealed(head + self._contents())

    @classmethod
    def load(cls, params: SessionParams, data: bytes, *, identity: bytes | None = None) -> Self:
        """The position that `dump` wrote. `params` as before; the floors come from the dump.

        `identity`: in the malicious-server profile, again the client's Ed25519 secret key; `ClientDone` does without.
        Raises MisuseError for anything but a dump of this class made under these `params`.
        """
        require_params(params).suite.require()
        body = opened(cls, params, data)
        *_, index, clients, threshold, survivors, suite = _HEAD.unpack_from(body)
        if index >= params.clients:
            refuse(cls, f"it is of client {index}, of {params.clients}")
        if suite not in set(Suite):
            refuse(cls, f"its floor is suite {suite}, which there is not")
        floors = Floors(clients=clients, threshold=threshold, survivors=survivors, suite=Suite(suite))
        me = Member(params, index, floors)
        if identity is not None or (cls._SIGNS and params.malicious):
            check_identity(params, index, identity)
        reader = Reader(memoryview(body)[_HEAD.size :], index)
        try:
            position = cls._restored(me, identity, reader)
            reader.finish()
        except PeerError as error:
            refuse(cls, error.reason)
        return position

    def _contents(self) -> bytes:
        raise NotImplementedError

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        raise NotImplementedError


def check_identity(params: SessionParams, index: int, identity: bytes | None) -> None:
    """MisuseError unless `identity` is there exactly when the profile needs it, and is that of client `index`."""
    if params.malicious != (identity is not None):
        raise MisuseError("an identity key is needed in the malicious-server profile, and only there")
    if identity is not None and keys.identity_public(identity) != params.identities[index]:
        raise MisuseError(f"this identity key is not the one that identities[{index}] names")


def _sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(_LABEL + body).digest()


def opened(cls: type[ClientPosition] | None, params: SessionParams, data: bytes) -> bytes:
    """A dump without its digest; MisuseError unless it is whole, of this session, and of class `cls` (if given)."""
    if not isinstance(data, bytes):
        raise MisuseError(f"a dump is bytes, not {type(data).__name__}")
    if len(data) < _HEAD.size + _DIGEST:
        refuse(cls, f"it has {len(data)} bytes, at least {_HEAD.size + _DIGEST} are needed")
    magic, version, suite, code, setup, *_ = _HEAD.unpack_from(data)
    if magic != DUMP_MAGIC:
        refuse(cls, "it is not a dump")
    if (version, suite) != (DUMP_VERSION, params.suite):
        reason = f"it has version {version}, suite {suite}; {DUMP_VERSION} and {params.suite:d} are expected"
        refuse(cls, reason, Code.OTHER_VERSION if version != DUMP_VERSION else Code.OTHER_SUITE)
    if _sealed(data[:-_DIGEST]) != data:
        refuse(cls, "its digest does not match: it was damaged, cut or tampered with")
    if cls is not None and code != cls._CODE:
        refuse(cls, f"it holds position {code}, and this is position {cls._CODE}", Code.OTHER_KIND)
    if setup != params.setup_id:
        refuse(cls, "it belongs to another session: other parameters or identities", Code.OTHER_SESSION)
    return data[:-_DIGEST]


def position_code(body: bytes) -> int:
    """The position that an `opened` dump holds."""
    code: int = _HEAD.unpack_from(body)[3]
    return code


def refuse(cls: type[ClientPosition] | None, reason: str, code: Code = Code.BAD_DUMP) -> NoReturn:
    """MisuseError: a dump cannot be loaded (as `cls`, if given)."""
    raise MisuseError(f"this dump cannot be loaded{f' as {cls.__name__}' if cls else ''}: {reason}", code)
