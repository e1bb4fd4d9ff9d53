"""The client's positions (Bonawitz et al. CCS'17, figure 4; Bell et al. CCS'20 for the Harary graph).

    ClientAdvertise ──advertise──▶ ClientShare ──share(roster)──▶ ClientMask ──mask(inbox, vector)──▶
        semi-honest        ClientUnmask ──unmask(survivors)──▶ done
        malicious-server   ClientAgree ──agree(survivors)──▶ ClientUnmask ──unmask(agreement)──▶ done

Each transition takes the server's message and gives the next position and the message to send. What protects the
client is checked here, whatever the server says: its floors, one vector and one answer a session, and never both
secrets of one peer. Nothing is read from the server twice, so nothing can be asked for twice.

The positions after the upload are in `reveal`; what all have in common, `dump` and `load`, is in `member`.
"""

from __future__ import annotations

import os
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from flora_protocols import keys, messages
from flora_protocols.codec import Bitmap, Reader
from flora_protocols.errors import Code, MisuseError, ParameterError, PeerError, TooFewSurvivors
from flora_protocols.keystream import masked_tiles
from flora_protocols.member import ClientPosition, Member, check_identity, decode_held, encode_held
from flora_protocols.params import Floors, SessionParams, require_params
from flora_protocols.position import transition
from flora_protocols.ranges import integer, shown
from flora_protocols.reveal import ClientAgree, ClientUnmask, Uploaded
from flora_protocols.ring import lane, require_vector
from flora_protocols.shamir import canonical_bytes, split
from flora_protocols.trips import Trip


class _Own:
    """A client's own secret of the session, from which its mask key grows."""

    __slots__ = ("mask_key", "mask_secret")

    def __init__(self, me: Member, mask_secret: bytes) -> None:
        self.mask_secret = mask_secret
        self.mask_key = keys.mask_key(mask_secret, me.params.setup_id, me.index)


class ClientAdvertise(ClientPosition):
    """The first position, in which a client makes its keys for the round.

    `index`: the client's place in the roster, 0 .. n - 1. `floors`: what it insists on. `identity`: its Ed25519 secret
    key of 32 bytes, in the malicious-server profile only. `exchange`: for simulations; it sees the client's secrets.
    Raises MisuseError, or ParameterError if `params` fall short of its floors.
    """

    _CODE, _SIGNS = 1, True
    _trip = Trip.ADVERTISE

    def __init__(
        self,
        params: SessionParams,
        index: int,
        *,
        floors: Floors,
        identity: bytes | None = None,
        exchange: keys.Exchange = keys.exchange_all,
    ) -> None:
        index = integer("client index", index)
        require_params(params)
        if not isinstance(floors, Floors):
            raise MisuseError(f"floors must be Floors, not {type(floors).__name__}")
        if not 0 <= index < params.clients:
            raise MisuseError(f"client index {shown(index)}; 0 .. {params.clients - 1} are possible")
        super().__init__(Member(params, index, floors, exchange))
        for name, offered, floor in (
            ("clients", params.clients, floors.clients),
            ("threshold", params.threshold, floors.threshold),
        ):
            if offered < floor:
                raise ParameterError(
                    f"{name} is {offered}, below this client's floor of {floor}; it does not take part",
                    Code.BELOW_FLOOR,
                )
        check_identity(params, index, identity)
        self._identity = identity

    @transition
    def advertise(self, randomness: keys.Randomness = os.urandom) -> tuple[ClientShare, bytes]:
        """Make this round's keys; draws 16 + 32 bytes from `randomness`."""
        secret, transport = keys.draw(randomness, keys.SECRET), keys.draw(randomness, keys.KEY)
        position = ClientShare(self._me, self._identity, secret, transport)
        return position, messages.encode_advertisement(self._me.params, position._advertisement)

    def _contents(self) -> bytes:
        return b""

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me.params, me.index, floors=me.floors, identity=identity)


