"""The client's last positions: what it agrees to, and what it reveals (Bonawitz et al. CCS'17, figure 4, rounds 3, 4).

`client` holds the positions before them, and the picture of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flora_protocols import keys, messages
from flora_protocols.codec import Bitmap, Reader
from flora_protocols.errors import Code, PeerError, TooFewSurvivors
from flora_protocols.member import ClientPosition, Member, decode_held, encode_held
from flora_protocols.position import transition
from flora_protocols.shamir import SHARE
from flora_protocols.trips import Trip


@dataclass(frozen=True, repr=False)
class Uploaded:
    """What a client keeps after its upload.

    `present`: who advertised. `held`: the pairs of shares that it holds, by owner. `pair_keys`: the keys of the
    pairwise masks in its upload, by neighbour; empty without direct reveal.
    """

    session: bytes
    present: Bitmap
    held: dict[int, bytes]
    pair_keys: dict[int, bytes]

    def contents(self, me: Member) -> bytes:
        """These contents as bytes of a dump."""
        held = encode_held(me.params.graph.members(me.index), self.held)
        pair_keys = (self.pair_keys[peer] for peer in sorted(self.pair_keys))
        return b"".join((self.session, self.present.raw, held, *pair_keys))

    @classmethod
    def restored(cls, me: Member, contents: Reader) -> Self:
        """The inverse of `contents`."""
        session, present = contents.take(keys.KEY), contents.bitmap(me.params.clients)
        held = decode_held(me.params.graph.members(me.index), contents)
        peers = [owner for owner in held if owner != me.index] if me.params.direct_reveal else []
        return cls(session, present, held, dict(zip(peers, contents.chunks(keys.KEY, len(peers)), strict=True)))


class ClientAgree(ClientPosition):
    """Has uploaded, in the malicious-server profile; waits for the survivors."""

    _CODE, _SIGNS = 4, True
    _trip = Trip.AGREE

    def __init__(self, me: Member, identity: bytes, uploaded: Uploaded) -> None:
        super().__init__(me)
        self._identity, self._uploaded = identity, uploaded

    @transition
    def agree(self, survivors: bytes) -> tuple[ClientUnmask, bytes]:
        """Sign the survivors that the server told. Raises PeerError or TooFewSurvivors as `ClientUnmask.unmask`."""
        params, session = self._me.params, self._uploaded.session
        told = messages.decode_survivors(params, session, survivors)
        _check_survivors(self._me, told, self._uploaded)
        text = messages.endorsed_text(params, session, told)
        message = messages.encode_endorsement(session, keys.sign(self._identity, keys.SURVIVORS, text))
        return ClientUnmask(self._me, self._uploaded, told), message

    def _contents(self) -> bytes:
        return self._uploaded.contents(self._me)

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        if identity is None:
            raise PeerError("server", "the semi-honest profile has no such position", Code.BAD_DUMP)
        return cls(me, identity, Uploaded.restored(me, contents))


class ClientUnmask(ClientPosition):
    """Has uploaded (and agreed on the survivors, in the malicious-server profile); reveals one share per peer."""

    _CODE = 5
    _trip = Trip.UNMASK

    def __init__(self, me: Member, uploaded: Uploaded, agreed: Bitmap | None) -> None:
        super().__init__(me)
        self._uploaded, self._agreed = uploaded, agreed

    @transition
    def unmask(self, message: bytes) -> tuple[ClientDone, bytes]:
        """Reveal, per peer, its seed share if it survived and its key share if it dropped.

        With direct reveal, of those that dropped also the key of the pairwise mask that this client has with each.
        `message`: the survivors (semi-honest), or the agreement (malicious-server). Raises PeerError, or
        TooFewSurvivors below t, below the client's floor, or below t signatures.
        """
        params, index, uploaded = self._me.params, self._me.index, self._uploaded
        if self._agreed is None:
            told = messages.decode_survivors(params, uploaded.session, message)
            _check_survivors(self._me, told, uploaded)
        else:
            told = self._agreed
            signers = messages.decode_agreement(params, uploaded.session, message, index, told)
            signed = len(signers) + (index in params.graph.holders(index))
            if signed < params.threshold:
                raise TooFewSurvivors("signatures over the survivors", signed, params.threshold)
        alive = frozenset(told.among(uploaded.held))
        shares = [pair[SHARE:] if owner in alive else pair[:SHARE] for owner, pair in sorted(uploaded.held.items())]
        direct = [key for peer, key in sorted(uploaded.pair_keys.items()) if peer not in alive]
        return ClientDone(self._me), messages.encode_reveal(uploaded.session, shares, direct)

    def _contents(self) -> bytes:
        return self._uploaded.contents(self._me) + (b"" if self._agreed is None else self._agreed.raw)

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        uploaded = Uploaded.restored(me, contents)
        agreed = contents.bitmap(me.params.clients) if me.params.malicious else None
        return cls(me, uploaded, agreed)


class ClientDone(ClientPosition):
    """Has answered. Nothing is left to do, and nothing is left to tell."""

    _CODE = 6
    _trip = None

    def _contents(self) -> bytes:
        return b""

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me)


def _check_survivors(me: Member, told: Bitmap, uploaded: Uploaded) -> None:
    """The survivors must contain this client and only clients that shared, at least t and at least its floor."""
    if me.index not in told:
        raise PeerError("server", f"the survivors lack client {me.index}, which did upload", Code.BAD_SURVIVORS)
    near = told.among(me.params.graph.members(me.index))
    silent = [member for member in near if member not in uploaded.held and member != me.index]
    absent = told.without(uploaded.present)
    if silent or len(absent):
        strangers = sorted({*silent, *absent})
        raise PeerError("server", f"the survivors include {strangers[:8]}, who did not share", Code.BAD_SURVIVORS)
    if len(told) < me.floors.survivors:
        raise TooFewSurvivors("survivors", len(told), me.floors.survivors, Code.BELOW_FLOOR)
    holders = len(near) - (not me.params.graph.complete)  # where it holds no shares of itself
    if holders < me.params.threshold:
        raise TooFewSurvivors("surviving holders", holders, me.params.threshold)
