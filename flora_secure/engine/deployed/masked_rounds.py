"""The masked rounds of one run, over any transport: the masking session is kept, and set up anew where it has to be.

A round: openings, or in a new masking session its set-up · START, uploads · survivors, shares. A client that answers
with a code has dropped out of the round; where the code says what it lacks (the terms, the state that the broadcast
goes on from, the session's invitation), it is sent that and asked once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flora_protocols import (
    Code,
    Exchange,
    Replies,
    RoundAborted,
    RoundResult,
    ServerPrepared,
    Trip,
    conduct,
    drive,
    set_up,
)
from flora_secure.engine.deployed.transport import Transport
from flora_secure.engine.exchange import Traffic
from flora_secure.errors import Refusal
from flora_secure.records.record import PARTS
from flora_secure.records.transcript.writing import RoundTranscript, Transcript, recording
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import decode_opening, encode_request
from flora_secure.rounds.reply import REPLY_BYTES, Refused, decode_reply
from flora_secure.rounds.sum import Outcome, RoundSum

_AGAIN = frozenset({Refusal.STATE.value, Code.OTHER_SESSION.value})  # a complete opening may help
_GONE = frozenset({Refusal.NO_ROUND.value, Code.OTHER_SESSION.value, Code.BAD_DUMP.value})  # the session is lost there
_MOST_GRACE = 16  # rounds with members missing before the session is set up anew


@dataclass(frozen=True)
class Patience:
    """How long the server waits for the sites, in seconds. `training`: for what needs the model and the data, the
    terms and the uploads; `trip`: for all else."""

    training: float = 600.0
    trip: float = 60.0


class Opener(Protocol):
    """What a server says of its rounds beside the masking protocol; `server.server.Server` is one."""

    def openings(self, invitation: Invitation) -> dict[int, bytes]:
        """The message that opens the round at each member: invitation and broadcast, each as short as it can be."""
        ...

    def complete_opening(self, invitation: Invitation, member: int) -> bytes:
        """The message that opens the round at a member that has lost what it was sent before."""
        ...


def nobody(_clients: list[int], _patience: float) -> Collection[int]:
    """The `fitting` of a run whose clients compare no terms."""
    return ()


@dataclass(eq=False)
class MaskedRounds:
    """The masked rounds of one run between a server and its clients, one after the other.

    Attributes:
        enrolment: who may take part.
        opener: the server, which says what opens a round.
        transport: the way to the clients.
        patience: how long it waits for them.
        log: told, in lines for the server's people, what happens; no line holds a secret.
        fitting: asked to compare terms with clients that say so, within so many seconds, gives those that now fit.
    """

    enrolment: Enrolment
    opener: Opener = field(repr=False)
    transport: Transport = field(repr=False)
    patience: Patience
    log: Callable[[str], None] = field(repr=False)
    fitting: Callable[[list[int], float], Collection[int]] = field(default=nobody, repr=False)
    _prepared: ServerPrepared | None = field(default=None, init=False, repr=False)
    _missing: int = field(default=0, init=False, repr=False)  # rounds of the session that lacked members
    _grace: int = field(default=1, init=False, repr=False)

    def run(self, invitation: Invitation, transcript: Transcript | None = None) -> Outcome:
        """Carry the round of `invitation` through, and say what became of it; nothing is raised where it has no sum.

        The invitation must be masked, and its worst case authorised and on disk. `transcript`: where the messages are
        kept, if they are.
        """
        with recording(transcript, invitation, self.enrolment, around=REPLY_BYTES) as record:
            return self._run(invitation, record)

    def _run(self, invitation: Invitation, record: RoundTranscript | None) -> Outcome:
        traffic, clock = Traffic(), _Clock()
        trips = _Trips(self, invitation, traffic, clock)
        found, aborted, announced, params = None, None, list[int](), invitation.params
        try:
            carry = trips.carry if record is None else record.carrying(trips.carry)
            result = self._carried(invitation, trips, carry)
            survivors = tuple(invitation.members[position] for position in result.survivors)
            found, refused = RoundSum(result.sum, survivors, len(result.recovered)), result.refused
            uploaded = set(survivors)
        except RoundAborted as error:
            aborted, refused = str(error), error.refused
            announced = [invitation.members[position] for position in error.survivors]
            # what came too late nobody has; its site counts it
            uploaded = set(announced) or trips.uploaded - {invitation.members[position] for position in refused}
        for position, fault in refused.items():
            self.log(f"round {invitation.round}: {name_of(invitation.members[position])} was refused: {fault}")
        assert params is not None
        return Outcome(
            sum=found,
            aborted=aborted,
            uploaded=sorted(uploaded),
            announced=announced,
            session_lost=self._session_lost(invitation, trips.gone),
            # of unit example nobody but the sites knows
            contributions=len(uploaded) if invitation.unit == "client" else 0,
            upload=traffic.upload,
            download=traffic.download,
            payload=traffic.payload + params.payload_bytes * len(uploaded),
            broadcast=traffic.broadcast,
            transcript_hash=None if record is None else record.end(),
            seconds=clock.seconds,
        )

    def _carried(self, invitation: Invitation, trips: _Trips, carry: Callable[[Exchange], Replies]) -> RoundResult:
        """The round's result, under masks. Raises RoundAborted where there is none."""
        params = invitation.params
        assert params is not None  # a federation without masking is refused
        if self._prepared is None or self._prepared.params != params:
            self._prepared = None
            trips.opening_sent = True
            self._prepared = drive(set_up(params), carry)
            self._missing = 0
            for position, fault in self._prepared.refused.items():
                self.log(f"set-up: {name_of(invitation.members[position])} was refused: {fault}")
        start = invitation.start(self.enrolment, self._prepared.clients)
        return drive(conduct(self._prepared, start, least_survivors=invitation.plan.survivors_minimum), carry)

    def _session_lost(self, invitation: Invitation, gone: set[int]) -> bool:
        """Whether the next round begins another session: this one cannot go on, or has lacked members for a while.

        Who was away at the set-up, or has lost its place in it, can take part again only in another one. Sets-up cost,
        so a federation of which somebody is always away waits twice as long each time.
        """
        prepared, params = self._prepared, invitation.params
        assert params is not None
        if prepared is None or len(set(prepared.clients) - _positions(invitation, gone)) < params.threshold:
            return True
        if len(set(prepared.clients) - _positions(invitation, gone)) == params.clients:
            self._missing, self._grace = 0, 1
            return False
        self._missing += 1
        if self._missing < self._grace:
            return False
        self._missing, self._grace = 0, min(2 * self._grace, _MOST_GRACE)
        return True


