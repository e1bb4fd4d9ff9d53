"""The client's last positions: what it agrees to, and what it reveals (Bonawitz et al. CCS'17, figure 4, rounds 3, 4).

``client`` holds the positions before them, and the picture of all.
"""

from __future__ import annotations

from typing import Self

from . import keys, messages
from .codec import Reader, encode_subset
from .errors import PeerError, TooFewSurvivors
from .member import ClientPosition, Member, decode_held, encode_held
from .position import transition
from .shamir import SHARE


class ClientAgree(ClientPosition):
    """Has uploaded, in the malicious-server profile; waits for the survivors."""

    _CODE, _SIGNS = 4, True

    def __init__(
        self, me: Member, identity: bytes, session: bytes, present: tuple[int, ...], held: dict[int, bytes]
    ) -> None:
        super().__init__(me)
        self._identity, self._session, self._present, self._held = identity, session, present, held

    @transition
    def agree(self, survivors: bytes) -> tuple[ClientUnmask, bytes]:
        """Sign the survivors that the server told. Raises PeerError or TooFewSurvivors as ``ClientUnmask.unmask``."""
        params = self._me.params
        told = messages.decode_survivors(params, self._session, survivors)
        _check_survivors(self._me, told, self._present, self._held)
        text = messages.endorsed_text(params, self._session, told)
        message = messages.encode_endorsement(self._session, keys.sign(self._identity, keys.SURVIVORS, text))
        return ClientUnmask(self._me, self._session, self._present, self._held, told), message

    def _contents(self) -> bytes:
        return _after_upload(self._me, self._session, self._present, self._held)

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        if identity is None:
            raise PeerError("server", "the semi-honest profile has no such position")
        return cls(me, identity, *_read_after_upload(me, contents))


class ClientUnmask(ClientPosition):
    """Has uploaded (and agreed on the survivors, in the malicious-server profile); reveals one share per peer."""

    _CODE = 5

    def __init__(
        self,
        me: Member,
        session: bytes,
        present: tuple[int, ...],
        held: dict[int, bytes],
        agreed: tuple[int, ...] | None,
    ) -> None:
        super().__init__(me)
        self._session, self._present, self._held, self._agreed = session, present, held, agreed

    @transition
    def unmask(self, message: bytes) -> tuple[ClientDone, bytes]:
        """Reveal, per peer, its seed share if it survived and its key share if it dropped.

        ``message``: the survivors (semi-honest), or the agreement (malicious-server). Raises PeerError, or
        TooFewSurvivors below t, below the client's floor, or below t signatures.
        """
        params, index = self._me.params, self._me.index
        if self._agreed is None:
            told = messages.decode_survivors(params, self._session, message)
            _check_survivors(self._me, told, self._present, self._held)
        else:
            told = self._agreed
            signers = messages.decode_agreement(params, self._session, message, index, told)
            signed = len(signers) + (index in params.graph.holders(index))
            if signed < params.threshold:
                raise TooFewSurvivors("signatures over the survivors", signed, params.threshold)
        alive = set(told)
        shares = [pair[SHARE:] if owner in alive else pair[:SHARE] for owner, pair in sorted(self._held.items())]
        return ClientDone(self._me), messages.encode_reveal(self._session, shares)

    def _contents(self) -> bytes:
        agreed = b"" if self._agreed is None else encode_subset(range(self._me.params.clients), self._agreed)
        return _after_upload(self._me, self._session, self._present, self._held) + agreed

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        session, present, held = _read_after_upload(me, contents)
        agreed = contents.subset(range(me.params.clients)) if me.params.malicious else None
        return cls(me, session, present, held, agreed)


class ClientDone(ClientPosition):
    """Has answered. Nothing is left to do, and nothing is left to tell."""

    _CODE = 6

    def _contents(self) -> bytes:
        return b""

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me)


def _check_survivors(me: Member, told: tuple[int, ...], present: tuple[int, ...], held: dict[int, bytes]) -> None:
    """The survivors must contain this client and only clients that shared, at least t and at least its floor."""
    members = set(me.params.graph.members(me.index))
    if me.index not in told:
        raise PeerError("server", f"the survivors lack client {me.index}, which did upload")
    strangers = sorted(set(told) - set(present) | (set(told) & members) - held.keys() - {me.index})
    if strangers:
        raise PeerError("server", f"the survivors include {strangers}, who did not share")
    if len(told) < me.floors.survivors:
        raise TooFewSurvivors("survivors", len(told), me.floors.survivors)
    holders = sum(holder in told for holder in me.params.graph.holders(me.index))
    if holders < me.params.threshold:
        raise TooFewSurvivors("surviving holders", holders, me.params.threshold)


def _after_upload(me: Member, session: bytes, present: tuple[int, ...], held: dict[int, bytes]) -> bytes:
    everybody, near = range(me.params.clients), me.params.graph.members(me.index)
    return session + encode_subset(everybody, present) + encode_held(near, held)


def _read_after_upload(me: Member, contents: Reader) -> tuple[bytes, tuple[int, ...], dict[int, bytes]]:
    session, present = contents.take(keys.KEY), contents.subset(range(me.params.clients))
    return session, present, decode_held(me.params.graph.members(me.index), contents)
