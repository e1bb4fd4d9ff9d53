"""The server's positions while a session is set up, the mirror of the client's.

    ServerAdvertise ─▶ [ServerEncapsulate ─▶] ServerShare ─▶ ServerPrepared

What all positions of a trip do alike is in `server_position`; what the server has then is in `prepared`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flora_protocols import setup_messages
from flora_protocols.codec import Kind
from flora_protocols.errors import Code, PeerError
from flora_protocols.params import SessionParams, require_params
from flora_protocols.position import transition
from flora_protocols.prepared import Deposit, ServerPrepared
from flora_protocols.recovery import picked, turned
from flora_protocols.server_position import Outbox, ServerPosition
from flora_protocols.setup_messages import Advertisement, Shares
from flora_protocols.shamir import Raw
from flora_protocols.slots import heard_after
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
        heard = {client: heard_after(b"", roster) for client, roster in rosters.items()}
        if params.suite.hybrid:
            return ServerEncapsulate(params, session, heard), rosters
        return ServerShare(params, session, params.graph.flags(here), heard), rosters


class ServerEncapsulate(ServerPosition):
    """Relays the KEM's ciphertexts, in the hybrid suite."""

    _trip = Trip.ENCAPSULATE

    def __init__(self, params: SessionParams, session: bytes, heard: Mapping[int, bytes]) -> None:
        super().__init__(params, heard)
        self._session, self._heard_before = session, heard
        graph = params.graph
        self._to = graph.flags(heard)[graph.neighbourhoods] & graph.clockwise
        self._sent: dict[int, Raw] = {}

    def _take(self, client: int, message: bytes) -> None:
        count = int(self._to[client].sum())
        self._sent[client] = setup_messages.decode_ciphertexts(self._params, self._session, message, client, count)

    @transition
    def close(self) -> tuple[ServerShare, Outbox]:
        """End the trip; gives each client the ciphertexts for it."""
        here = self._require("clients that encapsulated")
        outbox = _passed_on(Kind.DELIVERY, self._params, self._session, self._sent, self._to)
        heard = {client: heard_after(self._heard_before[client], told) for client, told in outbox.items()}
        return ServerShare(self._params, self._session, self._params.graph.flags(here), heard), outbox


class ServerShare(ServerPosition):
    """Relays the sealed shares, which it cannot open, and keeps the blobs.

    `there`: for every client whether it is left. `heard`: digest of what each has been told.
    """

    _trip = Trip.SHARE

    def __init__(
        self, params: SessionParams, session: bytes, there: NDArray[np.bool_], heard: Mapping[int, bytes]
    ) -> None:
        super().__init__(params, heard)
        near = params.graph.neighbourhoods
        self._session, self._digests = session, heard
        self._to = there[near] & (near != np.arange(params.clients)[:, None])
        self._sent: dict[int, Shares] = {}

    def _take(self, client: int, message: bytes) -> None:
        count = int(self._to[client].sum())
        self._sent[client] = setup_messages.decode_shares(self._params, self._session, message, client, count)

    @transition
    def close(self) -> tuple[ServerPrepared, Outbox]:
        """End the set-up; gives the inboxes, which the clients get with the first round."""
        here = self._require("clients that shared")
        boxes = {client: self._sent[client].boxes for client in here}
        inboxes = _passed_on(Kind.INBOX, self._params, self._session, boxes, self._to)
        deposits = {client: Deposit(self._digests[client], self._to[client], self._sent[client]) for client in here}
        return ServerPrepared(self._params, self._session, deposits), inboxes


def _passed_on(
    kind: Kind, params: SessionParams, session: bytes, sent: Mapping[int, Raw], to: NDArray[np.bool_]
) -> Outbox:
    """What neighbours have `sent`, uint8 (recipients, size) by sender, turned around: a message for each who sent too.

    `to`: for each client's neighbourhood whether it sent it something, (n, k + 1).
    """
    senders = sorted(sent)
    near = params.graph.neighbourhoods[senders]
    order, first, last = turned(near[to[senders]], senders)
    table = picked([sent[client] for client in senders], order)
    bitmaps = np.packbits(params.graph.flags(senders)[near], axis=1, bitorder="little")
    outbox = {}
    for client, there, start, stop in zip(senders, bitmaps, first.tolist(), last.tolist(), strict=True):
        joined = table[start:stop].tobytes()
        outbox[client] = setup_messages.encode_passed_on(kind, params, session, there.tobytes(), joined)
    return outbox
