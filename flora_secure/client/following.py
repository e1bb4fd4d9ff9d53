"""The server's state as a client keeps it, and how a broadcast moves it. It is public, as all that it follows from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from flora_protocols import Code, PeerError
from flora_secure.errors import DivergedError, Refusal, RefusalError
from flora_secure.planning.rules import TrainedValues
from flora_secure.rounds.broadcast import Broadcast, Form, FullState, Layout
from flora_secure.rounds.float16 import to_wire
from flora_secure.rounds.invitation import SESSION, Invitation
from flora_secure.rounds.step import ServerStep


@dataclass(frozen=True, eq=False)
class Following:
    """The server's state in which round `number` of `session` began."""

    session: bytes
    number: int
    full: FullState

    def to_bytes(self) -> bytes:
        """The session, and a broadcast of the state."""
        return self.session + Broadcast(since=self.number, start=self.full).to_bytes()

    @classmethod
    def read(cls, data: bytes, invitation: Invitation, layout: Layout) -> Following | None:
        """What `to_bytes` wrote, where it is of the invitation's session; None for everything else, also for a state of
        what this client does not train any more."""
        session, rest = data[:SESSION], data[SESSION:]
        if session != invitation.session:
            return None
        try:
            kept = Broadcast.from_bytes(rest, layout, (1 << 32) - 1)
        except PeerError:
            return None
        return None if kept.start is None or kept.sums else cls(session, kept.since, kept.start)


def arrive(
    message: bytes, invitation: Invitation, trained: TrainedValues, model_hash: bytes, kept: bytes
) -> tuple[bytes, bytes]:
    """The adapter that a round trains from, in float16, and the state to keep from now on, as bytes.

    Args:
        message: the broadcast of the round.
        invitation: to the round, which trains what `trained` says.
        model_hash: SHA-256 of the frozen model that this client has.
        kept: the state that was kept before, as this function gave it; empty where there was none.

    Raises RefusalError with code STATE where the broadcast goes on from a state that this client does not have, or what
    it has leads to another adapter than the invitation's model hash is of: a complete broadcast may be sent then. With
    code MODEL where a complete one does not lead there either. PeerError naming the server for bytes that are no
    broadcast, or make no adapter.
    """
    layout = Layout.of(invitation.plan, trained)
    broadcast = Broadcast.from_bytes(message, layout, invitation.round)
    own = Following.read(kept, invitation, layout)
    now = own
    if broadcast.adapter is None:
        adapter, now = _follow(broadcast, own, invitation, trained)
    else:
        adapter = broadcast.adapter
    if hashlib.sha256(model_hash + adapter).digest() != invitation.model_hash:
        if broadcast.form is Form.SUMS:
            raise RefusalError(Refusal.STATE, "the state that this client keeps does not lead to the round's adapter")
        raise RefusalError(
            Refusal.MODEL, "the round trains another model than this client's, or its adapter was damaged"
        )
    return adapter, b"" if now is None else now.to_bytes()


def _follow(
    broadcast: Broadcast, own: Following | None, invitation: Invitation, trained: TrainedValues
) -> tuple[bytes, Following]:
    """The adapter, and the state, that the server's steps lead to."""
    full, since = broadcast.start, broadcast.since
    if full is None:
        if own is None or own.number < since:
            has = "none" if own is None else f"that of round {own.number}"
            raise RefusalError(
                Refusal.STATE, f"the broadcast goes on from the state of round {since}, and this client has {has}"
            )
        full, since = own.full, own.number
    step, state = ServerStep(full.optimiser, trained, invitation.plan, invitation.rotation_seed), full.state
    with np.errstate(all="ignore"):  # of hostile numbers, which the comparisons below find
        for released in broadcast.sums:
            if released.round >= since:
                state = step.after(state, released)
    following = Following(invitation.session, invitation.round, FullState(state, full.optimiser))
    try:
        if np.isfinite(state.momentum).all():
            return to_wire(state.adapter), following
    except DivergedError:
        pass
    if broadcast.form is Form.SUMS:
        raise RefusalError(Refusal.STATE, "the state that this client keeps and the sums that came make no adapter")
    raise PeerError("server", "sends a state that makes no adapter", Code.PARAMETERS)