def name_of(client: int) -> str:
    """What people call the client of that number, as its folder is called."""
    return f"site{client}"


def _positions(invitation: Invitation, clients: set[int]) -> set[int]:
    return {position for position, member in enumerate(invitation.members) if member in clients}


class _Trips:
    """The messages of one round, carried and counted.

    `uploaded`: who has answered to START; `gone`: who has lost the session.
    """

    def __init__(self, owner: MaskedRounds, invitation: Invitation, traffic: Traffic, clock: _Clock) -> None:
        self._owner, self._invitation, self._traffic, self._clock = owner, invitation, traffic, clock
        self._openings = owner.opener.openings(invitation)
        self.opening_sent = False
        self.uploaded, self.gone = set[int](), set[int]()
        self._told = set[int]()  # whose broadcast is counted

    def carry(self, exchange: Exchange) -> Iterator[tuple[int, bytes]]:
        """One exchange of the protocol: its messages to the members, and their replies by position."""
        asked = exchange.trip is Trip.MASK
        waits = exchange.trip in (Trip.ADVERTISE, Trip.MASK)  # for what the opening takes: the adapter, and training
        patience = self._owner.patience.training if waits else self._owner.patience.trip
        members = self._invitation.members
        outbox = {members[position]: self._message(exchange, position) for position in exchange.outbox}
        places = {members[position]: position for position in exchange.outbox}
        try:
            for client, reply in self._twice(exchange, outbox, time.monotonic() + patience):
                if asked:
                    self.uploaded.add(client)
                yield places[client], reply
        finally:  # whoever drives the protocol may have heard enough
            self._clock.lap("training" if asked else "masking")

    def _message(self, exchange: Exchange, position: int) -> bytes:
        """What the member is sent."""
        given = self._openings[self._invitation.members[position]]
        if exchange.trip is Trip.ADVERTISE:
            return given
        if exchange.trip is Trip.MASK:
            return encode_request(b"" if self.opening_sent else given, exchange.outbox[position])
        return exchange.outbox[position]

    def _twice(self, exchange: Exchange, outbox: Mapping[int, bytes], end: float) -> Iterator[tuple[int, bytes]]:
        """The replies; whoever lacks something is sent that, and asked once more."""
        lacking = dict[int, str]()
        for client, found in self._exchanged(exchange, outbox, end):
            if not isinstance(found, Refused):
                yield client, found
            elif found.code in (Refusal.TERMS.value, *_AGAIN) and self._opens(exchange):
                lacking[client] = found.code
            else:
                self._dropped(client, found.code)
        if not lacking:
            return
        if unfit := [client for client, code in lacking.items() if code == Refusal.TERMS.value]:
            fitting = self._owner.fitting(unfit, max(0.0, end - time.monotonic()))
            lacking = {client: code for client, code in lacking.items() if client not in unfit or client in fitting}
        if time.monotonic() >= end:  # nobody waits for what would be trained now
            return
        again = dict[int, bytes]()
        for client, code in lacking.items():
            if code in _AGAIN:
                self._openings[client] = self._owner.opener.complete_opening(self._invitation, client)
            again[client] = self._message(exchange, self._invitation.members.index(client))
        for client, found in self._exchanged(exchange, again, end):
            if isinstance(found, Refused):
                self._dropped(client, found.code)
            else:
                yield client, found

    def _opens(self, exchange: Exchange) -> bool:
        """Whether the exchange carries openings."""
        return exchange.trip is Trip.ADVERTISE or (exchange.trip is Trip.MASK and not self.opening_sent)

    def _dropped(self, client: int, code: str) -> None:
        self._owner.log(f"round {self._invitation.round}: {name_of(client)} does not take part ({code})")
        if code in _GONE:
            self.gone.add(client)

    def _exchanged(
        self, exchange: Exchange, outbox: Mapping[int, bytes], end: float
    ) -> Iterator[tuple[int, bytes | Refused]]:
        """What the transport brings of `outbox`, counted: a client once."""
        traffic = self._traffic
        for client, message in outbox.items():
            broadcast = 0
            if self._opens(exchange) and client not in self._told:  # what is sent again is overhead
                broadcast = len(decode_opening(self._openings[client])[1])
                self._told.add(client)
            traffic.sent_down(client, message, payload=broadcast)
        waiting = set(outbox)
        for client, reply in self._owner.transport.exchange(outbox, max(0.0, end - time.monotonic())):
            if client not in waiting:
                continue
            waiting.discard(client)
            traffic.sent_up(client, reply)
            yield client, decode_reply(reply)


class _Clock:
    """Wall-clock seconds of a round's parts, and the server's CPU seconds."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*PARTS, "client_mean", "server"), 0.0)
        self._since, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now
        self.seconds["server"] = time.process_time() - self._cpu
