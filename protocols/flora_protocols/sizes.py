"""How many bytes a round takes, without running it (SPEC.md, sections 5 and 8)."""

from __future__ import annotations

from flora_protocols import keys
from flora_protocols.codec import OVERHEAD, Kind
from flora_protocols.messages import SEALED
from flora_protocols.params import SessionParams
from flora_protocols.shamir import SHARE


def message_bytes(params: SessionParams, dropped_neighbours: float = 0) -> dict[Kind, float]:
    """Bytes of one client's message of each kind, frame included, in a round where everybody advertises and shares.

    `dropped_neighbours`: how many of a client's neighbours upload nothing (on average, where it is no integer);
    they matter under direct reveal only. ENDORSEMENT and AGREEMENT are there in the malicious-server profile only.
    """
    k, everybody = params.neighbours, (params.clients + 7) // 8
    near = (k + 1 + 7) // 8
    entry = 2 * keys.KEY + (keys.SIGNATURE if params.malicious else 0)
    claimed = 0 if params.graph.complete else 32
    bodies: dict[Kind, float] = {
        Kind.ADVERTISEMENT: entry,
        Kind.ROSTER: everybody + claimed + entry * (k + 1),
        Kind.SHARES: SEALED * k,
        Kind.INBOX: near + SEALED * k,
        Kind.UPLOAD: params.payload_bytes,
        Kind.SURVIVORS: everybody,
        Kind.REVEAL: SHARE * params.holders + (keys.KEY * dropped_neighbours if params.direct_reveal else 0),
    }
    if params.malicious:
        bodies[Kind.ENDORSEMENT] = keys.SIGNATURE
        bodies[Kind.AGREEMENT] = near + keys.SIGNATURE * (params.threshold - params.graph.complete)
    return {kind: OVERHEAD + size for kind, size in bodies.items()}
