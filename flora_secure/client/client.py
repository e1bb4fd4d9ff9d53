"""A client of a federation: messages in, messages out. It does no I/O but through its store and its ledger.

    opening (invitation, broadcast) ─▶ ADVERTISE   does the policy accept the plan, does the ledger have room for it,
                                                   and does the broadcast lead to the adapter that the round trains?
    roster                          ─▶ SHARE
    inbox                           ─▶ MASK        train · clip · noise · count in the own ledger · mask
    survivors                       ─▶ [AGREE or] UNMASK
    [agreement                      ─▶ UNMASK]

What protects the client is checked here and in the protocol's positions, whatever the server says. A message that is
refused changes nothing: neither the position nor the ledger.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flora_protocols import (
    ClientAdvertise,
    ClientAgree,
    ClientMask,
    ClientShare,
    ClientUnmask,
    Code,
    MisuseError,
    load_position,
)
from flora_secure.client.contribution import Trainer
from flora_secure.client.following import arrive
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.client.store import Held, Store
from flora_secure.client.upload import upload
from flora_secure.errors import Refusal, RefusalError
from flora_secure.privacy.clipping import NonFiniteUpdateError
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import MAGIC, Invitation, decode_opening, is_opening


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
    """

    enrolment: Enrolment
    number: int
    policy: Policy
    trainer: Trainer = field(repr=False)
    ledger: ClientLedger
    store: Store = field(repr=False)
    model_hash: bytes = field(repr=False)
    identity: bytes | None = field(default=None, repr=False)
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
        held = self._begin(message, request, held) if is_opening(message) else self._go_on(message, request, held)
        self.store.save(held)
        return held.reply

    def _begin(self, message: bytes, request: bytes, before: Held | None) -> Held:
        encoded, broadcast = decode_opening(message)
        long = encoded if encoded[:2] == MAGIC or before is None else _long(before)
        invitation = self._invitation(encoded, long)
        position = invitation.position(self.number)
        if position is None:
            raise RefusalError(Refusal.NOT_INVITED, f"round {invitation.round} does not invite client {self.number}")
        self._require_new(invitation, before)
        self._require_own(invitation)
        kept = b"" if before is None else before.state
        adapter, state = arrive(broadcast, invitation, self.trainer.trained, self.model_hash, kept)
        event, floors = self.policy.accept(invitation)
        self.ledger.require(event, self.policy.most_epsilon, self.policy.delta)
        assert invitation.params is not None  # the policy refuses rounds without masking
        begun = ClientAdvertise(invitation.params, position, floors=floors, identity=self._key(invitation))
        moved, reply = begun.advertise()
        return Held(encoded, b"" if long == encoded else long, adapter, state, moved.dump(), request, reply)

    def _require_own(self, invitation: Invitation) -> None:
        """RefusalError unless the round trains what this client's trainer does."""
        trained = self.trainer.trained
        asked, own = (invitation.rule, invitation.plan.dimension), (trained.rule.name, trained.upload_size)
        if asked != own:
            raise RefusalError(
                Refusal.MODEL, f"the round's rule and values of an upload are {asked}, this client's {own}"
            )

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
        invitation = self._of(held)
        assert invitation.params is not None
        position = load_position(invitation.params, held.position, identity=self._key(invitation))
        moved: ClientMask | ClientAgree | ClientUnmask
        if isinstance(position, ClientShare):
            moved, reply = position.share(message)
        elif isinstance(position, ClientMask):
            moved, reply = position.mask(message, self._vector(invitation, held.adapter))
            cost = self.policy.worst_event(invitation)
            # before the upload can leave
            self.ledger.enter(invitation.session, cost, self.policy.most_epsilon, self.policy.delta)
        elif isinstance(position, ClientAgree):
            moved, reply = position.agree(message)
        elif isinstance(position, ClientUnmask):
            _, reply = position.unmask(message)
            return dataclasses.replace(held, position=None, request=request, reply=reply)
        else:
            raise RefusalError(Refusal.NO_ROUND, "the round is over for this client")
        return dataclasses.replace(held, position=moved.dump(), request=request, reply=reply)

    def _vector(self, invitation: Invitation, adapter: bytes) -> NDArray[np.uint32]:
        given = self.trainer.contributions(invitation, adapter, [self.number])
        try:
            return upload(invitation, given.vectors[0])
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
