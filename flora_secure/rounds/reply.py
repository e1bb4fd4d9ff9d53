"""What a site sends back: its message, or a code that says why there is none.

    "fA" · 0 · message      or      "fA" · 1 · code, ASCII

A code is from the fixed lists of `flora_protocols.Code` and `errors.Refusal`, or "failed" for whatever else went wrong
at the site: no text of an error leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass

from flora_protocols import Code
from flora_secure.errors import Refusal

_MAGIC = b"fA"
REPLY_BYTES = len(_MAGIC) + 1  # beside the message
FAILED = "failed"
_CODES = frozenset({FAILED, *(code.value for code in Code), *(code.value for code in Refusal)})


@dataclass(frozen=True)
class Refused:
    """A site's answer that it does not do what it was asked. `code`: why, from the fixed lists."""

    code: str


def encode_reply(message: bytes) -> bytes:
    """A site's message, as it is sent."""
    return _MAGIC + b"\0" + message


def encode_refusal(code: str) -> bytes:
    """Why there is no message. Raises ValueError for a code that is not on the lists."""
    if code not in _CODES:
        raise ValueError("this is no code that may leave a site")
    return _MAGIC + b"\1" + code.encode("ascii")


def decode_reply(data: bytes) -> bytes | Refused:
    """The inverse of both; what is neither, and a code that is not on the lists, counts as "failed"."""
    kind, rest = data[:REPLY_BYTES], data[REPLY_BYTES:]
    if kind == _MAGIC + b"\0":
        return rest
    code = rest[:64].decode("ascii", "replace") if kind == _MAGIC + b"\1" else FAILED
    return Refused(code if code in _CODES else FAILED)
