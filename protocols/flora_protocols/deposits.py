"""What the clients of a session have left at the server, and what they have said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flora_protocols.errors import Code, PeerError
from flora_protocols.params import SessionParams
from flora_protocols.setup_messages import Shares


class Deposit:
    """What a client has left at the server: its blobs, for whom they are, and its commitments."""

    __slots__ = ("blobs", "commitments", "recipients")

    def __init__(self, recipients: NDArray[np.bool_], shares: Shares) -> None:
        self.recipients = recipients  # of its neighbourhood, (k + 1,)
        self.blobs, self.commitments = shares.blobs, shares.commitments


class Deposits:
    """The deposits of a session's clients, and who has complained of whom. `session`: the session id."""

    def __init__(self, params: SessionParams, session: bytes, deposits: Mapping[int, Deposit]) -> None:
        self.params, self.session, self._deposits = params, session, dict(deposits)
        self._complaints: dict[int, frozenset[int]] = {}
        self.undelivered: dict[int, bytes] = {}  # inboxes of those that have not uploaded, who may not have got them

    @property
    def dealers(self) -> tuple[int, ...]:
        """Who has shared its secrets, ascending."""
        return tuple(self._deposits)

    def of(self, client: int) -> Deposit:
        """What `client` has left here."""
        return self._deposits[client]

    def __contains__(self, client: int) -> bool:
        return client in self._deposits

    def uploaded(self, client: int, unopened: frozenset[int]) -> None:
        """`client` has its inbox, and says that it holds no shares of those `unopened`. No complaint is taken back."""
        self.undelivered.pop(client, None)
        if unopened:
            self._complaints[client] = self._complaints.get(client, frozenset()) | unopened

    @property
    def complaints(self) -> Mapping[int, frozenset[int]]:
        """Who has said of whom that it holds no shares."""
        return self._complaints

    @property
    def estranged(self) -> list[tuple[int, int]]:
        """Pairs that have complained of each other, ascending."""
        pairs = ((first, second) for first, owners in self._complaints.items() for second in owners)
        return sorted(pair for pair in pairs if pair[0] < pair[1] and pair[0] in self._complaints.get(pair[1], ()))

    @property
    def apart(self) -> frozenset[int]:
        """Whom to leave out so that no estranged pair is left: again and again whoever is in most pairs, and of a pair
        that is in no other, both. So liars take no more honest clients with them than they are."""
        pairs, out = self.estranged, set[int]()
        while pairs:
            times = Counter(client for pair in pairs for client in pair)
            worst, most = min(times.items(), key=lambda one: (-one[1], one[0]))
            gone = {worst} if most > 1 else set(pairs[0])
            out |= gone
            pairs = [pair for pair in pairs if gone.isdisjoint(pair)]
        return frozenset(out)

    @property
    def accused(self) -> dict[int, PeerError]:
        """Whose boxes did not open at more holders than may be corrupt, so that it is their own fault."""
        counts: dict[int, int] = {}
        for owners in self._complaints.values():
            for owner in owners:
                counts[owner] = counts.get(owner, 0) + 1
        most = max(self.params.corrupt, 1)
        return {
            owner: PeerError(owner, f"dealt shares that do not open at {count} of its holders", Code.BAD_SHARE)
            for owner, count in sorted(counts.items())
            if count > most
        }
