"""The server's positions, the mirror of the client's.

    ServerAdvertise ─▶ ServerShare ─▶ ServerMask ─▶ [ServerAgree ─▶] ServerUnmask ─▶ RoundResult

`receive(client, message)` takes one client's message; the transport knows which client that is. `close()` ends
the trip whenever the caller decides so: whoever has not been received by then has dropped. It gives the next position
and the message for each client that is still in. Uploads are added up as they arrive: memory is O(n·k + d).

A message that `receive` refuses (PeerError) leaves the position unchanged. `close` raises TooFewSurvivors, also
leaving it unchanged, when the round cannot be finished by those who are left.

Threads may share a position: `receive` takes one message after another, and `close` waits for the one that is being
taken. What comes while it closes waits, too: it is refused if the trip has ended, and taken if `close` has raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from flora_protocols import keys, messages
from flora_protocols.errors import Code, MisuseError, PeerError, ProtocolError, TooFewSurvivors, UnsoundShares
from flora_protocols.keystream import apply_masks
from flora_protocols.masked import Masked
from flora_protocols.params import SessionParams, require_params
from flora_protocols.position import Position, fresh, transition
from flora_protocols.ranges import integer, shown
from flora_protocols.recovery import picked, recover, tellable, turned
from flora_protocols.ring import from_lanes, lane
from flora_protocols.shamir import Raw
from flora_protocols.trips import Trip

Outbox = dict[int, bytes]
"""The message for each client, by index."""


@dataclass(frozen=True)
class RoundResult:
    """A round's outcome.

    `sum`: uint32 (d,), the survivors' vectors added up mod 2^b. `survivors`: whose vectors are in it. `dropped`:
    everybody else in the cohort. `recovered`: the dropped whose pairwise masks had to be taken out of the sum.
    `refused`: whose message was refused, and why (from `conduct`); one whose upload came before is a survivor all
    the same. `left`: who left on its own account, and why (from `run_round`, which runs the clients, too).
    """

    sum: NDArray[np.uint32]
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    recovered: tuple[int, ...]
    refused: Mapping[int, PeerError] = field(default_factory=dict)
    left: Mapping[int, ProtocolError] = field(default_factory=dict)


class _Server(Position):
    """What all of the server's positions do alike: whom they hear, and that they hear everyone once."""

    _trip: Trip

    def __init__(self, params: SessionParams, expected: Iterable[int]) -> None:
        super().__init__(f"of {params.clients} clients, round {params.round}")
        self._params = params
        self._expected = frozenset(expected)
        self._heard: set[int] = set()

    @property
    def trip(self) -> Trip:
        """The trip that this position hears, spent or not."""
        return self._trip

    @property
    def heard(self) -> frozenset[int]:
        """The clients received so far in this trip (none once the position is spent)."""
        return frozenset(vars(self).get("_heard", ()))

    @fresh
    def receive(self, client: int, message: bytes) -> None:
        """Take `message` of `client`. Raises PeerError naming the client, MisuseError for an impossible index."""
        client = integer("client index", client)
        if not 0 <= client < self._params.clients:
            raise MisuseError(f"client index {shown(client)}; 0 .. {self._params.clients - 1} are possible")
        if client in self._heard:
            raise PeerError(client, f"sent a second message in trip {self._trip.name}", Code.SECOND_MESSAGE)
        if client not in self._expected:
            raise PeerError(client, f"is not in trip {self._trip.name}: it dropped before", Code.STRANGER)
        self._take(client, message)
        self._heard.add(client)

    def _take(self, client: int, message: bytes) -> None:
        raise NotImplementedError

    def _require(self, what: str) -> tuple[int, ...]:
        """Everyone heard, ascending; TooFewSurvivors if they are fewer than t."""
        if len(self._heard) < self._params.threshold:
            raise TooFewSurvivors(what, len(self._heard), self._params.threshold)
        return tuple(sorted(self._heard))


