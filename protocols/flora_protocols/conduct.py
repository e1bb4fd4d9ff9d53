"""The server's loop of a whole round, for every transport: a generator that says what to carry, and takes what came.

    loop = conduct(params)
    exchange = next(loop)
    while True:  # until StopIteration, whose value is the RoundResult; or RoundAborted
        exchange = loop.send(replies to exchange.outbox)

`drive` is that loop. A client that sends what must be refused costs itself, never the round: its error is kept, and
it counts as dropped from then on. So does one that reveals wrong shares, as far as the other shares tell who it was.
What a transport merely repeats costs nobody anything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from flora_protocols.codec import CHECKSUM
from flora_protocols.errors import MisuseError, PeerError, RoundAborted, TooFewSurvivors, UnsoundShares
from flora_protocols.params import SessionParams, require_params
from flora_protocols.ranges import integer
from flora_protocols.recovery import WrongShares
from flora_protocols.server import (
    Outbox,
    RoundResult,
    ServerAdvertise,
    ServerAgree,
    ServerMask,
    ServerShare,
    ServerUnmask,
)
from flora_protocols.trips import Trip

Replies = Iterable[tuple[int, bytes]]
"""(client, its message), in any order, taken one by one as they come. It ends when patience does."""

_Position = ServerAdvertise | ServerShare | ServerMask | ServerAgree | ServerUnmask


@dataclass(frozen=True, repr=False)
class Exchange:
    """What the transport has to carry now.

    `trip`: the one that begins. `outbox`: the message for each client that is still in, by index, to which it
    answers; in ADVERTISE, where the clients begin, all of them get b"".
    """

    trip: Trip
    outbox: Mapping[int, bytes]

    @property
    def announced(self) -> bool:
        """Whether the survivors have been told before this exchange or by it: then the round counts as released."""
        return self.trip > Trip.MASK

    def __repr__(self) -> str:
        return f"<Exchange {self.trip.name}, {len(self.outbox)} clients>"


def conduct(params: SessionParams, *, least_survivors: int = 2) -> Generator[Exchange, Replies, RoundResult]:
    """The server's side of one round.

    `least_survivors`: fewest vectors whose sum the server wants; with fewer it announces nobody, so that nothing is
    released. Where it knows its clients' floors, it sets theirs: whoever is announced beyond them counts for nothing.

    Yields what to carry and is sent the replies, of which it takes none once everybody in the outbox has been heard or
    refused. Who a reply is from is the transport's word; an impossible index is its mistake, hence MisuseError. Returns
    the result, with `refused`; raises RoundAborted where there is no sum.
    """
    least = integer("least_survivors", least_survivors)
    return _trips(require_params(params), least)


def drive(loop: Generator[Exchange, Replies, RoundResult], carry: Callable[[Exchange], Replies]) -> RoundResult:
    """Carries a round through: `carry` delivers an exchange and gives the replies. Raises RoundAborted.

    Whatever else `carry` raises ends the loop, too; `Exchange.announced` says how such a round counts.
    """
    exchange = next(loop)
    while True:
        replies = carry(exchange)
        try:
            exchange = loop.send(replies)
        except StopIteration as end:
            result: RoundResult = end.value
            return result


def _trips(params: SessionParams, least: int) -> Generator[Exchange, Replies, RoundResult]:
    position: _Position = ServerAdvertise(params)
    outbox: Outbox = dict.fromkeys(range(params.clients), b"")
    refused: dict[int, PeerError] = {}
    announced: tuple[int, ...] = ()
    taken: dict[int, set[bytes]] = {client: set() for client in outbox}
    while True:
        exchange = Exchange(position.trip, outbox)
        _hear(position, set(outbox), (yield exchange), refused, taken)
        try:
            if isinstance(position, ServerMask) and len(position.heard) < least:
                raise TooFewSurvivors("clients that uploaded", len(position.heard), least)
            closed = _sum(position, refused) if isinstance(position, ServerUnmask) else position.close()
        except (TooFewSurvivors, PeerError, UnsoundShares) as cause:
            told = MappingProxyType(refused)
            raise RoundAborted(cause, exchange.trip, announced, told) from cause
        if isinstance(closed, RoundResult):
            return replace(closed, refused=MappingProxyType(refused))
        position, outbox = closed
        if exchange.trip is Trip.MASK:
            announced = tuple(sorted(outbox))
        if refused:
            outbox = {client: message for client, message in outbox.items() if client not in refused}


def _hear(
    position: _Position,
    waiting: set[int],
    replies: Replies,
    refused: dict[int, PeerError],
    taken: dict[int, set[bytes]],
) -> None:
    """Takes the replies of those who have not been refused, until nobody is left to wait for.

    `taken`: the checksums of all that was taken from a client, by which what is delivered again is known. Who sends
    other bytes with the same checksum has achieved that they are ignored.
    """
    if not isinstance(replies, Iterable):
        raise MisuseError(f"replies must be an iterable of (client, message), not {type(replies).__name__}; send them")
    if not waiting:
        return
    for index, message in replies:
        client = integer("client index", index)
        if client in refused:
            continue
        # Of what type a message is may be the client's choice, too: what is not bytes is no message at all.
        given = message if isinstance(message, bytes) else b""
        try:
            position.receive(client, given)
            taken[client].add(given[-CHECKSUM:])
        except PeerError as error:
            if given[-CHECKSUM:] in taken[client]:
                continue
            refused[client] = error
        waiting.discard(client)
        if not waiting:
            return


def _sum(position: ServerUnmask, refused: dict[int, PeerError]) -> RoundResult:
    """Closes the round, without those whose shares turn out to be wrong; each attempt has fewer holders than the one
    before, so that one of them is the last."""
    while True:
        try:
            return position.close()
        except WrongShares as error:
            for holder, fault in error.faults.items():
                position.set_aside(holder)
                refused.setdefault(holder, fault)
