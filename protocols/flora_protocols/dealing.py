"""What a client deals when it shares its secrets, and the position that collects what others have dealt it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Self

from flora_protocols import keys, setup_messages
from flora_protocols.client_round import ClientReady
from flora_protocols.codec import Bitmap, Reader, encode_subset
from flora_protocols.errors import Code, PeerError, TooFewSurvivors
from flora_protocols.keystream import keystream
from flora_protocols.member import ClientPosition, Member
from flora_protocols.position import transition
from flora_protocols.shamir import SHARE, canonical_bytes
from flora_protocols.slots import Slots, deal, derived_pairs
from flora_protocols.trips import Trip

_HASH = 32


class ClientCollect(ClientPosition):
    """A client that has shared, and waits for its inbox, which comes with the first round."""

    _CODE, _SIGNS = 5, True
    _trip = Trip.MASK

    def __init__(
        self,
        me: Member,
        identity: bytes | None,
        session: bytes,
        present: Bitmap,
        seeds: bytes,
        own_pairs: bytes,
        box_keys: dict[int, bytes],
        pair_keys: dict[int, bytes],
        derived: dict[int, bytes],
    ) -> None:
        super().__init__(me)
        self._identity, self._session, self._present, self._seeds = identity, session, present, seeds
        self._own_pairs, self._box_keys, self._pair_keys, self._derived = own_pairs, box_keys, pair_keys, derived

    @property
    def session(self) -> bytes:
        """The session id; of an unspent position."""
        return self._session

    @transition
    def collect(self, inbox: bytes) -> ClientReady:
        """Open the boxes of the neighbours that shared. There is nothing to send.

        A box that does not open, or holds what is no share, is a complaint: the next upload tells it to the server, and
        this client holds no shares of that neighbour. Raises PeerError, or TooFewSurvivors if fewer than t holders
        shared, or fewer than t boxes, the client's own where it has one, are good.
        """
        me, params = self._me, self._me.params
        boxes = setup_messages.decode_inbox(params, self._session, inbox, me.index)
        strangers = boxes.keys() - self._box_keys.keys()
        if strangers:
            reason = f"the inbox holds shares of {sorted(strangers)}, who are not in the session"
            raise PeerError("server", reason, Code.BAD_INBOX)
        require_holders(me, {*boxes, me.index}, "holders that shared")
        held = {me.index: self._own_pairs} if self._own_pairs else {}
        confirmed = {peer: key for peer, key in self._derived.items() if boxes.get(peer) == keys.confirmation(key)}
        held |= derived_pairs(confirmed, params.slots)
        for peer in boxes.keys() - self._derived.keys():
            pairs = keys.Box(self._box_keys[peer], self._session).open(boxes[peer], peer, me.index)
            if pairs is not None and canonical_bytes(pairs):
                held[peer] = pairs
        if len(held) < params.threshold:
            raise TooFewSurvivors("boxes that opened", len(held), params.threshold)
        pair_keys = {peer: self._pair_keys[peer] for peer in boxes}
        slots = Slots.of(self._session, self._present, self._seeds, pair_keys, held)
        return ClientReady(me, self._identity, slots)

    def _contents(self) -> bytes:
        members = self._me.params.graph.members(self._me.index)
        peers = (self._box_keys[peer] + self._pair_keys[peer] for peer in self._box_keys)
        parts = (self._session, self._present.raw, self._seeds, self._own_pairs, encode_subset(members, self._box_keys))
        return b"".join((*parts, *peers, *self._derived.values()))

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        params, session, present = me.params, contents.take(_HASH), contents.bitmap(me.params.clients)
        seeds = contents.take(keys.SECRET * params.slots)
        own_pairs = contents.take(2 * SHARE * params.slots * params.graph.complete)
        box_keys, pair_keys = {}, {}
        for peer in contents.subset(params.graph.members(me.index)):
            box_keys[peer], pair_keys[peer] = contents.take(keys.KEY), contents.take(keys.SECRET * params.slots)
        dealers = params.graph.derives_from(me.index, params.threshold)
        derived = {peer: contents.take(keys.KEY) for peer in box_keys if peer in dealers}
        return cls(me, identity, session, present, seeds, own_pairs, box_keys, pair_keys, derived)


def require_holders(me: Member, there: Container[int], what: str) -> list[int]:
    """The holders of the client's shares that are there; TooFewSurvivors if they are fewer than t."""
    holders = [member for member in me.params.graph.holders(me.index) if member in there]
    if len(holders) < me.params.threshold:
        raise TooFewSurvivors(what, len(holders), me.params.threshold)
    return holders


def dealt(
    me: Member,
    identity: bytes | None,
    own: bytes,
    session: bytes,
    present: Bitmap,
    heard: bytes,
    secrets: Mapping[int, bytes],
) -> tuple[ClientCollect, bytes]:
    """The position after sharing with the peers whose channels grow from `secrets`, and what is sent."""
    params, index = me.params, me.index
    require_holders(me, {*secrets, index}, "holders")
    pair_keys, box_keys, derived, mine = {}, {}, {}, {}
    derivers = frozenset(params.graph.derivers(index, params.threshold))
    dealers = params.graph.derives_from(index, params.threshold)
    for peer, secret in secrets.items():
        low, high = (index, peer) if index < peer else (peer, index)
        extracted = keys.extract(secret)
        root = keys.expand(extracted, keys.PAIR_ROOT, session, low, high)
        pair_keys[peer] = keystream(root, keys.SECRET * params.slots)
        box_keys[peer] = keys.expand(extracted, keys.BOX, session, low, high)
        if peer in derivers:
            derived[peer] = keys.expand(extracted, keys.DERIVED, session, index, peer)
        if peer in dealers:
            mine[peer] = keys.expand(extracted, keys.DERIVED, session, peer, index)
    own_part = deal(params, index, own, session, heard, pair_keys, derived)
    boxes = [
        keys.confirmation(derived[peer])
        if peer in derived
        else keys.Box(box_keys[peer], session).seal(own_part.pairs[peer], index, peer)
        for peer in secrets
    ]
    message = setup_messages.encode_shares(params, session, boxes, own_part.blobs, own_part.commitments)
    own_pairs = own_part.pairs.get(index, b"")
    after = ClientCollect(me, identity, session, present, own_part.seeds, own_pairs, box_keys, pair_keys, mine)
    return after, message
