"""How many bytes a session takes, without running it (SPEC.md, sections 5 and 8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flora_protocols import keys
from flora_protocols.codec import OVERHEAD, Kind
from flora_protocols.params import SessionParams
from flora_protocols.round_params import start_bytes
from flora_protocols.setup_messages import entry_bytes, sealed_bytes, shares_bytes
from flora_protocols.shamir import SHARE
from flora_protocols.suites import CIPHERTEXT, KEM_KEY


def setup_bytes(params: SessionParams) -> dict[Kind, float]:
    """Bytes of one client's message of each kind while a session is set up, frame included, where everybody takes part.

    CIPHERTEXTS and DELIVERY are there in the hybrid suite only. Means over the clients: where n is even and the graph
    complete, half of them encapsulate to one more; and how many of an INBOX's boxes seal something depends on the
    graph.
    """
    k, everybody = params.neighbours, (params.clients + 7) // 8
    near, hybrid = (k + 1 + 7) // 8, params.suite.hybrid
    claimed, derivers = 0 if params.graph.complete else 32, params.threshold - 1
    kem = KEM_KEY * k / 2 if hybrid else 0
    bodies: dict[Kind, float] = {
        Kind.ADVERTISEMENT: keys.KEY + KEM_KEY * hybrid + keys.SIGNATURE * params.malicious,
        Kind.ROSTER: everybody + claimed + entry_bytes(params) * (k + 1) + kem,
        Kind.SHARES: shares_bytes(params, k, k - derivers),
        Kind.INBOX: near + keys.TAG * k + sealed_bytes(params) * (k - derivers),
    }
    if hybrid:
        bodies[Kind.CIPHERTEXTS] = CIPHERTEXT * k / 2
        bodies[Kind.DELIVERY] = near + CIPHERTEXT * k / 2
    return {kind: OVERHEAD + size for kind, size in bodies.items()}


def setup_sizes(params: SessionParams) -> dict[Kind, NDArray[np.int64]]:
    """The figures of `setup_bytes` for each client, int64 (n,): for a simulation that counts and does not run."""
    n, t, graph = params.clients, params.threshold, params.graph
    everybody = np.arange(n)
    if graph.complete:
        made = (n - 1) // 2 + ((n % 2 == 0) & (everybody < n // 2))
        derived = np.select([everybody < t - 1, everybody == t - 1], [n - 1, t - 1], 0)
    else:
        made = graph.clockwise.sum(axis=1)
        derived = np.bincount(graph.neighbourhoods[graph.derives(t)], minlength=n)
    sizes = {kind: np.full(n, int(size), np.int64) for kind, size in setup_bytes(params).items()}
    if params.suite.hybrid:
        unmade = params.neighbours - made
        sizes[Kind.ROSTER] = (params.clients + 7) // 8 + 32 * (not graph.complete) + KEM_KEY * made + OVERHEAD
        sizes[Kind.ROSTER] += entry_bytes(params) * (params.neighbours + 1)
        sizes[Kind.CIPHERTEXTS] = OVERHEAD + CIPHERTEXT * made
        sizes[Kind.DELIVERY] = OVERHEAD + (params.neighbours + 8) // 8 + CIPHERTEXT * unmade
    boxes = keys.TAG * params.neighbours + sealed_bytes(params) * (params.neighbours - derived)
    sizes[Kind.INBOX] = OVERHEAD + (params.neighbours + 8) // 8 + boxes
    return sizes


def round_bytes(params: SessionParams, dropped_neighbours: float = 0) -> dict[Kind, float]:
    """Bytes of one client's message of each kind in a round, frame included, where everybody is invited.

    `dropped_neighbours`: how many of a client's neighbours upload nothing (on average, where it is no integer).
    ENDORSEMENT and AGREEMENT are there in the malicious-server profile only.
    """
    k, everybody = params.neighbours, (params.clients + 7) // 8
    near = (k + 1 + 7) // 8
    bodies: dict[Kind, float] = {
        Kind.START: start_bytes(params) - OVERHEAD,
        Kind.UPLOAD: params.payload_bytes + near,
        Kind.SURVIVORS: everybody,
        Kind.REVEAL: SHARE * params.holders + keys.PAIR_TAG_BYTES * dropped_neighbours,
    }
    if params.malicious:
        bodies[Kind.ENDORSEMENT] = keys.SIGNATURE
        bodies[Kind.AGREEMENT] = near + keys.SIGNATURE * (params.threshold - params.graph.complete)
    return {kind: OVERHEAD + size for kind, size in bodies.items()}


def most_bytes(params: SessionParams) -> int:
    """No message of the session is longer, whoever drops out: what a reader needs to buffer at most. A START counts
    together with the inbox that may follow it."""
    k, hybrid = params.neighbours, params.suite.hybrid
    sizes = {**setup_bytes(params), **round_bytes(params, k)}
    sizes[Kind.START] += sizes[Kind.INBOX] + sealed_bytes(params) * min(k, params.threshold - 1)
    # whom a client encapsulates to are (k + 1) / 2 at most, and a server may hand on the signatures of all
    more = (KEM_KEY if hybrid else 0) + keys.SIGNATURE * k * params.malicious
    return int(max(sizes.values())) + more
