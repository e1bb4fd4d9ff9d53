"""Every error that this package raises on purpose.

    ProtocolError
    ├── MisuseError           you misused me: wrong type, wrong shape, a spent position
    │   └── ParameterError    session parameters that cannot work together
    ├── PeerError             the peer misbehaved; `culprit` says whose message was refused
    ├── TooFewSurvivors       nobody misbehaved, but too few clients are left to finish the round
    ├── UnsoundShares         somebody misbehaved, and nobody can say who
    └── RoundAborted          a whole round ended without a sum; `cause` is one of the three above

A refused message leaves the position that refused it unchanged, so the caller may drop it and go on.
No message of any error holds key material, shares or vector elements. Its `code`, from a fixed list, tells even less,
and may be told to anybody, the culprit among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal

from flora_protocols.trips import Trip

Culprit = int | Literal["server"]
"""A client's index in the roster, or the server."""


class Code(Enum):
    """What kind of error it was: SPEC.md, section 18, says which checks end in which."""

    MISUSE = "misuse"
    PARAMETERS = "parameters"
    SPENT = "spent"
    BELOW_FLOOR = "below-floor"
    TOO_FEW_SURVIVORS = "too-few-survivors"
    ABORTED = "aborted"
    NOT_A_MESSAGE = "not-a-message"
    OTHER_VERSION = "other-version"
    OTHER_SUITE = "other-suite"
    OTHER_KIND = "other-kind"
    OTHER_SESSION = "other-session"
    BAD_BODY = "bad-body"
    BAD_KEY = "bad-key"
    BAD_SIGNATURE = "bad-signature"
    BAD_ROSTER = "bad-roster"
    BAD_INBOX = "bad-inbox"
    BAD_SHARE = "bad-share"
    UNSOUND_SHARES = "unsound-shares"
    BAD_SURVIVORS = "bad-survivors"
    BAD_DUMP = "bad-dump"
    SECOND_MESSAGE = "second-message"
    STRANGER = "stranger"


class ProtocolError(Exception):
    """Base of all errors of this package. `code`: what kind of error it is, without any detail."""

    code: Code


class MisuseError(ProtocolError):
    """The caller broke a precondition; the peers did nothing wrong."""

    def __init__(self, text: str, code: Code = Code.MISUSE) -> None:
        self.code = code
        super().__init__(text)


class ParameterError(MisuseError):
    """Session parameters that are out of range or contradict one another."""

    def __init__(self, text: str, code: Code = Code.PARAMETERS) -> None:
        super().__init__(text, code)


class PeerError(ProtocolError):
    """A message that must be refused.

    `culprit` is whose message it was: a client's index, or "server". Where a relayed message fails, the server
    may have tampered with it; the text then says so. `reason`: the text without the culprit.
    """

    def __init__(self, culprit: Culprit, reason: str, code: Code) -> None:
        self.culprit: Culprit = culprit
        self.reason = reason
        self.code = code
        who = "server" if culprit == "server" else f"client {culprit}"
        super().__init__(f"{who}: {reason}")


class TooFewSurvivors(ProtocolError):  # noqa: N818  (the name says what happened, as in the specification)
    """Fewer clients than needed are left; the round ends without a sum. `have` < `need`."""

    def __init__(self, what: str, have: int, need: int, code: Code = Code.TOO_FEW_SURVIVORS) -> None:
        self.have = have
        self.need = need
        self.code = code
        super().__init__(f"{what}: {have} left, {need} needed; start a new round, or plan for more dropouts")


class UnsoundShares(ProtocolError):  # noqa: N818  (as above)
    """What clients have shared, revealed or complained of contradicts itself, and whoever were named for it might be
    innocent: the round ends without a sum. `owner`: whose secret it is, or the first of a pair, which is no accusation.
    """

    code = Code.UNSOUND_SHARES

    def __init__(self, owner: int, text: str) -> None:
        self.owner = owner
        super().__init__(f"{text}, so nobody is named; start a new round")

    @classmethod
    def revealed(cls, owner: int, what: str, holders: int) -> UnsoundShares:
        """The error of shares that so many `holders` revealed; `what` is wrong with them."""
        doubt = "too few to tell whether the owner dealt or holders revealed wrong ones"
        return cls(owner, f"the shares of client {owner}'s secret that {holders} holders revealed {what}; {doubt}")


class RoundAborted(ProtocolError):  # noqa: N818  (as above)
    """A round that ended without a sum.

    `cause`: too few were left, or a client's shares make the sum impossible, whether or not somebody can be named for
    it. `trip`: the one that could not be closed. `survivors`: who had been told by then that their vectors are in the
    sum, ascending; empty where nobody had.
    Such a round is `announced` and counts as released, with these in it, for those who answered and corrupt holders may
    have the sum all the same. `refused`: whose message was refused, or whose shares turned out not to open, and why.
    `left`: who left on its own account, and why, where that is known, as it is to `run_round`.
    """

    code = Code.ABORTED

    def __init__(
        self,
        cause: TooFewSurvivors | PeerError | UnsoundShares,
        trip: Trip,
        survivors: tuple[int, ...],
        refused: Mapping[int, PeerError],
    ) -> None:
        self.cause, self.trip, self.survivors, self.refused = cause, trip, survivors, refused
        self.left: Mapping[int, ProtocolError] = {}
        told = f"{len(survivors)} survivors had been announced: count the round as released"
        advice = told if survivors else "no sum was released"
        others = f"; refused: {len(refused)}, client {min(refused)} first" if refused else ""
        more = "; start a new round without it" if isinstance(cause, PeerError) else ""
        super().__init__(f"aborted in trip {trip.name}: {cause}{more}{others}; {advice}")

    @property
    def announced(self) -> bool:
        """Whether the survivors had been told, so that the round counts as released."""
        return bool(self.survivors)
