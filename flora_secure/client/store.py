"""Where a client keeps its place in a round between two messages.

A process may live for one message only. What it keeps holds the client's secrets of the round in the clear, and may be
loaded once: so it is replaced before the answer leaves, together with that answer, and a request that comes again gets
*the same bytes* again. Two answers from one position would seal different shares under one nonce, mask two vectors with
one mask, or reveal both secrets of a peer.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flora_secure.boundary.foreign import read_bytes
from flora_secure.errors import ForeignError, RunFolderError
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, remove_file, replace_file
from flora_secure.records.lock import lock_alone

_MAGIC = b"fC2\0"
_HEAD = struct.Struct("<4sBIIIIII32s")
_DIGEST = 32
_MOST = 1 << 31  # bytes; state, upload and shares of a round


@dataclass(frozen=True)
class Held:
    """What a client keeps between two messages of a round, and from one round to the next.

    Attributes:
        invitation: to the round, as it was sent.
        long: the one in its long form that it may refer to; empty where it is long itself.
        adapter: that the round trains from, in float16.
        state: of the server as the round began, which later broadcasts go on from (`client.following`); empty where
            there is none. It is no secret.
        position: a dump of the protocol's position, a secret; None when the round is over for this client.
        request: SHA-256 of the last message that was answered.
        reply: the answer, to be given again to the same message.
    """

    invitation: bytes = field(repr=False)
    long: bytes = field(repr=False)
    adapter: bytes = field(repr=False)
    state: bytes = field(repr=False)
    position: bytes | None = field(repr=False)
    request: bytes
    reply: bytes = field(repr=False)


class Store(Protocol):
    """A place for one client's `Held`. What `save` was given last is what `load` gives, also after a crash."""

    def load(self) -> Held | None:
        """What was saved last, or None before the first time."""
        ...

    def save(self, held: Held) -> None:
        """Keep `held` in the place of what was kept before; it is safe when this returns."""
        ...


class MemoryStore:
    """A store in this process's memory, which is gone when the process ends."""

    def __init__(self) -> None:
        self._held: Held | None = None

    def load(self) -> Held | None:
        """What was saved last, or None."""
        return self._held

    def save(self, held: Held) -> None:
        """Keep `held` in the place of what was kept before."""
        self._held = held


class FileStore:
    """A store in a folder that only this user may read: files of mode 0600, flushed, replaced whole.

    One store at a time may hold the folder, until `close` is called or its process ends: threads of one process would
    load one position twice, too. Raises RunFolderError where another one holds it, OSError where it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._path = folder / "position"
        try:
            self._handle: int | None = lock_alone(folder / "lock")
        except BlockingIOError:
            raise RunFolderError(f"{folder} is in use by another process: a client runs once") from None

    def __repr__(self) -> str:
        return f"FileStore({self._path.parent})"

    def load(self) -> Held | None:
        """What was saved last, or None. Raises RunFolderError for a file that is damaged."""
        if not os.path.lexists(self._path):
            return None
        try:
            raw = read_bytes(self._path, _MOST)
        except ForeignError as error:
            raise RunFolderError(f"{self._path} cannot be read: {error}") from None
        body, digest = raw[:-_DIGEST], raw[-_DIGEST:]
        if len(body) < _HEAD.size or hashlib.sha256(body).digest() != digest or body[:4] != _MAGIC:
            raise RunFolderError(
                f"{self._path} is damaged, or of another release; the round that it belongs to cannot go on: remove it"
            )
        _, there, *sizes, request = _HEAD.unpack_from(body)
        parts, at = [], _HEAD.size
        for size in sizes:
            parts.append(body[at : at + size])
            at += size
        invitation, long, adapter, state, position, reply = parts
        return Held(invitation, long, adapter, state, position if there else None, request, reply)

    def save(self, held: Held) -> None:
        """Keep `held`; it is on disk when this returns. Raises OSError where it cannot be written."""
        parts = (held.invitation, held.long, held.adapter, held.state, held.position or b"", held.reply)
        head = _HEAD.pack(_MAGIC, held.position is not None, *map(len, parts), held.request)
        body = head + b"".join(parts)
        replace_file(self._path, body + hashlib.sha256(body).digest(), mode=PRIVATE)

    def forget(self) -> None:
        """Remove what is kept: the position of a round that will not go on is a secret that nobody needs.

        The server's state goes with it: the next broadcast may be refused for want of it, and a complete one follows.
        """
        remove_file(self._path)

    def close(self) -> None:
        """Let go of the folder, so that another process may hold it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
