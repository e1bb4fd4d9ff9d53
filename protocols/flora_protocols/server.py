"""The server's positions while a session is set up, the mirror of the client's.

    ServerAdvertise ─▶ [ServerEncapsulate ─▶] ServerShare ─▶ ServerPrepared

What all positions of a trip do alike is in `server_position`; what the server has then is in `prepared`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flora_protocols import setup_messages
from flora_protocols.codec import Kind, encode_frame
from flora_protocols.deposits import Deposit, Deposits
from flora_protocols.errors import Code, PeerError
from flora_protocols.params import SessionParams, require_params
from flora_protocols.position import transition
from flora_protocols.prepared import ServerPrepared
from flora_protocols.recovery import picked, turned
from flora_protocols.server_position import Outbox, ServerPosition
from flora_protocols.setup_messages import Advertisement, Shares
from flora_protocols.shamir import Raw
from flora_protocols.trips import Trip


class ServerAdvertise(ServerPosition):
    """The position that collects public keys."""

    _trip = Trip.ADVERTISE

    def __init__(self, params: SessionParams) -> None:
        require_params(params).suite.require()
        super().__init__(params, range(params.clients))
        self._entries: dict[int, Advertisement] = {}
        self._kem_keys: dict[int, bytes] = {}
        self._seen: set[bytes] = set()

    def _take(self, client: int, message: bytes) -> None:
        entry, kem_key = setup_messages.decode_advertisement(self._params, message, client)
        publics = {entry.channel, entry.kem_hash} - {b""}
        if not self._seen.isdisjoint(publics):
            raise PeerError(client, "advertises a public key that another client has advertised", Code.BAD_KEY)
        self._seen |= publics
        self._entries[client] = entry
        if kem_key:
            self._kem_keys[client] = kem_key

    @transition
    def close(self) -> tuple[ServerEncapsulate | ServerShare, Outbox]:
        """End the trip; gives the rosters."""
        here, params = self._require("clients that advertised"), self._params
        session, rosters = setup_messages.encode_rosters(params, self._entries, self._kem_keys)
        following = ServerEncapsulate if params.suite.hybrid else ServerShare
        return following(params, session, here), rosters


class ServerEncapsulate(ServerPosition):
    """Relays the KEM's ciphertexts, in the hybrid suite."""

    _trip = Trip.ENCAPSULATE

    def __init__(self, params: SessionParams, session: bytes, there: Sequence[int]) -> None:
        super().__init__(params, there)
        self._session, graph = session, params.graph
        self._to = graph.flags(there)[graph.neighbourhoods] & graph.clockwise
        self._sent: dict[int, Raw] = {}

    def _take(self, client: int, message: bytes) -> None:
        count = int(self._to[client].sum())
        self._sent[client] = setup_messages.decode_ciphertexts(self._params, self._session, message, client, count)

    @transition
    def close(self) -> tuple[ServerShare, Outbox]:
        """End the trip; gives each client the ciphertexts for it."""
        here = self._require("clients that encapsulated")
        outbox = _passed_on(Kind.DELIVERY, self._params, self._session, (self._sent, self._to))
        return ServerShare(self._params, self._session, here), outbox


class ServerShare(ServerPosition):
    """Relays the sealed shares, which it cannot open, and keeps the blobs.

    `there`: who is left, ascending.
    """

    _trip = Trip.SHARE

    def __init__(self, params: SessionParams, session: bytes, there: Sequence[int]) -> None:
        super().__init__(params, there)
        self._session, near = session, params.graph.neighbourhoods
        self._to = params.graph.flags(there)[near] & (near != np.arange(params.clients)[:, None])
        self._sealed_to = self._to & ~params.graph.derives(params.threshold)
        self._sent: dict[int, Shares] = {}

    def _take(self, client: int, message: bytes) -> None:
        counts = (int(to[client].sum()) for to in (self._to, self._sealed_to))
        self._sent[client] = setup_messages.decode_shares(self._params, self._session, message, client, *counts)

    @transition
    def close(self) -> tuple[ServerPrepared, Outbox]:
        """End the set-up; gives the inboxes, which the clients get with the first round."""
        here = self._require("clients that shared")
        sent = {client: self._sent[client] for client in here}
        tags = {client: shares.tags for client, shares in sent.items()}, self._to
        sealed = {client: shares.sealed for client, shares in sent.items()}, self._sealed_to
        inboxes = _passed_on(Kind.INBOX, self._params, self._session, tags, sealed)
        deposits = {client: Deposit(self._to[client], self._sent[client]) for client in here}
        return ServerPrepared(Deposits(self._params, self._session, deposits)), inboxes


def _passed_on(
    kind: Kind, params: SessionParams, session: bytes, *parts: tuple[Mapping[int, Raw], NDArray[np.bool_]]
) -> Outbox:
    """What neighbours have sent, turned around: a message for each who sent too, in which part follows part.

    A part is what each sender has sent, uint8 (recipients, size), and for each client's neighbourhood whether it sent
    it something, (n, k + 1).
    """
    senders = sorted(parts[0][0])
    near = params.graph.neighbourhoods[senders]
    bitmaps = np.packbits(params.graph.flags(senders)[near], axis=1, bitorder="little")
    joined = [[there.tobytes()] for there in bitmaps]
    for sent, to in parts:
        order, first, last = turned(near[to[senders]], senders)
        table = picked([sent[client] for client in senders], order)
        for message, start, stop in zip(joined, first.tolist(), last.tolist(), strict=True):
            message.append(table[start:stop].tobytes())
    return {
        client: encode_frame(kind, params.suite, session, b"".join(message))
        for client, message in zip(senders, joined, strict=True)
    }