class ServerAdvertise(_Server):
    """The position that collects public keys."""

    _trip = Trip.ADVERTISE

    def __init__(self, params: SessionParams) -> None:
        super().__init__(require_params(params), range(params.clients))
        self._entries: dict[int, messages.Advertisement] = {}
        self._seen: set[bytes] = set()

    def _take(self, client: int, message: bytes) -> None:
        entry = messages.decode_advertisement(self._params, message, client)
        if not self._seen.isdisjoint(entry[:2]):
            raise PeerError(client, "advertises a public key that another client has advertised", Code.BAD_KEY)
        self._seen.update(entry[:2])
        self._entries[client] = entry

    @transition
    def close(self) -> tuple[ServerShare, Outbox]:
        """End the trip; gives the rosters."""
        self._require("clients that advertised")
        session, rosters = messages.encode_rosters(self._params, self._entries)
        return ServerShare(self._params, session, self._entries), rosters


class ServerShare(_Server):
    """Relays the sealed shares, which it cannot open."""

    _trip = Trip.SHARE

    def __init__(self, params: SessionParams, session: bytes, entries: Mapping[int, messages.Advertisement]) -> None:
        super().__init__(params, entries)
        self._session, self._entries = session, entries
        self._advertised = params.graph.flags(entries)
        self._recipients = (self._advertised[params.graph.neighbourhoods].sum(axis=1) - 1).tolist()  # how many
        self._sealed: dict[int, Raw] = {}

    def _take(self, client: int, message: bytes) -> None:
        self._sealed[client] = messages.decode_shares(self._session, message, client, self._recipients[client])

    @transition
    def close(self) -> tuple[ServerMask, Outbox]:
        """End the trip; gives the inboxes."""
        shared = self._require("clients that shared")
        near = self._params.graph.neighbourhoods[list(shared)]
        recipients = near[self._advertised[near] & (near != np.array(shared)[:, None])]
        order, first, last = turned(recipients, shared)
        sealed = picked([self._sealed[client] for client in shared], order)
        bitmaps = np.packbits(self._params.graph.flags(shared)[near], axis=1, bitorder="little")
        outbox = {}
        for client, there, start, stop in zip(shared, bitmaps, first.tolist(), last.tolist(), strict=True):
            outbox[client] = messages.encode_inbox(self._session, there.tobytes(), sealed[start:stop].tobytes())
        publics = {client: self._entries[client].mask for client in shared}
        return ServerMask(self._params, self._session, publics), outbox


class ServerMask(_Server):
    """Adds up the masked vectors as they arrive."""

    _trip = Trip.MASK

    def __init__(self, params: SessionParams, session: bytes, publics: Mapping[int, bytes]) -> None:
        super().__init__(params, publics)
        self._session, self._publics = session, publics
        self._sum = np.zeros(params.dimension, lane(params.bits))

    def _take(self, client: int, message: bytes) -> None:
        self._sum += messages.decode_upload(self._params, self._session, message, client)

    @transition
    def close(self) -> tuple[ServerAgree | ServerUnmask, Outbox]:
        """End the trip; gives the survivors."""
        survivors = self._require("clients that uploaded")
        state = Masked(self._params, self._session, self._publics, survivors, self._sum)
        state.needed(survivors)
        told = messages.encode_survivors(self._params, self._session, survivors)
        following = ServerAgree(state) if self._params.malicious else ServerUnmask(state, survivors)
        return following, dict.fromkeys(survivors, told)


class ServerAgree(_Server):
    """Collects signatures over the survivors (malicious-server profile)."""

    _trip = Trip.AGREE

    def __init__(self, state: Masked) -> None:
        super().__init__(state.params, state.survivors)
        self._state = state
        self._text = messages.endorsed_text(state.params, state.session, state.survivors)
        self._signatures: dict[int, bytes] = {}

    def _take(self, client: int, message: bytes) -> None:
        self._signatures[client] = messages.decode_endorsement(
            self._params, self._state.session, message, client, self._text
        )

    @transition
    def close(self) -> tuple[ServerUnmask, Outbox]:
        """End the trip; gives each client t signatures, its own counted where it holds shares of itself."""
        signed = self._require("clients that signed")
        params, outbox = self._params, {}
        for client in signed:
            members = params.graph.members(client)
            need = params.threshold - (client in params.graph.holders(client))
            signers = [member for member in members if member != client and member in self._signatures][:need]
            if len(signers) == need:
                chosen = {signer: self._signatures[signer] for signer in signers}
                outbox[client] = messages.encode_agreement(self._state.session, members, chosen)
        self._state.needed(outbox)
        return ServerUnmask(self._state, outbox), outbox


