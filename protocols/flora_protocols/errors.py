"""Every error that this package raises on purpose.

    ProtocolError
    ├── MisuseError           you misused me: wrong type, wrong shape, a spent position
    │   └── ParameterError    session parameters that cannot work together
    ├── PeerError             the peer misbehaved; ``culprit`` says whose message was refused
    └── TooFewSurvivors       nobody misbehaved, but too few clients are left to finish the round

A refused message leaves the position that refused it unchanged, so the caller may drop it and go on.
No message of any error holds key material, shares or vector elements.
"""

from __future__ import annotations

from typing import Literal

Culprit = int | Literal["server"]
"""A client's index in the roster, or the server."""


class ProtocolError(Exception):
    """Base of all errors of this package."""


class MisuseError(ProtocolError):
    """The caller broke a precondition; the peers did nothing wrong."""


class ParameterError(MisuseError):
    """Session parameters that are out of range or contradict one another."""


class PeerError(ProtocolError):
    """A message that must be refused.

    ``culprit`` is whose message it was: a client's index, or "server". Where a relayed message fails, the server
    may have tampered with it; the text then says so.
    """

    def __init__(self, culprit: Culprit, reason: str) -> None:
        self.culprit: Culprit = culprit
        self.reason = reason
        who = "server" if culprit == "server" else f"client {culprit}"
        super().__init__(f"{who}: {reason}")


class TooFewSurvivors(ProtocolError):  # noqa: N818  (the name says what happened, as in the specification)
    """Fewer clients than needed are left; the round ends without a sum. ``have`` < ``need``."""

    def __init__(self, what: str, have: int, need: int) -> None:
        self.have = have
        self.need = need
        super().__init__(f"{what}: {have} left, {need} needed; start a new round, or plan for more dropouts")
