"""One round as its transcript has it: who was told what in which trip, and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from flora_protocols import Direction, PeerError, SessionParams, Trip
from flora_secure.errors import ConfigError
from flora_secure.records.record import RoundRecord
from flora_secure.records.transcript.reading import Recorded, Sent
from flora_secure.rounds.invitation import Invitation

_MOST_HELD = 1 << 26
SET_UP = frozenset({Trip.ADVERTISE, Trip.ENCAPSULATE, Trip.SHARE})


@dataclass
class Exchanged:
    """One trip: what each position was `told`, and the `replies` in the order in which they came. `twice`: who was told
    two things."""

    trip: Trip
    told: dict[int, bytes] = field(default_factory=dict)
    replies: list[tuple[int, bytes]] = field(default_factory=list)
    twice: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """A round of the log beside its transcript; `where` says where it is read."""

    where: str
    record: RoundRecord
    recorded: Recorded
    invitation: Invitation
    params: SessionParams

    @classmethod
    def of(cls, where: str, record: RoundRecord, recorded: Recorded) -> Round:
        """The round. Raises ValueError, in words, where its invitation is none, or of other clients than the log's."""
        try:
            invitation = Invitation.from_bytes(recorded.invitation, recorded.enrolment)
        except (PeerError, ConfigError, ValueError, OverflowError) as error:
            raise ValueError(f"the invitation cannot be read: {error}") from None
        if invitation.params is None:
            raise ValueError("the invitation is of a round without masks")
        if invitation.members != tuple(record.participants):
            raise ValueError("the invitation is to other clients than the log's participants")
        if any(max(one.positions) >= invitation.params.clients for one in recorded.sent):
            raise ValueError("a message has a position that no member has")
        return cls(where, record, recorded, invitation, invitation.params)

    @property
    def tractable(self) -> bool:
        """Whether the tables of its graph can be held, which are as large as clients times neighbours."""
        return self.params.clients * (self.params.neighbours + 1) <= _MOST_HELD

    @cached_property
    def exchanges(self) -> list[Exchanged]:
        """The trips in the order in which they were made."""
        found: list[Exchanged] = []
        for one in self.recorded.sent:
            if not found or found[-1].trip != one.trip:
                found.append(Exchanged(one.trip))
            _add(found[-1], one)
        return found

    @cached_property
    def trips(self) -> dict[Trip, Exchanged]:
        """By trip, of one that comes twice the first."""
        found: dict[Trip, Exchanged] = {}
        for exchanged in self.exchanges:
            found.setdefault(exchanged.trip, exchanged)
        return found

    @property
    def begins(self) -> bool:
        """Whether a masking session begins in the round."""
        return Trip.ADVERTISE in self.trips

    def client(self, position: int) -> str:
        """How a report calls who is at that position."""
        return f"client {self.invitation.members[position]}"


def _add(exchanged: Exchanged, one: Sent) -> None:
    if one.direction is Direction.UP:
        exchanged.replies.append((one.positions[0], one.message))
        return
    for position in one.positions:
        if position in exchanged.told:
            exchanged.twice.append(position)
        exchanged.told[position] = one.message
