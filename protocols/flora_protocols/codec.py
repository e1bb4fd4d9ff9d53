"""Frames: the envelope of every message, and a strict reader for what is inside.

    magic "fS" · version u8 · suite u8 · kind u8 · scope 8 bytes · body · checksum u32

Integers are little-endian. Decoding is canonical: one value has one encoding, left-over bytes and non-zero padding are
errors, and lengths are checked against what the session allows before anything is allocated. The checksum catches
accidents in transit; authenticity comes from the AEAD, from the signatures, and from the transport.

The checksum is the CRC-32 of header and body, a long frame folded first: its rows of 4084 bytes, as words of 32 bits,
are added up, each times an odd number of its own, so that it matters which row is where. zlib's CRC of every upload in
full would be a fifth of a server's work; the fold runs at the speed of memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Set
from enum import IntEnum
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from flora_protocols.errors import Code, Culprit, MisuseError, PeerError
from flora_protocols.ranges import integer, whole
from flora_protocols.suites import Suite

MAGIC = b"fS"
VERSION = 2
TAG = 8
HEADER = len(MAGIC) + 3 + TAG
CHECKSUM = 4
OVERHEAD = HEADER + CHECKSUM
ROW = 4084  # bytes of 1021 words, a prime number of them: what is cut into round sizes never falls into step with it
_WORD = np.dtype("<u4")


class Kind(IntEnum):
    """What a frame holds; one kind for each direction of each trip."""

    ADVERTISEMENT = 1
    ROSTER = 2
    CIPHERTEXTS = 3
    DELIVERY = 4
    SHARES = 5
    INBOX = 6
    START = 7
    UPLOAD = 8
    SURVIVORS = 9
    ENDORSEMENT = 10
    AGREEMENT = 11
    REVEAL = 12


def encode_frame(kind: Kind, suite: Suite, scope: bytes, body: bytes) -> bytes:
    """Wrap `body`; `scope` is the 32-byte id of the set-up, the session or the round that it belongs to."""
    frame = _header(kind, suite, scope) + body
    return frame + checksum(frame)


def encode_long_frame(kind: Kind, suite: Suite, scope: bytes, parts: Iterable[NDArray[np.uint8]]) -> bytes:
    """The frame, as `encode_frame` makes it, of `parts`, uint8 (n,), one after another.

    Each is copied and folded before the next is asked for, while it is in the cache, and may then be overwritten.
    """
    frame, fold = BytesIO(), _Fold()
    frame.write(_header(kind, suite, scope))
    for part in parts:
        frame.write(part.data)
        with frame.getbuffer() as written:
            fold.take(written)
    with frame.getbuffer() as written:
        end = fold.checksum(written)
    frame.write(end)
    return frame.getvalue()  # no copy: nobody else holds the buffer


def _header(kind: Kind, suite: Suite, scope: bytes) -> bytes:
    return MAGIC + bytes((VERSION, suite, kind)) + scope[:TAG]


def checksum(frame: bytes | memoryview) -> bytes:
    """The four bytes at the end of a frame, from all that precedes them."""
    return _Fold().checksum(frame)


class _Fold:
    """The fold of a frame that grows: the sum, mod 2^32, of its rows, row r times 2r + 1."""

    __slots__ = ("_rows", "_sum")

    def __init__(self) -> None:
        self._rows = 0
        self._sum: NDArray[np.uint32] | None = None

    def take(self, frame: bytes | memoryview) -> None:
        """Add the rows that have become whole. `frame` begins as before; its words are those of the whole frame, not
        of the body, for there they lie aligned in memory, without which this would take thrice as long."""
        first, last = self._rows, len(frame) // ROW
        if first < last:
            rows = np.frombuffer(frame, _WORD, (last - first) * (ROW // 4), first * ROW).reshape(last - first, -1)
            self._add(np.einsum("r,rw->w", np.arange(2 * first + 1, 2 * last, 2, dtype=_WORD), rows))
            self._rows = last

    def checksum(self, frame: bytes | memoryview) -> bytes:
        """The checksum of `frame`, which is complete now."""
        if len(frame) <= ROW:
            return zlib.crc32(frame).to_bytes(CHECKSUM, "little")
        self.take(frame)
        rest = np.frombuffer(bytes(frame[self._rows * ROW :]).ljust(ROW, b"\0"), _WORD)
        self._add(rest * _WORD.type(2 * self._rows + 1))
        assert self._sum is not None
        return zlib.crc32(self._sum.data).to_bytes(CHECKSUM, "little")

    def _add(self, words: NDArray[np.uint32]) -> None:
        self._sum = words if self._sum is None else self._sum + words


def decode_frame(message: bytes, kind: Kind, suite: Suite, scope: bytes, culprit: Culprit, limit: int) -> Reader:
    """Unwrap `message`, whose body may have at most `limit` bytes.

    Raises MisuseError if `message` is not bytes, PeerError naming `culprit` for everything else.
    """
    if not isinstance(message, bytes):
        raise MisuseError(f"a message is bytes, not {type(message).__name__}")
    if not OVERHEAD <= len(message) <= OVERHEAD + limit:
        raise PeerError(
            culprit,
            f"{kind.name} of {len(message)} bytes; between {OVERHEAD} and {OVERHEAD + limit} expected",
            Code.NOT_A_MESSAGE,
        )
    if message[:2] != MAGIC:
        raise PeerError(
            culprit, f"not a message of this protocol: it starts with {message[:2].hex()}", Code.NOT_A_MESSAGE
        )
    version, spoken, got = message[2:5]
    if version != VERSION:
        raise PeerError(culprit, f"wire version {version}; this side speaks {VERSION}", Code.OTHER_VERSION)
    if spoken != suite:
        raise PeerError(culprit, f"cipher suite {spoken}; this session's is {suite:d}", Code.OTHER_SUITE)
    whole = memoryview(message)
    if checksum(whole[:-CHECKSUM]) != message[-CHECKSUM:]:
        raise PeerError(culprit, "checksum does not match: the message was damaged in transit", Code.NOT_A_MESSAGE)
    if got != kind:
        raise PeerError(culprit, f"message kind {got}; {kind.name} ({kind:d}) expected", Code.OTHER_KIND)
    if message[5:HEADER] != scope[:TAG]:
        reason = "the message belongs to another session or round: other parameters, roster, slot, model or invited"
        raise PeerError(culprit, reason, Code.OTHER_SESSION)
    return Reader(whole[HEADER:-CHECKSUM], culprit)


class Bitmap:
    """A set of clients as on the wire: an eighth of a byte for everyone, so that each of n clients can keep one."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @classmethod
    def of(cls, size: int, members: Iterable[int]) -> Bitmap:
        """The set of these `members`, all of them in 0 .. size - 1 (otherwise ParameterError)."""
        flags = np.zeros(size, np.bool_)
        for member in members:
            index = integer("a client's index", member)
            whole("a client's index", index, 0, size - 1)
            flags[index] = True
        return cls(np.packbits(flags, bitorder="little").tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bitmap) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<Bitmap of {len(self)}>"

    def __contains__(self, index: int) -> bool:
        return bool(self.raw[index >> 3] >> (index & 7) & 1)

    def __len__(self) -> int:
        return int.from_bytes(self.raw, "little").bit_count()

    def __iter__(self) -> Iterator[int]:
        flags = np.unpackbits(np.frombuffer(self.raw, np.uint8), bitorder="little")
        return iter(np.flatnonzero(flags).tolist())

    def among(self, members: Iterable[int]) -> list[int]:
        """Those of `members` who are in the set, in their order."""
        raw = self.raw
        return [member for member in members if raw[member >> 3] >> (member & 7) & 1]

    def without(self, other: Bitmap) -> Bitmap:
        """Those who are not in `other`, a bitmap of the same size."""
        left = int.from_bytes(self.raw, "little") & ~int.from_bytes(other.raw, "little")
        return Bitmap(left.to_bytes(len(self.raw), "little"))


