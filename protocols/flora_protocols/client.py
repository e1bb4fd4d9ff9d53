"""The client's positions while a session is set up (Bonawitz et al. CCS'17, figure 4; Bell et al. CCS'20 for the Harary
graph).

    X25519   ClientAdvertise ──advertise──▶ ClientShare ──share(roster)──▶ ClientCollect ──collect(inbox)──▶ ClientReady
    hybrid   ClientAdvertise ──advertise──▶ ClientEncapsulate ──encapsulate(roster)──▶ ClientDecapsulate
                             ──share(delivery)──▶ ClientCollect ──collect(inbox)──▶ ClientReady

Each transition takes the server's message and gives the next position and the message to send; `collect` has nothing to
send. What protects the client is checked here, whatever the server says. Nothing is read from the server twice, so
nothing can be asked for twice.

In the hybrid suite all ciphertexts come before all shares: were they sent beside them, one end of each pair would have
sealed its shares under X25519 alone.

The positions of a round, from `ClientReady` on, are in `client_round`; what all have in common, `dump` and `load`, is
in `member`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from flora_protocols import keys, setup_messages
from flora_protocols.codec import Bitmap, Reader
from flora_protocols.dealing import ClientCollect, dealt, require_holders
from flora_protocols.errors import Code, MisuseError, ParameterError, PeerError, TooFewSurvivors
from flora_protocols.member import ClientPosition, Member, check_identity
from flora_protocols.params import Floors, SessionParams, require_params
from flora_protocols.position import transition
from flora_protocols.ranges import integer, shown
from flora_protocols.setup_messages import Advertisement, Roster
from flora_protocols.suites import KEM_SECRET, KEM_SEED, Encapsulate, decapsulator, encapsulate, kem_public
from flora_protocols.trips import Trip

_HASH = 32


class _Own(NamedTuple):
    """A client's own secrets until it has shared: what it deals grows from `secret`; `channel` is its X25519 secret,
    `kem_seed` grows its KEM key (b"" in the X25519 suite)."""

    secret: bytes
    channel: bytes
    kem_seed: bytes

    def __repr__(self) -> str:
        return "<_Own>"

    @classmethod
    def read(cls, me: Member, contents: Reader) -> _Own:
        """The inverse of joining the fields."""
        kem = KEM_SEED * me.params.suite.hybrid
        return cls(contents.take(keys.KEY), contents.take(keys.KEY), contents.take(kem))


class ClientAdvertise(ClientPosition):
    """The first position, in which a client makes its keys for the session.

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
        for name in ("clients", "threshold", "suite"):
            offered, floor = getattr(params, name), getattr(floors, name)
            if offered < floor:
                raise ParameterError(
                    f"{name} is {offered!s}, below this client's floor of {floor!s}; it does not take part",
                    Code.BELOW_FLOOR,
                )
        params.suite.require()
        check_identity(params, index, identity)
        self._identity = identity

    @transition
    def advertise(self, randomness: keys.Randomness = os.urandom) -> tuple[ClientShare | ClientEncapsulate, bytes]:
        """Make this session's keys; draws 32 + 32 bytes from `randomness`, and 64 in the hybrid suite."""
        hybrid = self._me.params.suite.hybrid
        own = _Own(keys.draw(randomness, keys.KEY), keys.draw(randomness, keys.KEY), b"")
        if hybrid:
            own = own._replace(kem_seed=keys.draw(randomness, KEM_SEED))
        position = (ClientEncapsulate if hybrid else ClientShare)(self._me, self._identity, own)
        kem_key = kem_public(own.kem_seed) if hybrid else b""
        return position, setup_messages.encode_advertisement(self._me.params, position._advertisement, kem_key)

    def _contents(self) -> bytes:
        return b""

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me.params, me.index, floors=me.floors, identity=identity)


class _Advertised(ClientPosition):
    """A client that has advertised, and waits for the roster."""

    _SIGNS = True

    def __init__(self, me: Member, identity: bytes | None, own: _Own) -> None:
        super().__init__(me)
        self._identity, self._own = identity, own
        self._private = X25519PrivateKey.from_private_bytes(own.channel)
        kem_hash = setup_messages.hash_of_kem(kem_public(own.kem_seed)) if own.kem_seed else b""
        unsigned = Advertisement(self._private.public_key().public_bytes_raw(), kem_hash, b"")
        if identity is None:
            self._advertisement = unsigned
        else:
            text = unsigned.signed_text(me.params, me.index)
            self._advertisement = unsigned._replace(signature=keys.sign(identity, keys.ADVERTISEMENT, text))

    def _read(self, message: bytes) -> Roster:
        """The roster; TooFewSurvivors if fewer are present than the client's floor, or fewer holders than t."""
        me = self._me
        roster = setup_messages.decode_roster(me.params, message, me.index, self._advertisement)
        if len(roster.present) < me.floors.clients:
            least = me.floors.clients
            raise TooFewSurvivors("clients in the roster", len(roster.present), least, Code.BELOW_FLOOR)
        require_holders(me, roster.entries, "holders in the roster")
        return roster

    def _contents(self) -> bytes:
        return b"".join(self._own)

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        return cls(me, identity, _Own.read(me, contents))


