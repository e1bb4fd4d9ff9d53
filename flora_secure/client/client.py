"""A client of a federation: messages in, messages out. It does no I/O but through its store and its ledger.

    once a masking session
    opening (invitation, broadcast) ─▶ ADVERTISE   does the policy accept the plan, does the ledger have room for it,
                                                   and does the broadcast lead to the adapter that the round trains?
    roster                          ─▶ [ENCAPSULATE or] SHARE
    [delivery                       ─▶ SHARE]
    each round
    request ([opening], START)      ─▶ MASK        the same questions; train · clip · noise · count in the own ledger
                                                   · mask
    survivors                       ─▶ [AGREE or] UNMASK
    [agreement                      ─▶ UNMASK]

What protects the client is checked here and in the protocol's positions, whatever the server says. A message that is
refused changes nothing: neither the position nor the ledger.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flora_protocols import Client as Position
from flora_protocols import (
    ClientAdvertise,
    ClientAgree,
    ClientCollect,
    ClientDecapsulate,
    ClientDone,
    ClientEncapsulate,
    ClientReady,
    ClientShare,
    ClientUnmask,
    Code,
    Floors,
    MisuseError,
    PeerError,
    RoundParams,
    load_position,
)
from flora_protocols.round_params import start_bytes
from flora_secure.client.contribution import Trainer
from flora_secure.client.following import arrive
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.client.store import Held, Store
from flora_secure.client.upload import upload
from flora_secure.errors import Refusal, RefusalError
from flora_secure.privacy.clipping import NonFiniteUpdateError
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import MAGIC, Invitation
from flora_secure.rounds.opening import decode_opening, decode_request, is_opening, is_request

Arrive = Callable[[bytes, Invitation, bytes], tuple[bytes, bytes]]
"""From a broadcast, the invitation that came with it, and the state kept before, to what the trainer is given and the
state to keep from now on; raises as `following.arrive`."""


@dataclass(eq=False)
class Client:
    """One client, for as many rounds and sessions as it is invited to.

    Attributes:
        enrolment: who takes part, from out of band.
        number: the client's own place in it.
        policy: its terms.
        trainer: makes its contribution.
        ledger: its own count of what it has given.
        store: where it keeps its place in a round.
        model_hash: 32 bytes, SHA-256 of the frozen model that it trains on: a round on another one is refused.
        identity: its Ed25519 secret key, where the enrolment has identities.
        arrive: how a broadcast leads to what a round trains from; None for an adapter (`following.arrive`).
        noise_key: for a simulation, whose noise follows from it and is no secret; see `upload.upload`.
    """

    enrolment: Enrolment
    number: int
    policy: Policy
    trainer: Trainer = field(repr=False)
    ledger: ClientLedger
    store: Store = field(repr=False)
    model_hash: bytes = field(repr=False)
    identity: bytes | None = field(default=None, repr=False)
    arrive: Arrive | None = field(default=None, repr=False)
    noise_key: Callable[[Invitation, int], bytes | None] = field(default=lambda invitation, number: None, repr=False)
    _read: tuple[tuple[bytes, bytes], Invitation] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.enrolment.clients:
            raise MisuseError(f"client {self.number} is not among the {self.enrolment.clients} that are enrolled")

    def answer(self, message: bytes) -> bytes:
        """The reply to one message of the server's, or an error and no change.

        The same message again gets the same bytes again. Before a reply is returned the position behind it is safe in
        the store, and an upload is counted in the ledger.

        Raises RefusalError where the client's own terms forbid the round, PeerError or TooFewSurvivors (of
        flora_protocols) where the protocol does: the `code` of each is safe to tell. OSError where store or ledger
        cannot be written.
        """
        if not isinstance(message, bytes):
            raise MisuseError(f"a message is bytes, not {type(message).__name__}")
        request, held = hashlib.sha256(message).digest(), self.store.load()
        if held is not None and held.request == request:
            return held.reply
        if is_opening(message):
            held = self._begin(message, request, held)
        elif is_request(message):
            held = self._start(message, request, held)
        else:
            held = self._go_on(message, request, held)
        self.store.save(held)
        return held.reply

    def _begin(self, message: bytes, request: bytes, before: Held | None) -> Held:
        """The first message of a masking session, which is prepared with the round that it opens."""
        opened, floors = self._opened(message, before)
        invitation = self._of(opened)
        position, params = invitation.position(self.number), invitation.params
        assert position is not None
        assert params is not None  # the policy refuses rounds without masking
        if invitation.slot != 0:
            reason = f"opens a session in round {invitation.round} that began in round {params.number}"
            raise PeerError("server", reason, Code.OTHER_SESSION)
        begun = ClientAdvertise(params, position, floors=floors, identity=self._key(invitation))
        moved, reply = begun.advertise()
        return dataclasses.replace(opened, position=moved.dump(), request=request, reply=reply)

    def _opened(self, message: bytes, before: Held | None) -> tuple[Held, Floors]:
        """What is kept of an opening, and the floors under which its round has been accepted; the adapter that it
        trains is there."""
        encoded, broadcast = decode_opening(message)
        long = encoded if encoded[:2] == MAGIC or before is None else _long(before)
        invitation = self._invitation(encoded, long)
        if invitation.position(self.number) is None:
            raise RefusalError(Refusal.NOT_INVITED, f"round {invitation.round} does not invite client {self.number}")
        self._require_new(invitation, before)
        kept = b"" if before is None else before.state
        adapter, state = (self.arrive or self._adapter)(broadcast, invitation, kept)
        event, floors = self.policy.accept(invitation)
        self.ledger.require(event, self.policy.most_epsilon, self.policy.delta)
        return Held(encoded, b"" if long == encoded else long, adapter, state, None, b"", b""), floors

    def _start(self, message: bytes, request: bytes, held: Held | None) -> Held:
        """The message that asks for an upload."""
        if held is None or held.position is None:
            raise RefusalError(Refusal.NO_ROUND, "this client is in no session that a round could belong to")
        opening, told = decode_request(message)
        session, position = self._of(held).params, self._position(held)
        assert session is not None
        floors = position.floors
        if opening:
            held, floors = self._opened(opening, held)
        invitation = self._of(held)
        if invitation.params != session:
            raise PeerError("server", "asks for a round of another session than was set up", Code.OTHER_SESSION)
        if floors != position.floors:  # by which the sums of the whole session go
            reason = f"{floors}, and the session was set up under {position.floors}"
            raise RefusalError(Refusal.FLOORS, f"the round's plan asks for other floors than its session: {reason}")
        if isinstance(position, ClientAgree | ClientUnmask):
            position = position.leave()
        size = start_bytes(session)
        if isinstance(position, ClientCollect):
            position = position.collect(told[size:])
        if not isinstance(position, ClientReady):
            raise RefusalError(Refusal.NO_ROUND, "no round can be asked for now: the session is not set up, or is over")
        start = RoundParams.from_bytes(session, position.session, told[:size])
        if start != invitation.start(self.enrolment, start.invited):
            raise PeerError("server", "starts another round than it invited to", Code.OTHER_SESSION)
        position.check(start)  # before anything is trained for it
        moved, reply = position.mask(start, self._vector(invitation, held.adapter))
        cost = self.policy.worst_event(invitation)
        # before the upload can leave
        self.ledger.enter(invitation.session, cost, self.policy.most_epsilon, self.policy.delta)
        return dataclasses.replace(held, position=moved.dump(), request=request, reply=reply)

    def _adapter(self, broadcast: bytes, invitation: Invitation, kept: bytes) -> tuple[bytes, bytes]:
        """The adapter that the broadcast leads to; RefusalError unless the round trains what this client's trainer
        does."""
        trained = self.trainer.trained
        asked, own = (invitation.rule, invitation.plan.dimension), (trained.rule.name, trained.upload_size)
        if asked != own:
            raise RefusalError(
                Refusal.MODEL, f"the round's rule and values of an upload are {asked}, this client's {own}"
            )
        return arrive(broadcast, invitation, trained, self.model_hash, kept)

    def _require_new(self, invitation: Invitation, before: Held | None) -> None:
        """RefusalError for a round that was begun or uploaded in before, or is one too many."""
        done = self.ledger.rounds_of(invitation.session)
        latest = max(done, default=0)
        if before is not None:
            earlier = self._of(before)
            latest = max(latest, earlier.round if earlier.session == invitation.session else 0)
        if invitation.round <= latest:
            raise RefusalError(
                Refusal.REPEATED, f"round {invitation.round} comes after round {latest} of the same session"
            )
        if len(done) >= self.policy.most_rounds:
            raise RefusalError(
                Refusal.ROUNDS, f"this client uploads in {self.policy.most_rounds} rounds of a session, and has done so"
            )

    def _go_on(self, message: bytes, request: bytes, held: Held | None) -> Held:
        if held is None or held.position is None:
            raise RefusalError(Refusal.NO_ROUND, "this client is in no round that a message could belong to")
        position = self._position(held)
        moved: ClientDecapsulate | ClientCollect | ClientReady | ClientAgree | ClientUnmask | ClientDone
        if isinstance(position, ClientEncapsulate):
            moved, reply = position.encapsulate(message)
        elif isinstance(position, ClientShare | ClientDecapsulate):
            moved, reply = position.share(message)
        elif isinstance(position, ClientAgree):
            moved, reply = position.agree(message)
        elif isinstance(position, ClientUnmask):
            moved, reply = position.unmask(message)
        else:
            raise RefusalError(Refusal.NO_ROUND, "the round is over for this client, or has not begun")
        return dataclasses.replace(held, position=moved.dump(), request=request, reply=reply)

    def _position(self, held: Held) -> Position:
        """The protocol's position, as it was kept."""
        invitation = self._of(held)
        assert invitation.params is not None
        assert held.position is not None
        return load_position(invitation.params, held.position, identity=self._key(invitation))

    def _vector(self, invitation: Invitation, adapter: bytes) -> NDArray[np.uint32]:
        given = self.trainer.contributions(invitation, adapter, [self.number])
        try:
            return upload(invitation, given.vectors[0], self.noise_key(invitation, self.number))
        except NonFiniteUpdateError as error:
            raise RefusalError(Refusal.UPDATE, f"this client's update is not finite, so it leaves: {error}") from None

    def _key(self, invitation: Invitation) -> bytes | None:
        return self.identity if invitation.params is not None and invitation.params.malicious else None

    def _of(self, held: Held) -> Invitation:
        """The invitation that was accepted."""
        return self._invitation(held.invitation, _long(held))

    def _invitation(self, encoded: bytes, long: bytes) -> Invitation:
        """The invitation, read once where messages of a round reach the same object."""
        if self._read is None or self._read[0] != (encoded, long):
            first = None if encoded == long else Invitation.from_bytes(long, self.enrolment)
            self._read = (encoded, long), Invitation.from_bytes(encoded, self.enrolment, first)
        return self._read[1]


def _long(held: Held) -> bytes:
    """The last invitation in long form."""
    return held.long or held.invitation


def code_of(error: Exception) -> str:
    """What may be told to the server of an error of `Client.answer`, from a fixed list; "failed" for all others."""
    code = getattr(error, "code", None)
    return str(code.value) if isinstance(code, Code | Refusal) else "failed"
