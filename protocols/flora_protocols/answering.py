"""A client behind any transport: one request of the server's in, one reply out, and bytes that live in between.

    kept, reply, done = answer(params, index, request, kept, floors=floors, vector=vector)

Transports lose, repeat and reorder, and processes end. What a client keeps is therefore more than its position: the
number of the last session and of its last round, the last request and the reply to it. The same request gets the same
bytes again, without anything being moved; an old one, or one that would begin a session or a round that was begun
before, is refused. For a client that began one anew would upload one vector into two sums, whose difference is its
neighbours' secrets or its own.

    magic "fK" · version u8 · session's number u64 · 1 + last round u64, 0 before the first · set-up id 32
    · SHA-256 of the request 32 · size of the reply u32 · reply · dump · digest 32

Like dumps, these bytes hold secrets in the clear, and the digest stops no more than accidents (see `member`). They must
be stored before the reply leaves, and never be set back: who loses them must not take part in a session that it may
have taken part in before.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flora_protocols.client import ClientAdvertise, ClientEncapsulate
from flora_protocols.client_round import ClientAgree, ClientDone, ClientReady, ClientUnmask
from flora_protocols.codec import Kind
from flora_protocols.dealing import ClientCollect
from flora_protocols.errors import Code, MisuseError, PeerError
from flora_protocols.keys import Randomness
from flora_protocols.loading import Client, load_position
from flora_protocols.member import DUMP_VERSION
from flora_protocols.params import Floors, SessionParams, require_params
from flora_protocols.ranges import shown
from flora_protocols.round_params import RoundParams, start_bytes

_MAGIC = b"fK"
_LABEL = b"flora-secure/2 kept\0"
_HEAD = struct.Struct("<2sBQQ32s32sI")
_DIGEST = 32


class Answer(NamedTuple):
    """What to keep, what to send, and whether this was the session's last reply. `kept` holds secrets."""

    kept: bytes
    reply: bytes
    done: bool

    def __repr__(self) -> str:
        return f"<Answer of {len(self.reply)} bytes{', the last' if self.done else ''}>"


class _Kept(NamedTuple):
    number: int
    rounds: int  # 1 + the last one that was begun
    setup: bytes
    request: bytes
    reply: bytes
    dump: bytes

    def __repr__(self) -> str:
        return "<_Kept>"


def answer(
    params: SessionParams,
    index: int,
    request: bytes,
    kept: bytes,
    *,
    floors: Floors,
    vector: Callable[[RoundParams], NDArray[np.uint32]],
    identity: bytes | None = None,
    randomness: Randomness = os.urandom,
) -> Answer:
    """Answer one message of the server's, b"" for the one that begins the session.

    `params`, `index`, `floors`, `identity`: as of `ClientAdvertise`. `kept`: what the last answer gave, b"" before the
    first one of all. `vector`: asked for what the client uploads in a round, once. Whatever is raised, nothing has
    changed: PeerError naming the server for what must be refused, TooFewSurvivors, MisuseError for `kept` that is
    damaged.
    """
    require_params(params)
    if not isinstance(request, bytes):
        raise MisuseError(f"a request is bytes, not {type(request).__name__}")
    before, asked = _read(kept), hashlib.sha256(request).digest()
    ours = before is not None and before.setup == params.setup_id
    if before is not None and ours and before.request == asked:
        return Answer(kept, before.reply, load_position(params, before.dump, identity=identity).trip is None)
    position: Client
    rounds = 0 if before is None else before.rounds
    if not request:
        if before is not None and params.number <= before.number:
            reason = f"asks to begin session {params.number}; this client has begun session {before.number}"
            raise PeerError("server", reason, Code.SECOND_MESSAGE)
        position, reply = ClientAdvertise(params, index, floors=floors, identity=identity).advertise(randomness)
    elif before is None or not ours:
        reason = "sends a message of a session that was not begun here, or is over"
        raise PeerError("server", reason, Code.OTHER_SESSION)
    else:
        loaded = load_position(params, before.dump, identity=identity)
        if loaded.index != index:
            raise MisuseError(f"what was kept is of client {loaded.index}, not {shown(index)}")
        position, reply, rounds = _moved(params, loaded, request, before.rounds, vector)
    after = _Kept(params.number, rounds, params.setup_id, asked, reply, position.dump())
    return Answer(_written(after), reply, not position.trip)


