"""What all of the server's positions do alike: whom they hear, and that they hear everyone once.

`receive(client, message)` takes one client's message; the transport knows which client that is. `close()` ends the trip
whenever the caller decides so: whoever has not been received by then has dropped. It gives the next position and the
message for each client that is still in.

A message that `receive` refuses (PeerError) leaves the position unchanged. `close` raises TooFewSurvivors, also leaving
it unchanged, when those who are left cannot finish.

Threads may share a position: `receive` takes one message after another, and `close` waits for the one that is being
taken. What comes while it closes waits, too: it is refused if the trip has ended, and taken if `close` has raised.
"""

from __future__ import annotations

from collections.abc import Iterable

from flora_protocols.errors import Code, MisuseError, PeerError, TooFewSurvivors
from flora_protocols.params import SessionParams
from flora_protocols.position import Position, fresh
from flora_protocols.ranges import integer, shown
from flora_protocols.trips import Trip

Outbox = dict[int, bytes]
"""The message for each client, by index."""


class ServerPosition(Position):
    """Base of the server's positions of a trip, which hears those that are `expected`."""

    _trip: Trip

    def __init__(self, params: SessionParams, expected: Iterable[int]) -> None:
        super().__init__(f"of {params.clients} clients, session {params.number}")
        self._params = params
        self._expected = frozenset(expected)
        self._heard: set[int] = set()

    @property
    def trip(self) -> Trip:
        """The trip that this position hears, spent or not."""
        return self._trip

    @property
    def heard(self) -> frozenset[int]:
        """The clients received so far in this trip (none once the position is spent)."""
        return frozenset(vars(self).get("_heard", ()))

    @fresh
    def receive(self, client: int, message: bytes) -> None:
        """Take `message` of `client`. Raises PeerError naming the client, MisuseError for an impossible index."""
        client = integer("client index", client)
        if not 0 <= client < self._params.clients:
            raise MisuseError(f"client index {shown(client)}; 0 .. {self._params.clients - 1} are possible")
        if client in self._heard:
            raise PeerError(client, f"sent a second message in trip {self._trip.name}", Code.SECOND_MESSAGE)
        if client not in self._expected:
            raise PeerError(client, f"is not in trip {self._trip.name}: it dropped before", Code.STRANGER)
        self._take(client, message)
        self._heard.add(client)

    def _take(self, client: int, message: bytes) -> None:
        raise NotImplementedError

    def _require(self, what: str) -> tuple[int, ...]:
        """Who was heard, ascending; TooFewSurvivors if they are fewer than t."""
        if len(self._heard) < self._params.threshold:
            raise TooFewSurvivors(what, len(self._heard), self._params.threshold)
        return tuple(sorted(self._heard))
