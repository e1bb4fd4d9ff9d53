"""The client's positions (Bonawitz et al. CCS'17, figure 4; Bell et al. CCS'20 for the Harary graph).

    ClientAdvertise ──advertise──▶ ClientShare ──share(roster)──▶ ClientMask ──mask(inbox, vector)──▶
        semi-honest        ClientUnmask ──unmask(survivors)──▶ done
        malicious-server   ClientAgree ──agree(survivors)──▶ ClientUnmask ──unmask(agreement)──▶ done

Each transition takes the server's message and gives the next position and the message to send. What protects the
client is checked here, whatever the server says: its floors, one vector and one answer a session, and never both
secrets of one peer. Nothing is read from the server twice, so nothing can be asked for twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from . import keys, messages
from .errors import MisuseError, ParameterError, PeerError, TooFewSurvivors
from .keystream import apply_masks
from .params import Floors, SessionParams
from .position import Position, transition
from .ring import to_lanes
from .shamir import SHARE, split


@dataclass(frozen=True)
class _Self:
    """Who a client is: its parameters, its index in the roster, its own policy."""

    params: SessionParams
    index: int
    floors: Floors

    @property
    def name(self) -> str:
        return f"client {self.index} of {self.params.clients}, round {self.params.round}"


@dataclass(frozen=True, repr=False)
class _Own:
    """A client's own secrets of the session; each position keeps what later trips need."""

    mask_secret: bytes
    mask_key: X25519PrivateKey


class ClientAdvertise(Position):
    """The first position.

    ``index``: the client's place in the roster, 0 .. n - 1. ``identity``: its Ed25519 secret key of 32 bytes, in the
    malicious-server profile only. Raises MisuseError, or ParameterError if ``params`` fall short of its floors.
    """

    def __init__(
        self, params: SessionParams, index: int, *, floors: Floors | None = None, identity: bytes | None = None
    ) -> None:
        if not isinstance(index, int) or not 0 <= index < params.clients:
            raise MisuseError(f"client index {index!r}; 0 .. {params.clients - 1} are possible")
        self._me = _Self(params, index, floors or Floors())
        super().__init__(self._me.name)
        for name, offered, floor in (
            ("clients", params.clients, self._me.floors.clients),
            ("threshold", params.threshold, self._me.floors.threshold),
        ):
            if offered < floor:
                raise ParameterError(
                    f"{name} is {offered}, below this client's floor of {floor}; it does not take part"
                )
        if params.malicious != (identity is not None):
            raise MisuseError("an identity key is needed in the malicious-server profile, and only there")
        if identity is not None and keys.identity_public(identity) != params.identities[index]:
            raise MisuseError(f"this identity key is not the one that identities[{index}] names")
        self._identity = identity

    @transition
    def advertise(self, randomness: keys.Randomness = os.urandom) -> tuple[ClientShare, bytes]:
        """Make this round's keys. Draws 16 + 32 bytes."""
        params, index = self._me.params, self._me.index
        secret = keys.draw(randomness, keys.SECRET)
        own = _Own(secret, keys.mask_key(secret, params.setup_id, index))
        transport = X25519PrivateKey.from_private_bytes(keys.draw(randomness, keys.KEY))
        mask_public = own.mask_key.public_key().public_bytes_raw()
        transport_public = transport.public_key().public_bytes_raw()
        signature = b""
        if self._identity is not None:
            text = messages.Advertisement.signed_text(params, index, mask_public, transport_public)
            signature = keys.sign(self._identity, keys.ADVERTISEMENT, text)
        advertisement = messages.Advertisement(mask_public, transport_public, signature)
        message = messages.encode_advertisement(params, advertisement)
        return ClientShare(self._me, self._identity, own, transport, advertisement), message


class ClientShare(Position):
    """Has advertised; waits for the roster."""

    def __init__(
        self,
        me: _Self,
        identity: bytes | None,
        own: _Own,
        transport: X25519PrivateKey,
        advertisement: messages.Advertisement,
    ) -> None:
        super().__init__(me.name)
        self._me, self._identity, self._own = me, identity, own
        self._transport, self._advertisement = transport, advertisement

    @transition
    def share(self, roster: bytes, randomness: keys.Randomness = os.urandom) -> tuple[ClientMask, bytes]:
        """Share both secrets among the holders. Draws 16 + 64 (t - 1) bytes (the latter again, once in 2^26 rounds).

        Raises PeerError, or TooFewSurvivors if fewer are present than the client's floor, or fewer holders than t.
        """
        params, index, floors = self._me.params, self._me.index, self._me.floors
        present, entries, session = messages.decode_roster(params, roster, index, self._advertisement)
        if len(present) < floors.clients:
            raise TooFewSurvivors("clients in the roster", len(present), floors.clients)
        holders = tuple(member for member in params.graph.holders(index) if member in entries)
        if len(holders) < params.threshold:
            raise TooFewSurvivors("holders in the roster", len(holders), params.threshold)

        seed = keys.draw(randomness, keys.SECRET)
        points = tuple(holder + 1 for holder in holders)
        rows = split(self._own.mask_secret + seed, points, params.threshold, randomness).tobytes()
        pairs = {
            holder: rows[at : at + 2 * SHARE]
            for holder, at in zip(holders, range(0, len(rows), 2 * SHARE), strict=True)
        }
        held = {index: pairs.pop(index)} if index in pairs else {}
        channels, sealed = {}, []
        for peer, pair in pairs.items():
            shared = keys.exchange(self._transport, entries[peer].transport, peer)
            channels[peer] = keys.Channel(shared, session, *sorted((index, peer)))
            sealed.append(channels[peer].seal(pair, index, peer))
        publics = {peer: entries[peer].mask for peer in pairs}
        position = ClientMask(self._me, self._identity, self._own, session, present, seed, held, channels, publics)
        return position, messages.encode_shares(session, sealed)