class Reader:
    """Takes a body apart from the front; whoever reads calls `finish` at the end."""

    __slots__ = ("_body", "_culprit")

    def __init__(self, body: memoryview, culprit: Culprit) -> None:
        self._body = body
        self._culprit = culprit

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        return bytes(self.view(size))

    def view(self, size: int) -> memoryview:
        """The next `size` bytes, where they are; for what is too long to be copied."""
        if size > len(self._body):
            raise PeerError(self._culprit, f"truncated: {size} bytes expected, {len(self._body)} left", Code.BAD_BODY)
        part, self._body = self._body[:size], self._body[size:]
        return part

    def chunks(self, size: int, count: int) -> list[bytes]:
        """The next `count` pieces of `size` bytes."""
        joined = self.take(size * count)
        return [joined[at : at + size] for at in range(0, size * count, size)]

    def subset(self, members: range | tuple[int, ...]) -> tuple[int, ...]:
        """The next bitmap: which of `members` (ascending) are meant."""
        raw = self.take((len(members) + 7) // 8)
        self._padding(raw, len(members))
        if not any(raw):
            return ()
        return tuple([member for at, member in enumerate(members) if raw[at >> 3] >> (at & 7) & 1])

    def bitmap(self, size: int) -> Bitmap:
        """The next bitmap over 0 .. size - 1, kept as it is."""
        raw = self.take((size + 7) // 8)
        self._padding(raw, size)
        return Bitmap(raw)

    def refusal(self, reason: str, code: Code = Code.BAD_BODY) -> PeerError:
        """The error that names whose message this is."""
        return PeerError(self._culprit, reason, code)

    def _padding(self, raw: bytes, size: int) -> None:
        if size % 8 and raw[-1] >> size % 8:
            raise self.refusal(f"bitmap has bits beyond its {size} members")

    def finish(self) -> None:
        """Raise PeerError where bytes are left over."""
        if len(self._body):
            raise PeerError(self._culprit, f"{len(self._body)} bytes left over", Code.BAD_BODY)


def encode_subset(members: range | tuple[int, ...], chosen: Iterable[int]) -> bytes:
    """The bitmap of those `members` (ascending) that are in `chosen`; bit 0 of byte 0 is the first member."""
    there = chosen if isinstance(chosen, Mapping | Set) else frozenset(chosen)
    flags = bytes(map(there.__contains__, members))
    return np.packbits(np.frombuffer(flags, np.uint8), bitorder="little").tobytes()
