"""The client's positions in a round of a session that is set up (Bonawitz et al. CCS'17, figure 4, rounds 2 to 4).

    semi-honest        ClientReady ──mask(round, vector)──▶ ClientUnmask ──unmask(survivors)──▶ ClientReady …
    malicious-server   ClientReady ──mask(round, vector)──▶ ClientAgree ──agree(survivors)──▶ ClientUnmask
                                   ──unmask(agreement)──▶ ClientReady …

After the last slot ClientDone follows. A round that goes on without the client, or never ends, is left with `leave`:
its slot is used, and nothing of it is told any more.

A client uploads once under a slot, and answers at most once for it, whatever the server says: a slot's secrets leave
the prepared ones when it is taken, and those of the slots before it are forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flora_protocols import keys, round_messages
from flora_protocols.codec import Bitmap, Reader, encode_subset
from flora_protocols.errors import Code, MisuseError, PeerError, TooFewSurvivors
from flora_protocols.keystream import masked_tiles
from flora_protocols.member import ClientPosition, Member
from flora_protocols.position import fresh, transition
from flora_protocols.ring import lane, require_vector
from flora_protocols.round_params import RoundParams
from flora_protocols.shamir import SHARE, canonical_bytes
from flora_protocols.slots import Slots
from flora_protocols.trips import Trip


class ClientReady(ClientPosition):
    """Between two rounds; waits for the next."""

    _CODE, _SIGNS = 6, True
    _trip = Trip.MASK

    def __init__(self, me: Member, identity: bytes | None, slots: Slots) -> None:
        super().__init__(me)
        self._identity, self._slots = identity, slots

    @property
    def session(self) -> bytes:
        """The session id; of an unspent position."""
        return self._slots.session

    @property
    def next_slot(self) -> int:
        """The first slot that is left; of an unspent position."""
        return self._slots.first

    @property
    def unopened(self) -> frozenset[int]:
        """The neighbours whose box did not open; of an unspent position."""
        return self._slots.unopened

    @transition
    def mask(self, round: RoundParams, vector: NDArray[np.uint32]) -> tuple[ClientAgree | ClientUnmask, bytes]:
        """Mask `vector`, uint32 (d,), every element < 2^b (otherwise MisuseError), and pack it. The slot is used.

        Raises PeerError where `round` takes a slot that is not left, lacks this client or has others than the session;
        TooFewSurvivors if fewer are invited than the client's floor, or fewer than t holders of its shares.
        """
        me, params, index, slots = self._me, self._me.params, self._me.index, self._slots
        require_vector(vector, params.dimension, params.bits)
        self._check(round)
        scope = round.id(params, slots.session)
        slot, left = slots.take(round.slot)
        plus, minus, tags = [keys.derive(slot.seed, keys.SELF_MASK, scope, index, index)], list[bytes](), {}
        for peer in round.invited.among(slots.peers):
            key = keys.pair_mask(slot.pair_keys[peer], scope, index, peer)
            (plus if index < peer else minus).append(key)
            tags[peer] = keys.pair_tag(key)
        tiles = masked_tiles(vector, lane(params.bits), plus, minus)
        members = params.graph.members(index)
        message = round_messages.encode_upload(params, scope, tiles, members, slots.unopened)
        held = {owner: slot.held[owner] for owner in round.invited.among(slots.owners)}
        after = Uploaded(scope, round.invited, held, tags, left)
        if self._identity is None:
            return ClientUnmask(me, None, after, None), message
        return ClientAgree(me, self._identity, after), message

    @fresh
    def check(self, round: RoundParams) -> None:
        """Raise what `mask` would raise of this round, before there is a vector for it."""
        self._check(round)

    def _check(self, round: RoundParams) -> None:
        if not isinstance(round, RoundParams):
            raise MisuseError(f"round must be RoundParams, not {type(round).__name__}")
        me, params, slots = self._me, self._me.params, self._slots
        if not round.fits(params):
            reason = f"a round of slot {round.slot}, in a session of {params.slots} slots and {params.clients} clients"
            raise PeerError("server", reason, Code.PARAMETERS)
        if round.slot < slots.first:
            reason = f"slot {round.slot} was used, or passed over: slots from {slots.first} on are left"
            raise PeerError("server", reason, Code.SECOND_MESSAGE)
        if me.index not in round.invited:
            raise PeerError("server", f"a round that does not invite client {me.index}", Code.BAD_ROSTER)
        strangers = round.invited.without(slots.present)
        if len(strangers):
            reason = f"a round that invites {list(strangers)[:8]}, who are not in the session"
            raise PeerError("server", reason, Code.BAD_ROSTER)
        if len(round.invited) < me.floors.clients:
            raise TooFewSurvivors("clients invited", len(round.invited), me.floors.clients, Code.BELOW_FLOOR)
        holders = len(round.invited.among(slots.peers)) + params.graph.complete
        if holders < params.threshold:
            raise TooFewSurvivors("holders invited", holders, params.threshold)

    def _contents(self) -> bytes:
        return self._slots.contents(self._me.params, self._me.index)

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me, identity, Slots.restored(me.params, me.index, contents))


@dataclass(frozen=True, repr=False)
class Uploaded:
    """What a client keeps after its upload.

    `scope`: the round id. `invited`: who was. `held`: of those of them whose shares it holds, the pair of shares of the
    slot. `tags`: by neighbour, of the pairwise masks in its upload. `left`: the slots after this one.
    """

    scope: bytes
    invited: Bitmap
    held: dict[int, bytes]
    tags: dict[int, bytes]
    left: Slots

    def contents(self, me: Member) -> bytes:
        """These contents as bytes of a dump."""
        members = me.params.graph.members(me.index)
        held = encode_subset(members, self.held) + b"".join(self.held.values())
        tags = encode_subset(members, self.tags) + b"".join(self.tags.values())
        return b"".join((self.scope, self.invited.raw, held, tags, self.left.contents(me.params, me.index)))

    @classmethod
    def restored(cls, me: Member, contents: Reader) -> Self:
        """The inverse of `contents`."""
        members, scope, invited = (
            me.params.graph.members(me.index),
            contents.take(32),
            contents.bitmap(me.params.clients),
        )
        owners = contents.subset(members)
        pairs = contents.chunks(2 * SHARE, len(owners))
        if not canonical_bytes(b"".join(pairs)):
            raise contents.refusal("a share is not canonically encoded", Code.BAD_DUMP)
        peers = contents.subset(members)
        tags = contents.chunks(keys.PAIR_TAG_BYTES, len(peers))
        left = Slots.restored(me.params, me.index, contents)
        held = dict(zip(owners, pairs, strict=True))
        return cls(scope, invited, held, dict(zip(peers, tags, strict=True)), left)


class _InRound(ClientPosition):
    """A client that has uploaded."""

    _SIGNS = True

    def __init__(self, me: Member, identity: bytes | None, uploaded: Uploaded) -> None:
        super().__init__(me)
        self._identity, self._uploaded = identity, uploaded

    @property
    def session(self) -> bytes:
        """The session id; of an unspent position."""
        return self._uploaded.left.session

    @transition
    def leave(self) -> ClientReady | ClientDone:
        """Give the round up: the client answers nothing more in it, and may be in the next."""
        return self._after()

    def _after(self) -> ClientReady | ClientDone:
        left = self._uploaded.left
        return ClientReady(self._me, self._identity, left) if len(left.seeds) else ClientDone(self._me)

    def _check(self, told: Bitmap) -> None:
        """The survivors must contain this client and only clients that were invited (of its neighbours, those that it
        masked with), at least t holders of its shares, and as many as its floor."""
        me, uploaded = self._me, self._uploaded
        if me.index not in told:
            raise PeerError("server", f"the survivors lack client {me.index}, which did upload", Code.BAD_SURVIVORS)
        near = told.among(me.params.graph.members(me.index))
        silent = [member for member in near if member not in uploaded.tags and member != me.index]
        absent = told.without(uploaded.invited)
        if silent or len(absent):
            strangers = sorted({*silent, *absent})
            reason = f"the survivors include {strangers[:8]}, who did not share or were not invited"
            raise PeerError("server", reason, Code.BAD_SURVIVORS)
        if len(told) < me.floors.survivors:
            raise TooFewSurvivors("survivors", len(told), me.floors.survivors, Code.BELOW_FLOOR)
        holders = len(near) - (not me.params.graph.complete)  # where it holds no shares of itself
        if holders < me.params.threshold:
            raise TooFewSurvivors("surviving holders", holders, me.params.threshold)

    def _contents(self) -> bytes:
        return self._uploaded.contents(self._me)


class ClientAgree(_InRound):
    """Has uploaded, in the malicious-server profile; waits for the survivors."""

    _CODE = 7
    _trip = Trip.AGREE

    @transition
    def agree(self, survivors: bytes) -> tuple[ClientUnmask, bytes]:
        """Sign the survivors that the server told. Raises PeerError or TooFewSurvivors as `ClientUnmask.unmask`."""
        params, scope = self._me.params, self._uploaded.scope
        told = round_messages.decode_survivors(params, scope, survivors)
        self._check(told)
        assert self._identity is not None
        signature = keys.sign(self._identity, keys.SURVIVORS, round_messages.endorsed_text(params, scope, told))
        message = round_messages.encode_endorsement(params, scope, signature)
        return ClientUnmask(self._me, self._identity, self._uploaded, told), message

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        if identity is None:
            raise PeerError("server", "the semi-honest profile has no such position", Code.BAD_DUMP)
        return cls(me, identity, Uploaded.restored(me, contents))


class ClientUnmask(_InRound):
    """Has uploaded (and agreed on the survivors, in the malicious-server profile); reveals one share per peer."""

    _CODE = 8
    _trip = Trip.UNMASK

    def __init__(self, me: Member, identity: bytes | None, uploaded: Uploaded, agreed: Bitmap | None) -> None:
        super().__init__(me, identity, uploaded)
        self._agreed = agreed

    @transition
    def unmask(self, message: bytes) -> tuple[ClientReady | ClientDone, bytes]:
        """Reveal, of each invited client whose shares it holds, that of the seed if it survived and that of the opener
        if it did not.

        Of the neighbours that did not survive, also the tags of the masks with them. `message`: the survivors
        (semi-honest), or the agreement (malicious-server). Raises PeerError, or TooFewSurvivors below t, below the
        client's floor, or below t signatures.
        """
        params, index, uploaded = self._me.params, self._me.index, self._uploaded
        if self._agreed is None:
            told = round_messages.decode_survivors(params, uploaded.scope, message)
            self._check(told)
        else:
            told = self._agreed
            signers = round_messages.decode_agreement(params, uploaded.scope, message, index, told)
            signed = len(signers) + (index in params.graph.holders(index))
            if signed < params.threshold:
                raise TooFewSurvivors("signatures over the survivors", signed, params.threshold)
        shares = [pair[:SHARE] if owner in told else pair[SHARE:] for owner, pair in uploaded.held.items()]
        tags = [tag for peer, tag in uploaded.tags.items() if peer not in told]
        return self._after(), round_messages.encode_reveal(params, uploaded.scope, shares, tags)

    def _contents(self) -> bytes:
        return super()._contents() + (b"" if self._agreed is None else self._agreed.raw)

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        uploaded = Uploaded.restored(me, contents)
        agreed = contents.bitmap(me.params.clients) if me.params.malicious else None
        return cls(me, identity, uploaded, agreed)


class ClientDone(ClientPosition):
    """Has used all slots. Nothing is left to do, and nothing is left to tell."""

    _CODE = 9
    _trip = None

    def _contents(self) -> bytes:
        return b""

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me)