def _moved(
    params: SessionParams,
    position: Client,
    request: bytes,
    rounds: int,
    vector: Callable[[RoundParams], NDArray[np.uint32]],
) -> tuple[Client, bytes, int]:
    """The position after `request`, the reply, and 1 + the last round that was begun, so far `rounds`."""
    starts = request[4:5] == bytes((Kind.START,))
    if starts and isinstance(position, ClientCollect | ClientReady | ClientAgree | ClientUnmask):
        return _begun(params, position, request, rounds, vector)
    moved: tuple[Client, bytes]
    if isinstance(position, ClientDone):
        raise PeerError("server", "sends another message after the last of the session", Code.SECOND_MESSAGE)
    if isinstance(position, ClientCollect | ClientReady | ClientAdvertise):
        reason = "sends a message of another trip than the one that begins a round"
        raise PeerError("server", reason, Code.OTHER_KIND)
    if isinstance(position, ClientEncapsulate):
        moved = position.encapsulate(request)
    elif isinstance(position, ClientAgree):
        moved = position.agree(request)
    elif isinstance(position, ClientUnmask):
        moved = position.unmask(request)
    else:
        moved = position.share(request)
    return *moved, rounds


def _begun(
    params: SessionParams,
    position: ClientCollect | ClientReady | ClientAgree | ClientUnmask,
    request: bytes,
    rounds: int,
    vector: Callable[[RoundParams], NDArray[np.uint32]],
) -> tuple[Client, bytes, int]:
    """The position after a START, and the inbox that may follow it."""
    size = start_bytes(params)
    asked = RoundParams.from_bytes(params, position.session, request[:size])
    if asked.round < rounds:
        reason = f"asks to begin round {asked.round}; this client has begun round {rounds - 1}"
        raise PeerError("server", reason, Code.SECOND_MESSAGE)
    if isinstance(position, ClientCollect):
        ready = position.collect(request[size:])
    elif isinstance(position, ClientReady):
        ready = position
    else:
        left = position.leave()  # of a dump that is loaded again where what follows is refused
        if not isinstance(left, ClientReady):
            raise PeerError("server", "asks for another round; all slots are used", Code.SECOND_MESSAGE)
        ready = left
    ready.check(asked)  # before anything is trained for it
    moved = ready.mask(asked, vector(asked))
    return *moved, asked.round + 1


def _written(kept: _Kept) -> bytes:
    head = _HEAD.pack(_MAGIC, DUMP_VERSION, kept.number, kept.rounds, kept.setup, kept.request, len(kept.reply))
    body = head + kept.reply + kept.dump
    return body + hashlib.sha256(_LABEL + body).digest()


def _read(data: bytes) -> _Kept | None:
    """What `_written` wrote; None for b""."""
    if not isinstance(data, bytes):
        raise MisuseError(f"what is kept is bytes, not {type(data).__name__}")
    if not data:
        return None
    if data[:2] != _MAGIC or len(data) < _HEAD.size + _DIGEST:
        raise MisuseError("this is not what a client has kept of its last session", Code.BAD_DUMP)
    if data[2] != DUMP_VERSION:
        reason = f"what was kept has version {data[2]}; this library reads {DUMP_VERSION}"
        raise MisuseError(reason, Code.OTHER_VERSION)
    body = data[:-_DIGEST]
    if hashlib.sha256(_LABEL + body).digest() != data[-_DIGEST:]:
        raise MisuseError("what was kept was damaged or cut: its digest does not match", Code.BAD_DUMP)
    _, _, number, rounds, setup, request, size = _HEAD.unpack_from(body)
    rest = body[_HEAD.size :]
    return _Kept(number, rounds, setup, request, rest[:size], rest[size:])
