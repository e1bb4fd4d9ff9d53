"""A client behind any transport: one request of the server's in, one reply out, and bytes that live in between.

    kept, reply, done = answer(params, index, request, kept, floors=floors, vector=vector)

Transports lose, repeat and reorder, and processes end. What a client keeps is therefore more than its position: the
number of the last round, the last request and the reply to it. The same request gets the same bytes again, without
anything being moved; an old one, or one that would begin a round that was begun before, is refused. For a client that
began a round anew would upload one vector into two sums, whose difference is its neighbours' secrets or its own.

    magic "fK" · version u8 · round u64 · set-up id 32 · SHA-256 of the request 32 · size of the reply u32 · reply
    · dump · digest 32

Like dumps, these bytes hold secrets in the clear, and the digest stops no more than accidents (see `member`). They must
be stored before the reply leaves, and never be set back: who loses them must not take part in a round that it may have
taken part in before.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flora_protocols.client import ClientAdvertise
from flora_protocols.errors import Code, MisuseError, PeerError
from flora_protocols.keys import Randomness
from flora_protocols.loading import Client, load_position
from flora_protocols.member import DUMP_VERSION
from flora_protocols.params import Floors, SessionParams, require_params
from flora_protocols.ranges import shown
from flora_protocols.trips import Trip

_MAGIC = b"fK"
_LABEL = b"flora-secure/2 kept\0"
_HEAD = struct.Struct("<2sBQ32s32sI")
_DIGEST = 32


class Answer(NamedTuple):
    """What to keep, what to send, and whether this was the round's last reply. `kept` holds secrets."""

    kept: bytes
    reply: bytes
    done: bool

    def __repr__(self) -> str:
        return f"<Answer of {len(self.reply)} bytes{', the last' if self.done else ''}>"


class _Kept(NamedTuple):
    round: int
    setup: bytes
    request: bytes
    reply: bytes
    dump: bytes


def answer(
    params: SessionParams,
    index: int,
    request: bytes,
    kept: bytes,
    *,
    floors: Floors,
    vector: Callable[[], NDArray[np.uint32]],
    identity: bytes | None = None,
    randomness: Randomness = os.urandom,
) -> Answer:
    """Answer one message of the server's, b"" for the one that begins the round.

    `params`, `index`, `floors`, `identity`: as of `ClientAdvertise`. `kept`: what the last answer gave, b"" before the
    first one of all. `vector`: asked for what the client uploads, once. Whatever is raised, nothing has changed:
    PeerError naming the server for what must be refused, TooFewSurvivors, MisuseError for `kept` that is damaged.
    """
    require_params(params)
    if not isinstance(request, bytes):
        raise MisuseError(f"a request is bytes, not {type(request).__name__}")
    before, asked = _read(kept), hashlib.sha256(request).digest()
    ours = before is not None and before.setup == params.setup_id
    if before is not None and ours and before.request == asked:
        return Answer(kept, before.reply, load_position(params, before.dump, identity=identity).trip is None)
    position: Client
    if not request:
        if before is not None and params.round <= before.round:
            reason = f"asks to begin round {params.round}; this client has begun round {before.round}"
            raise PeerError("server", reason, Code.SECOND_MESSAGE)
        begun = ClientAdvertise(params, index, floors=floors, identity=identity)
        position, reply = begun.advertise(randomness)
    elif before is None or not ours:
        raise PeerError("server", "sends a message of a round that was not begun here, or is over", Code.OTHER_SESSION)
    else:
        loaded = load_position(params, before.dump, identity=identity)
        if loaded.index != index:
            raise MisuseError(f"what was kept is of client {loaded.index}, not {shown(index)}")
        position, reply = _moved(loaded, request, vector, randomness)
    return Answer(
        _written(_Kept(params.round, params.setup_id, asked, reply, position.dump())), reply, not position.trip
    )


def _moved(
    position: Client, request: bytes, vector: Callable[[], NDArray[np.uint32]], randomness: Randomness
) -> tuple[Client, bytes]:
    if position.trip is None:
        raise PeerError("server", "sends another message after the last of the round", Code.SECOND_MESSAGE)
    more: tuple[object, ...] = ()
    if position.trip is Trip.SHARE:
        more = (randomness,)
    elif position.trip is Trip.MASK:
        more = (vector(),)
    moved: tuple[Client, bytes] = getattr(position, position.trip.name.lower())(request, *more)
    return moved


def _written(kept: _Kept) -> bytes:
    head = _HEAD.pack(_MAGIC, DUMP_VERSION, kept.round, kept.setup, kept.request, len(kept.reply))
    body = head + kept.reply + kept.dump
    return body + hashlib.sha256(_LABEL + body).digest()


def _read(data: bytes) -> _Kept | None:
    """What `_written` wrote; None for b""."""
    if not isinstance(data, bytes):
        raise MisuseError(f"what is kept is bytes, not {type(data).__name__}")
    if not data:
        return None
    if data[:2] != _MAGIC or len(data) < _HEAD.size + _DIGEST:
        raise MisuseError("this is not what a client has kept of its last round", Code.BAD_DUMP)
    if data[2] != DUMP_VERSION:
        reason = f"what was kept has version {data[2]}; this library reads {DUMP_VERSION}"
        raise MisuseError(reason, Code.OTHER_VERSION)
    body = data[:-_DIGEST]
    if hashlib.sha256(_LABEL + body).digest() != data[-_DIGEST:]:
        raise MisuseError("what was kept was damaged or cut: its digest does not match", Code.BAD_DUMP)
    _, _, number, setup, request, size = _HEAD.unpack_from(body)
    rest = body[_HEAD.size :]
    return _Kept(number, setup, request, rest[:size], rest[size:])