class ServerUnmask(_Server):
    """Collects shares (and pair keys, with direct reveal), reconstructs the secrets it needs, removes the masks."""

    _trip = Trip.UNMASK

    def __init__(self, state: Masked, expected: Iterable[int]) -> None:
        super().__init__(state.params, expected)
        self._state = state
        self._shares: dict[int, Raw] = {}
        self._pair_keys: dict[int, dict[int, bytes]] = {}

    def _take(self, client: int, message: bytes) -> None:
        state = self._state
        direct = state.dropped_owners(client) if self._params.direct_reveal else []
        self._shares[client], self._pair_keys[client] = messages.decode_reveal(
            state.session, message, client, state.held[client], direct
        )

    @fresh
    def set_aside(self, client: int) -> None:
        """Forget what `client` revealed, as if it had dropped; whatever else it sends is refused.

        For those that `close` has found out. MisuseError if it has not been heard.
        """
        if client not in self._heard:
            raise MisuseError(f"client {shown(client)} has revealed nothing that could be set aside")
        self._heard.remove(client)
        self._expected -= {client}
        del self._shares[client], self._pair_keys[client]

    @transition
    def close(self) -> RoundResult:
        """End the round. Raises TooFewSurvivors, WrongShares naming all holders found to have revealed wrong ones (see
        `recovery`), which may be set aside, PeerError naming an owner that shared another secret than its key's, or
        UnsoundShares where nobody can be named."""
        state, params = self._state, self._params
        revealed = self._require("clients that revealed shares")
        owned = params.graph.holdings[list(revealed)]
        shares = {holder: self._shares[holder] for holder in revealed}
        secrets = recover(state.needed(revealed), shares, owned[state.shared[owned]], params.threshold, params.corrupt)
        gone = np.flatnonzero(state.shared & ~state.alive).tolist()
        recovered = tuple(owner for owner in gone if state.near_survivors(owner))
        plus: list[bytes] = []
        minus = [keys.derive(secrets[owner], keys.SELF_MASK, state.session, owner, owner) for owner in state.survivors]
        for owner in recovered:
            private = self._mask_key(owner, secrets[owner]) if owner in secrets else None
            for survivor in state.near_survivors(owner):
                key = self._pair_keys.get(survivor, {}).get(owner)
                if key is None:
                    assert private is not None  # `needed` asks for it where a survivor has not told the key
                    key = keys.pair_key(private, state.publics[survivor], state.session, owner, survivor)
                # What the survivor added (if its index is the lower) is taken off, what it subtracted is put back.
                (minus if survivor < owner else plus).append(key)
        total = state.sum.copy()
        apply_masks(total, plus, minus)
        dropped = tuple(np.flatnonzero(~state.alive).tolist())
        return RoundResult(from_lanes(total, params.bits), state.survivors, dropped, recovered)

    def _mask_key(self, owner: int, secret: bytes) -> X25519PrivateKey:
        private = keys.mask_key(secret, self._params.setup_id, owner)
        if private.public_key().public_bytes_raw() != self._state.publics[owner]:
            params, holders = self._params, self._params.graph.holders(owner)
            revealed = sum(holder in self._heard for holder in holders)
            if not tellable(revealed, params.threshold, params.corrupt):
                raise UnsoundShares(owner, "do not give the mask key that it advertised", revealed)
            reason = "shared a secret that does not belong to the mask key it advertised"
            raise PeerError(owner, reason, Code.BAD_SHARE)
        return private