class ClientShare(ClientPosition):
    """A client that has advertised, and waits for the roster."""

    _CODE, _SIGNS = 2, True
    _trip = Trip.SHARE

    def __init__(self, me: Member, identity: bytes | None, secret: bytes, transport: bytes) -> None:
        super().__init__(me)
        self._identity, self._own = identity, _Own(me, secret)
        self._transport = X25519PrivateKey.from_private_bytes(transport)
        mask_public = self._own.mask_key.public_key().public_bytes_raw()
        transport_public = self._transport.public_key().public_bytes_raw()
        signature = b""
        if identity is not None:
            text = messages.Advertisement.signed_text(me.params, me.index, mask_public, transport_public)
            signature = keys.sign(identity, keys.ADVERTISEMENT, text)
        self._advertisement = messages.Advertisement(mask_public, transport_public, signature)

    @transition
    def share(self, roster: bytes, randomness: keys.Randomness = os.urandom) -> tuple[ClientMask, bytes]:
        """Share both secrets among the holders. Draws 16 + 64 (t - 1) bytes (the latter again, once in 2^26 rounds).

        Raises PeerError, or TooFewSurvivors if fewer are present than the client's floor, or fewer holders than t.
        """
        params, index, floors = self._me.params, self._me.index, self._me.floors
        present, entries, session = messages.decode_roster(params, roster, index, self._advertisement)
        if len(present) < floors.clients:
            raise TooFewSurvivors("clients in the roster", len(present), floors.clients, Code.BELOW_FLOOR)
        holders = [member for member in params.graph.holders(index) if member in entries]
        if len(holders) < params.threshold:
            raise TooFewSurvivors("holders in the roster", len(holders), params.threshold)

        seed = keys.draw(randomness, keys.SECRET)
        points = tuple([holder + 1 for holder in holders])
        rows = split(self._own.mask_secret + seed, points, params.threshold, randomness)
        pairs = {holder: row.tobytes() for holder, row in zip(holders, rows, strict=True)}
        held = {index: pairs.pop(index)} if index in pairs else {}
        # One kind of work after another: taking turns, each would find the processor's caches full of the other's code.
        secrets = self._me.exchange(self._transport, {peer: entries[peer].transport for peer in pairs})
        channels = {}
        for peer, shared in secrets.items():
            low, high = (index, peer) if index < peer else (peer, index)
            masks = entries[low].mask, entries[high].mask
            channels[peer] = keys.Channel.between(shared, masks, session, low, high)
        sealed = [channels[peer].seal(pair, index, peer) for peer, pair in pairs.items()]
        publics = {peer: entries[peer].mask for peer in pairs}
        position = ClientMask(self._me, self._identity, self._own, session, present, seed, held, channels, publics)
        return position, messages.encode_shares(session, sealed)

    def _contents(self) -> bytes:
        return self._own.mask_secret + self._transport.private_bytes_raw()

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me, identity, contents.take(keys.SECRET), contents.take(keys.KEY))


class ClientMask(ClientPosition):
    """A client that has shared, and waits for its inbox and for the vector."""

    _CODE, _SIGNS = 3, True
    _trip = Trip.MASK

    def __init__(
        self,
        me: Member,
        identity: bytes | None,
        own: _Own,
        session: bytes,
        present: Bitmap,
        seed: bytes,
        held: dict[int, bytes],
        channels: dict[int, keys.Channel],
        publics: dict[int, bytes],
    ) -> None:
        super().__init__(me)
        self._identity, self._own, self._session, self._present = identity, own, session, present
        self._seed, self._held, self._channels, self._publics = seed, held, channels, publics

    @transition
    def mask(self, inbox: bytes, vector: NDArray[np.uint32]) -> tuple[ClientAgree | ClientUnmask, bytes]:
        """Mask `vector`, uint32 (d,), every element < 2^b (otherwise MisuseError), and pack it.

        Raises PeerError naming the sender whose shares do not open, or TooFewSurvivors if fewer than t holders shared.
        """
        params, index = self._me.params, self._me.index
        require_vector(vector, params.dimension, params.bits)
        sealed = messages.decode_inbox(self._session, inbox, index, params.graph.members(index))
        strangers = sealed.keys() - self._channels.keys()
        if strangers:
            raise PeerError(
                "server", f"the inbox holds shares of {sorted(strangers)}, who are not in the roster", Code.BAD_INBOX
            )
        held = dict(self._held)
        for peer, box in sealed.items():
            held[peer] = self._channels[peer].open(box, peer, index)
        if not canonical_bytes(b"".join(held.values())):  # revealed later, they would make this client look guilty
            dealer = next(peer for peer, pair in held.items() if not canonical_bytes(pair))
            raise PeerError(dealer, f"dealt client {index} a share that is not canonically encoded", Code.BAD_SHARE)
        if len(held) < params.threshold:
            raise TooFewSurvivors("holders that shared", len(held), params.threshold)

        plus = [keys.derive(self._seed, keys.SELF_MASK, self._session, index, index)]
        minus: list[bytes] = []
        secrets = self._me.exchange(self._own.mask_key, {peer: self._publics[peer] for peer in sealed})
        pair_keys = {peer: keys.derive_pair_key(secret, self._session, index, peer) for peer, secret in secrets.items()}
        for peer, key in pair_keys.items():
            (plus if index < peer else minus).append(key)
        tiles = masked_tiles(vector, lane(params.bits), plus, minus)
        message = messages.encode_upload(params, self._session, tiles)
        after = Uploaded(self._session, self._present, held, pair_keys if params.direct_reveal else {})
        if self._identity is None:
            return ClientUnmask(self._me, after, None), message
        return ClientAgree(self._me, self._identity, after), message

    def _contents(self) -> bytes:
        members = self._me.params.graph.members(self._me.index)
        parts = [self._own.mask_secret, self._seed, self._session]
        parts += [self._present.raw, encode_held(members, self._held)]
        parts += [channel.key + self._publics[peer] for peer, channel in self._channels.items()]
        return b"".join(parts)

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        secret, seed, session = (contents.take(size) for size in (keys.SECRET, keys.SECRET, keys.KEY))
        present = contents.bitmap(me.params.clients)
        members = me.params.graph.members(me.index)
        held = decode_held(members, contents)
        peers = [member for member in members if member in present and member != me.index]
        channels, publics = {}, {}
        for peer in peers:
            channels[peer], publics[peer] = keys.Channel(contents.take(keys.KEY), session), contents.take(keys.KEY)
        return cls(me, identity, _Own(me, secret), session, present, seed, held, channels, publics)
