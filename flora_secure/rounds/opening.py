"""The server's messages that are not the masking protocol's alone: what opens a round, and what asks for its upload.

    opening   "fO" · length of the invitation u32 · invitation · broadcast
    request   "fR" · length of the opening u32 · opening · START [· INBOX] of the masking protocol

Where a masking session begins, the opening comes first and alone, and what it opens is asked for once the session is
set up; in its later rounds both come at once.
"""

from __future__ import annotations

import struct

from flora_protocols import Code, PeerError

_PART = struct.Struct("<2sI")
OPENING_BYTES = REQUEST_BYTES = _PART.size  # of either, beside what it holds


def encode_opening(invitation: bytes, broadcast: bytes) -> bytes:
    """What opens a round at a client: the invitation and the broadcast (`rounds.broadcast`)."""
    return _PART.pack(b"fO", len(invitation)) + invitation + broadcast


def decode_opening(message: bytes) -> tuple[bytes, bytes]:
    """The inverse of `encode_opening`: invitation and broadcast. Raises PeerError for other bytes."""
    if not is_opening(message) or len(message) < _PART.size:
        raise PeerError("server", "this message opens no round", Code.NOT_A_MESSAGE)
    return _parted(message, "opens the round")


def is_opening(message: bytes) -> bool:
    """Whether a message opens a round; all others belong to the masking protocol."""
    return message[:2] == b"fO"


def encode_request(opening: bytes, message: bytes) -> bytes:
    """What asks a member for its upload: the protocol's message, START and perhaps the inbox, and before it the opening
    of the round; empty where that came with the set-up."""
    return _PART.pack(b"fR", len(opening)) + opening + message


def decode_request(message: bytes) -> tuple[bytes, bytes]:
    """The inverse of `encode_request`. Raises PeerError for other bytes."""
    if not is_request(message) or len(message) < _PART.size:
        raise PeerError("server", "this message asks for no upload", Code.NOT_A_MESSAGE)
    return _parted(message, "asks for an upload")


def is_request(message: bytes) -> bool:
    """Whether a message asks for the upload of a round."""
    return message[:2] == b"fR"


def _parted(message: bytes, does: str) -> tuple[bytes, bytes]:
    end = _PART.size + _PART.unpack_from(message)[1]
    if len(message) < end:
        raise PeerError("server", f"the message that {does} is cut short", Code.NOT_A_MESSAGE)
    return message[_PART.size : end], message[end:]
