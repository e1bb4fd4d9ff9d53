"""The server's positions in a round of a session that is set up.

    ServerPrepared ──begin(round)──▶ ServerMask ─▶ [ServerAgree ─▶] ServerUnmask ─▶ RoundResult

Uploads are added up as they arrive. Nothing here agrees on a key: what takes the masks off comes from the clients'
shares, and from the blobs that they left when the session was set up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flora_protocols import keys, round_messages
from flora_protocols.deposits import Deposits
from flora_protocols.errors import Code, MisuseError, PeerError, ProtocolError, UnsoundShares
from flora_protocols.keystream import apply_masks
from flora_protocols.masked import Masked
from flora_protocols.position import fresh, transition
from flora_protocols.ranges import shown
from flora_protocols.recovery import recover, tellable
from flora_protocols.ring import from_lanes, lane
from flora_protocols.round_params import RoundParams
from flora_protocols.server_position import Outbox, ServerPosition
from flora_protocols.shamir import Raw
from flora_protocols.slots import blob_stream
from flora_protocols.trips import Trip


@dataclass(frozen=True)
class RoundResult:
    """A round's outcome.

    `sum`: uint32 (d,), the survivors' vectors added up mod 2^b. `survivors`: whose vectors are in it. `dropped`:
    everybody else who was invited. `recovered`: the dropped whose pairwise masks had to be taken out of the sum.
    `refused`: whose message was refused, or whose shares turned out not to open, and why (from `conduct`); one whose
    upload came before is a survivor all the same. `left`: who left on its own account, and why (from `run_round`,
    which runs the clients, too).
    """

    sum: NDArray[np.uint32]
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    recovered: tuple[int, ...]
    refused: Mapping[int, PeerError] = field(default_factory=dict)
    left: Mapping[int, ProtocolError] = field(default_factory=dict)


class ServerMask(ServerPosition):
    """Adds up the masked vectors as they arrive."""

    _trip = Trip.MASK

    def __init__(self, deposits: Deposits, round: RoundParams) -> None:
        super().__init__(deposits.params, round.invited)
        self._invited = tuple(round.invited)
        self._deposits, self._slot = deposits, round.slot
        self._scope = round.id(deposits.params, deposits.session)
        self._sum = np.zeros(deposits.params.dimension, lane(deposits.params.bits))

    def _take(self, client: int, message: bytes) -> None:
        values, unopened = round_messages.decode_upload(self._params, self._scope, message, client)
        strangers = [owner for owner in unopened if owner == client or owner not in self._deposits]
        if strangers:
            reason = f"complains of the shares of {strangers}, who sent it none"
            raise PeerError(client, reason, Code.BAD_BODY)
        self._sum += values
        self._deposits.uploaded(client, frozenset(unopened))

    @transition
    def close(self) -> tuple[ServerAgree | ServerUnmask, Outbox]:
        """End the trip; gives the survivors.

        Raises TooFewSurvivors, or UnsoundShares where two of them have complained of each other.
        """
        survivors = self._require("clients that uploaded")
        params, scope, deposits = self._params, self._scope, self._deposits
        state = Masked(params, scope, self._invited, dict(deposits.complaints), survivors, self._sum)
        state.needed(survivors)
        self._require_channels(survivors)
        told = round_messages.encode_survivors(params, scope, survivors)
        following = (ServerAgree if params.malicious else ServerUnmask)(state, deposits, self._slot, survivors)
        return following, dict.fromkeys(survivors, told)

    def _require_channels(self, survivors: tuple[int, ...]) -> None:
        """UnsoundShares where two survivors have complained of each other: they do not agree on their channel, so their
        masks do not cancel, and the sum would be noise."""
        there = frozenset(survivors)
        for first, second in self._deposits.estranged:
            if first in there and second in there:
                text = f"clients {first} and {second} open nothing of each other, and their masks would not cancel"
                raise UnsoundShares(first, text)


class _AfterMask(ServerPosition):
    """A position that knows the masked sum."""

    def __init__(self, state: Masked, deposits: Deposits, slot: int, expected: Iterable[int]) -> None:
        super().__init__(state.params, expected)
        self._state, self._deposits, self._slot = state, deposits, slot


class ServerAgree(_AfterMask):
    """Collects signatures over the survivors (malicious-server profile)."""

    _trip = Trip.AGREE

    def __init__(self, state: Masked, deposits: Deposits, slot: int, expected: Iterable[int]) -> None:
        super().__init__(state, deposits, slot, expected)
        self._text = round_messages.endorsed_text(state.params, state.scope, state.survivors)
        self._signatures: dict[int, bytes] = {}

    def _take(self, client: int, message: bytes) -> None:
        self._signatures[client] = round_messages.decode_endorsement(
            self._params, self._state.scope, message, client, self._text
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
                outbox[client] = round_messages.encode_agreement(params, self._state.scope, members, chosen)
        self._state.needed(outbox)
        return ServerUnmask(self._state, self._deposits, self._slot, outbox), outbox


class ServerUnmask(_AfterMask):
    """Collects shares, reconstructs the secrets it needs, opens the blobs of those that dropped, removes the masks."""

    _trip = Trip.UNMASK

    def __init__(self, state: Masked, deposits: Deposits, slot: int, expected: Iterable[int]) -> None:
        super().__init__(state, deposits, slot, expected)
        holders = sorted(self._expected)
        self._holdings = dict(zip(holders, state.holdings(holders), strict=True))
        self._gone = dict(zip(holders, state.gone_near(holders), strict=True))
        self._shares: dict[int, Raw] = {}
        self._tags: dict[int, dict[int, bytes]] = {}

    def _take(self, client: int, message: bytes) -> None:
        gone, owners = self._gone[client], self._holdings[client]
        self._shares[client], tags = round_messages.decode_reveal(
            self._params, self._state.scope, message, client, owners, len(gone)
        )
        self._tags[client] = dict(zip(gone, tags, strict=True))

    @fresh
    def set_aside(self, client: int) -> None:
        """Forget what `client` revealed, as if it had dropped; whatever else it sends is refused.

        For those that `close` has found out. MisuseError if it has not been heard.
        """
        if client not in self._heard:
            raise MisuseError(f"client {shown(client)} has revealed nothing that could be set aside")
        self._heard.remove(client)
        self._expected -= {client}
        del self._shares[client], self._tags[client]

    @transition
    def close(self) -> RoundResult:
        """End the round. Raises TooFewSurvivors, WrongShares naming all holders found to have revealed wrong ones (see
        `recovery`), which may be set aside, PeerError naming an owner whose secret is not the one that it committed to,
        or whose blob does not hold the keys that it masked with, or UnsoundShares where nobody can be named."""
        state, params = self._state, self._params
        revealed = self._require("clients that revealed shares")
        shares = {holder: self._shares[holder] for holder in revealed}
        needed = state.needed(revealed)
        secrets = recover(needed, shares, state.owners(revealed), params.threshold, params.corrupt)
        plus: list[bytes] = []
        minus = []
        for owner in state.survivors:
            self._check_seed(owner, secrets[owner])
            minus.append(keys.derive(secrets[owner], keys.SELF_MASK, state.scope, owner, owner))
        recovered = tuple(owner for owner in state.gone if owner in secrets)
        for owner in recovered:
            for survivor, key in self._pair_masks(owner, secrets[owner]).items():
                # What the survivor added (if its index is the lower) is taken off, what it subtracted is put back.
                (minus if survivor < owner else plus).append(key)
        total = state.sum.copy()
        apply_masks(total, plus, minus)
        dropped = tuple(client for client in state.invited if not state.alive[client])
        return RoundResult(from_lanes(total, params.bits), state.survivors, dropped, recovered)

    def _check_seed(self, owner: int, seed: bytes) -> None:
        committed = self._deposits.of(owner).commitments[self._slot].tobytes()
        if keys.commitment(seed, self._deposits.session, owner, self._slot) != committed:
            self._blame(owner, "the seed that it committed to")

    def _pair_masks(self, owner: int, opener: bytes) -> dict[int, bytes]:
        """The keys of the masks between `owner`, which dropped, and its surviving neighbours; they are in its blob."""
        state, deposit = self._state, self._deposits.of(owner)
        peers = self._params.graph.neighbourhoods[owner][deposit.recipients]
        stream = blob_stream(opener, self._deposits.session, owner, self._slot, len(peers))
        raw, size = (deposit.blobs[self._slot] ^ stream).tobytes(), keys.SECRET
        places, scope, revealed_tags = np.flatnonzero(state.alive[peers]).tolist(), state.scope, self._tags
        masks, wrong = {}, []
        for place, survivor in zip(places, peers[places].tolist(), strict=True):
            mask = keys.pair_mask(raw[size * place : size * (place + 1)], scope, owner, survivor)
            tags = revealed_tags.get(survivor)
            if tags is not None and tags[owner] != keys.pair_tag(mask):
                wrong.append(survivor)
            masks[survivor] = mask
        if wrong:
            revealed, params = self._revealed(owner), self._params
            # Under an opener that holders have forged, all tags are wrong: it must be beyond doubt, too.
            if len(wrong) > max(params.corrupt, 1) and tellable(revealed, params.threshold, params.corrupt):
                reason = f"left other keys than it masked with, say {len(wrong)} of its neighbours"
                raise PeerError(owner, reason, Code.BAD_SHARE)
            what = f"open a blob without the key of the mask with client {wrong[0]}, or so that one says"
            raise UnsoundShares.revealed(owner, what, revealed)
        return masks

    def _blame(self, owner: int, what: str) -> None:
        revealed, params = self._revealed(owner), self._params
        if not tellable(revealed, params.threshold, params.corrupt):
            raise UnsoundShares.revealed(owner, f"do not give {what}", revealed)
        raise PeerError(owner, f"shared a secret that is not {what}", Code.BAD_SHARE)

    def _revealed(self, owner: int) -> int:
        """How many have revealed a share of its secret."""
        holders = [holder for holder in self._params.graph.holders(owner) if holder in self._heard]
        return sum(owner not in self._state.complaints.get(holder, ()) for holder in holders)
