"""The server's loops, for every transport: generators that say what to carry, and take what came.

    prepared = drive(set_up(params), carry)             once a session
    result = drive(conduct(prepared, round), carry)     once a round

    loop = conduct(prepared, round)
    exchange = next(loop)
    while True:  # until StopIteration, whose value is the RoundResult; or RoundAborted
        exchange = loop.send(replies to exchange.outbox)

`drive` is that loop. A client that sends what must be refused costs itself, never the round: its error is kept, and
it counts as dropped from then on, in this round or for the session that is set up. So does one that reveals wrong
shares, as far as the other shares tell who it was. What a transport merely repeats costs nobody anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from flora_protocols.codec import CHECKSUM, HEADER, TAG
from flora_protocols.errors import MisuseError, PeerError, RoundAborted, TooFewSurvivors, UnsoundShares
from flora_protocols.params import SessionParams, require_params
from flora_protocols.prepared import ServerPrepared
from flora_protocols.ranges import integer
from flora_protocols.recovery import WrongShares
from flora_protocols.round_params import RoundParams
from flora_protocols.server import ServerAdvertise, ServerEncapsulate, ServerShare
from flora_protocols.server_position import Outbox, ServerPosition
from flora_protocols.server_round import RoundResult, ServerAgree, ServerMask, ServerUnmask
from flora_protocols.trips import Trip

T = TypeVar("T")
Replies = Iterable[tuple[int, bytes]]
"""(client, its message), in any order, taken one by one as they come. It ends when patience does."""


@dataclass(frozen=True, repr=False)
class Exchange:
    """What the transport has to carry now.

    `trip`: the one that begins. `outbox`: the message for each client that is still in, by index, to which it
    answers; in ADVERTISE, where the clients begin, all of them get b"". In MASK it is the START frame, and after it the
    inbox of whoever has not uploaded since the session was set up. `start`: how long that frame is, for transports
    whose own invitation says what it says; 0 elsewhere.
    """

    trip: Trip
    outbox: Mapping[int, bytes]
    start: int = 0

    @property
    def announced(self) -> bool:
        """Whether the survivors have been told before this exchange or by it: then the round counts as released."""
        return self.trip > Trip.MASK

    def __repr__(self) -> str:
        return f"<Exchange {self.trip.name}, {len(self.outbox)} clients>"


def set_up(params: SessionParams) -> Generator[Exchange, Replies, ServerPrepared]:
    """The server's side of a session's set-up.

    Yields what to carry and is sent the replies, of which it takes none once everybody in the outbox has been heard or
    refused. Who a reply is from is the transport's word; an impossible index is its mistake, hence MisuseError. Returns
    the session, whose `refused` says whose messages were refused and why; raises RoundAborted where too few are left.
    """
    return _set_up(require_params(params))


def conduct(
    prepared: ServerPrepared,
    round: RoundParams,
    *,
    least_survivors: int = 2,
) -> Generator[Exchange, Replies, RoundResult]:
    """The server's side of one round of a session that is set up; the round's slot is used, whatever becomes of it.

    `least_survivors`: fewest vectors whose sum the server wants; with fewer it announces nobody, so that nothing is
    released. Where it knows its clients' floors, it sets theirs: whoever is announced beyond them counts for nothing.

    Yields and takes as `set_up`. Returns the result, with `refused`; raises RoundAborted where there is no sum, and
    what `ServerPrepared.begin` raises.
    """
    least = integer("least_survivors", least_survivors)
    if not isinstance(prepared, ServerPrepared):
        raise MisuseError(f"prepared must be what set_up gives, not {type(prepared).__name__}")
    return _round(prepared, round, prepared.begin(round), least)


def drive(loop: Generator[Exchange, Replies, T], carry: Callable[[Exchange], Replies]) -> T:
    """Carries a set-up or a round through: `carry` delivers an exchange and gives the replies. Raises RoundAborted.

    Whatever else `carry` raises ends the loop, too; `Exchange.announced` says how such a round counts.
    """
    exchange = next(loop)
    while True:
        replies = carry(exchange)
        try:
            exchange = loop.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result


def _set_up(params: SessionParams) -> Generator[Exchange, Replies, ServerPrepared]:
    position: ServerAdvertise | ServerEncapsulate | ServerShare = ServerAdvertise(params)
    outbox: Outbox = dict.fromkeys(range(params.clients), b"")
    heard = _Heard()
    while True:
        heard.take(position, set(outbox), (yield Exchange(position.trip, outbox)))
        try:
            following, outbox = position.close()
        except TooFewSurvivors as cause:
            raise RoundAborted(cause, position.trip, (), MappingProxyType(heard.refused)) from cause
        outbox = heard.spared(outbox)
        if isinstance(following, ServerPrepared):
            following.deliver(outbox, heard.refused)
            return following
        position = following


def _round(
    prepared: ServerPrepared,
    round: RoundParams,
    position: ServerMask | ServerAgree | ServerUnmask,
    least: int,
) -> Generator[Exchange, Replies, RoundResult]:
    start = round.to_bytes(prepared.params, prepared.session)
    outbox = {client: start + prepared.undelivered.get(client, b"") for client in round.invited}
    heard, announced = _Heard(prepared.stale), tuple[int, ...]()
    while True:
        exchange = Exchange(position.trip, outbox, len(start) if position.trip is Trip.MASK else 0)
        heard.take(position, set(outbox), (yield exchange))
        try:
            if isinstance(position, ServerMask) and len(position.heard) < least:
                raise TooFewSurvivors("clients that uploaded", len(position.heard), least)
            closed = _sum(position, heard.refused) if isinstance(position, ServerUnmask) else position.close()
        except (TooFewSurvivors, PeerError, UnsoundShares) as cause:
            raise RoundAborted(cause, exchange.trip, announced, _named(prepared, round, heard)) from cause
        if isinstance(closed, RoundResult):
            return replace(closed, refused=_named(prepared, round, heard))
        position, outbox = closed
        if exchange.trip is Trip.MASK:
            announced = tuple(sorted(outbox))
        outbox = heard.spared(outbox)


def _named(prepared: ServerPrepared, round: RoundParams, heard: _Heard) -> Mapping[int, PeerError]:
    """Whose message was refused in the round, and whose shares have turned out in it not to open; and why."""
    accused = {client: error for client, error in prepared.accused.items() if client in round.invited}
    return MappingProxyType({**accused, **heard.refused})


class _Heard:
    """Who was heard in a set-up or a round. `refused`: whose message was, and why.

    `_stale`: tags of the set-up and of earlier rounds, whose messages may come late. `_taken`: the checksums of all
    that was taken from a client, by which what is delivered again is known. Who sends other bytes with the same
    checksum has achieved that they are ignored.
    """

    def __init__(self, stale: Collection[bytes] = ()) -> None:
        self.refused: dict[int, PeerError] = {}
        self._stale = stale
        self._taken: dict[int, set[bytes]] = {}

    def spared(self, outbox: Outbox) -> Outbox:
        """The messages for those that have not been refused."""
        if not self.refused:
            return outbox
        return {client: message for client, message in outbox.items() if client not in self.refused}

    def take(self, position: ServerPosition, waiting: set[int], replies: Replies) -> None:
        """Takes the replies of those who have not been refused, until nobody is left to wait for."""
        if not isinstance(replies, Iterable):
            reason = f"replies must be an iterable of (client, message), not {type(replies).__name__}; send them"
            raise MisuseError(reason)
        if not waiting:
            return
        for index, message in replies:
            client = integer("client index", index)
            if client in self.refused:
                continue
            # Of what type a message is may be the client's choice, too: what is not bytes is no message at all.
            given = message if isinstance(message, bytes) else b""
            taken = self._taken.setdefault(client, set())
            try:
                position.receive(client, given)
                taken.add(given[-CHECKSUM:])
            except PeerError as error:
                if given[-CHECKSUM:] in taken or given[HEADER - TAG : HEADER] in self._stale:
                    continue
                self.refused[client] = error
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