class ClientMask(Position):
    """Has shared; waits for its inbox, and for the vector."""

    def __init__(
        self,
        me: _Self,
        identity: bytes | None,
        own: _Own,
        session: bytes,
        present: tuple[int, ...],
        seed: bytes,
        held: dict[int, bytes],
        channels: dict[int, keys.Channel],
        publics: dict[int, bytes],
    ) -> None:
        super().__init__(me.name)
        self._me, self._identity, self._own, self._session, self._present = me, identity, own, session, present
        self._seed, self._held, self._channels, self._publics = seed, held, channels, publics

    @transition
    def mask(self, inbox: bytes, vector: NDArray[np.uint32]) -> tuple[ClientAgree | ClientUnmask, bytes]:
        """Mask ``vector``, uint32 (d,), every element < 2^b (otherwise MisuseError), and pack it.

        Raises PeerError naming the sender whose shares do not open, or TooFewSurvivors if fewer than t holders shared.
        """
        params, index = self._me.params, self._me.index
        values = to_lanes(vector, params.dimension, params.bits)
        sealed = messages.decode_inbox(self._session, inbox, index, params.graph.members(index))
        strangers = sealed.keys() - self._channels.keys()
        if strangers:
            raise PeerError("server", f"the inbox holds shares of {sorted(strangers)}, who are not in the roster")
        held = dict(self._held)
        for peer, box in sealed.items():
            held[peer] = self._channels[peer].open(box, peer, index)
        if len(held) < params.threshold:
            raise TooFewSurvivors("holders that shared", len(held), params.threshold)

        plus = [keys.derive(self._seed, keys.SELF_MASK, self._session, index, index)]
        minus: list[bytes] = []
        for peer in sealed:
            low, high = (index, peer) if index < peer else (peer, index)
            shared = keys.exchange(self._own.mask_key, self._publics[peer], peer)
            key = keys.derive(shared, keys.PAIR_MASK, self._session, low, high)
            (plus if index < peer else minus).append(key)
        apply_masks(values, plus, minus)
        message = messages.encode_upload(params, self._session, values)
        if self._identity is None:
            return ClientUnmask(self._me, self._session, self._present, held, None), message
        return ClientAgree(self._me, self._identity, self._session, self._present, held), message


class ClientAgree(Position):
    """Has uploaded, in the malicious-server profile; waits for the survivors."""

    def __init__(
        self, me: _Self, identity: bytes, session: bytes, present: tuple[int, ...], held: dict[int, bytes]
    ) -> None:
        super().__init__(me.name)
        self._me, self._identity, self._session, self._present, self._held = me, identity, session, present, held

    @transition
    def agree(self, survivors: bytes) -> tuple[ClientUnmask, bytes]:
        """Sign the survivors that the server told. Raises PeerError or TooFewSurvivors as ``ClientUnmask.unmask``."""
        params = self._me.params
        told = messages.decode_survivors(params, self._session, survivors)
        _check_survivors(self._me, told, self._present, self._held)
        text = messages.endorsed_text(params, self._session, told)
        message = messages.encode_endorsement(self._session, keys.sign(self._identity, keys.SURVIVORS, text))
        return ClientUnmask(self._me, self._session, self._present, self._held, told), message


class ClientUnmask(Position):
    """Has uploaded (and agreed on the survivors, in the malicious-server profile); reveals one share per peer."""

    def __init__(
        self,
        me: _Self,
        session: bytes,
        present: tuple[int, ...],
        held: dict[int, bytes],
        agreed: tuple[int, ...] | None,
    ) -> None:
        super().__init__(me.name)
        self._me, self._session, self._present, self._held, self._agreed = me, session, present, held, agreed

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
        return ClientDone(self._me.name), messages.encode_reveal(self._session, shares)


class ClientDone(Position):
    """Has answered. Nothing is left to do, and nothing is left to tell."""


def _check_survivors(me: _Self, told: tuple[int, ...], present: tuple[int, ...], held: dict[int, bytes]) -> None:
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