class ClientShare(_Advertised):
    """A client that has advertised, in the X25519 suite, and waits for the roster."""

    _CODE = 2
    _trip = Trip.SHARE

    @transition
    def share(self, roster: bytes) -> tuple[ClientCollect, bytes]:
        """Make the secrets of all slots, and share them among the holders.

        Raises PeerError, or TooFewSurvivors if fewer are present than the client's floor, or fewer holders than t.
        """
        me, found = self._me, self._read(roster)
        publics = {peer: entry.channel for peer, entry in found.entries.items() if peer != me.index}
        secrets = _agreed(me, self._private, publics)
        heard = hashlib.sha256(roster).digest()
        return dealt(me, self._identity, self._own.secret, found.session, found.present, heard, secrets)


class ClientEncapsulate(_Advertised):
    """A client that has advertised, in the hybrid suite, and waits for the roster."""

    _CODE = 3
    _trip = Trip.ENCAPSULATE

    @transition
    def encapsulate(self, roster: bytes, kem: Encapsulate = encapsulate) -> tuple[ClientDecapsulate, bytes]:
        """Make a secret for each neighbour that stands clockwise, and its ciphertext.

        `kem`: for tests and vectors, which cannot choose what it draws. Raises as `ClientShare.share`.
        """
        me, found = self._me, self._read(roster)
        made, ciphertexts = {}, []
        for peer, key in found.kem_keys.items():
            secret, ciphertext = kem(key)
            ciphertexts.append(ciphertext)
            made[peer] = secret + hashlib.sha256(key + ciphertext).digest()
        publics = {peer: entry.channel for peer, entry in found.entries.items() if peer != me.index}
        message = setup_messages.encode_ciphertexts(me.params, found.session, ciphertexts)
        heard = hashlib.sha256(roster + message).digest()
        position = ClientDecapsulate(me, self._identity, self._own, found.session, found.present, heard, publics, made)
        return position, message


class ClientDecapsulate(ClientPosition):
    """A client that has sent its ciphertexts, and waits for those of its neighbours.

    `publics`: their channel keys. `made`: of each that it encapsulated to, the secret, and the hash of key and
    ciphertext.
    """

    _CODE, _SIGNS = 4, True
    _trip = Trip.SHARE

    def __init__(
        self,
        me: Member,
        identity: bytes | None,
        own: _Own,
        session: bytes,
        present: Bitmap,
        heard: bytes,
        publics: dict[int, bytes],
        made: dict[int, bytes],
    ) -> None:
        super().__init__(me)
        self._identity, self._own, self._session, self._present = identity, own, session, present
        self._heard, self._publics, self._made = heard, publics, made

    @transition
    def share(self, delivery: bytes) -> tuple[ClientCollect, bytes]:
        """Make and share the secrets as `ClientShare.share` does, with those neighbours that have sent ciphertexts."""
        me, own, session = self._me, self._own, self._session
        received = setup_messages.decode_delivery(me.params, session, delivery, me.index)
        strangers = received.keys() - self._publics.keys()
        if strangers:
            reason = f"the delivery is of {sorted(strangers)}, who are not in the roster"
            raise PeerError("server", reason, Code.BAD_INBOX)
        require_holders(me, {*received, me.index}, "holders that encapsulated")
        decapsulate, kem_key = decapsulator(own.kem_seed), kem_public(own.kem_seed)
        private = X25519PrivateKey.from_private_bytes(own.channel)
        secrets = _agreed(me, private, {peer: self._publics[peer] for peer in received})
        for peer, ciphertext in received.items():
            if ciphertext:
                secrets[peer] += decapsulate(ciphertext) + hashlib.sha256(kem_key + ciphertext).digest()
            else:
                secrets[peer] += self._made[peer]
        heard = hashlib.sha256(self._heard + delivery).digest()
        return dealt(me, self._identity, own.secret, session, self._present, heard, secrets)

    def _contents(self) -> bytes:
        peers = (public + self._made.get(peer, b"") for peer, public in self._publics.items())
        return b"".join((*self._own, self._session, self._present.raw, self._heard, *peers))

    @classmethod
    def _restored(cls, me: Member, identity: bytes | None, contents: Reader) -> Self:
        own, session = _Own.read(me, contents), contents.take(_HASH)
        present, heard = contents.bitmap(me.params.clients), contents.take(_HASH)
        publics, made = {}, {}
        for peer in _peers(me, present):
            publics[peer] = contents.take(keys.KEY)
            if me.params.suite.hybrid and me.params.graph.encapsulates(me.index, peer):
                made[peer] = contents.take(KEM_SECRET + _HASH)
        return cls(me, identity, own, session, present, heard, publics, made)


def _peers(me: Member, present: Bitmap) -> list[int]:
    """The neighbours that are present, ascending."""
    return [member for member in me.params.graph.members(me.index) if member in present and member != me.index]


def _agreed(me: Member, private: X25519PrivateKey, publics: Mapping[int, bytes]) -> dict[int, bytes]:
    """By peer, what the channel's keys grow from: the X25519 secret, and both public keys, the lower index first."""
    own, secrets = private.public_key().public_bytes_raw(), me.exchange(private, publics)
    return {
        peer: secret + (own + publics[peer] if me.index < peer else publics[peer] + own)
        for peer, secret in secrets.items()
    }
