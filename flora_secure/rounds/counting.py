"""The masking protocol's messages by their sizes, with nothing run: what each client sends and receives.

As in a simulation that does run it: everybody of the cohort takes part in the set-up, and who drops out of a round does
so before its upload. Sizes are asked of `flora_protocols`; what is known here is who sends what.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flora_protocols import Floors, Kind, RoundAborted, SessionParams, TooFewSurvivors, Trip, round_bytes
from flora_protocols.keys import PAIR_TAG_BYTES
from flora_protocols.sizes import setup_sizes

_UP = {
    Kind.ADVERTISEMENT: True,
    Kind.ROSTER: False,
    Kind.CIPHERTEXTS: True,
    Kind.DELIVERY: False,
    Kind.SHARES: True,
}  # of a set-up, in order; true: client → server


class Counted(NamedTuple):
    """A message of one kind that each of `positions` sends (`up`) or receives, and how many bytes each has."""

    kind: Kind
    up: bool
    positions: Sequence[int]
    sizes: Sequence[int]


def in_set_up(params: SessionParams) -> Iterator[Counted]:
    """Every message of a session's set-up, trip by trip, but for the inboxes, which go with its rounds."""
    sizes = setup_sizes(params)
    for kind, up in _UP.items():
        if kind in sizes:
            yield Counted(kind, up, range(params.clients), sizes[kind].tolist())


def in_round(
    params: SessionParams, floors: Floors, uploaded: Sequence[int], without_inbox: Collection[int]
) -> Iterator[Counted]:
    """Every message of a round, trip by trip.

    `uploaded`: the positions that stay, ascending. `without_inbox`: those that have not uploaded in this session, and
    are told their inbox with the START. Raises RoundAborted where the round that runs would: after the uploads, with
    nobody announced.
    """
    sizes = {kind: int(size) for kind, size in round_bytes(params).items()}
    told = np.full(params.clients, sizes[Kind.START])
    if without_inbox:
        chosen = list(without_inbox)
        told[chosen] += setup_sizes(params)[Kind.INBOX][chosen]
    yield Counted(Kind.START, False, range(params.clients), told.tolist())
    yield Counted(Kind.UPLOAD, True, uploaded, [sizes[Kind.UPLOAD]] * len(uploaded))
    try:
        _require_enough(params, floors, uploaded)
    except TooFewSurvivors as cause:
        raise RoundAborted(cause, Trip.MASK, (), {}) from cause
    for kind, up in ((Kind.SURVIVORS, False), (Kind.ENDORSEMENT, True), (Kind.AGREEMENT, False)):
        if kind in sizes:
            yield Counted(kind, up, uploaded, [sizes[kind]] * len(uploaded))
    missing = _missing_neighbours(params, uploaded)
    yield Counted(
        Kind.REVEAL, True, uploaded, [sizes[Kind.REVEAL] + PAIR_TAG_BYTES * missing[place] for place in uploaded]
    )


def recovered(params: SessionParams, uploaded: Sequence[int]) -> int:
    """How many dropped clients' pairwise masks would have to be removed: of those with a neighbour that stays."""
    if params.graph.complete:
        return params.clients - len(uploaded)
    alive = params.graph.flags(uploaded)
    return int((~alive & alive[params.graph.neighbourhoods].any(axis=1)).sum())


def _missing_neighbours(params: SessionParams, uploaded: Sequence[int]) -> list[int]:
    """By position, of those that stay, how many of its neighbours do not."""
    gone = params.clients - len(uploaded)
    if params.graph.complete or not gone:
        return [gone] * params.clients
    missing: list[int] = (~params.graph.flags(uploaded))[params.graph.neighbourhoods].sum(axis=1).tolist()
    return missing


def _require_enough(params: SessionParams, floors: Floors, uploaded: Sequence[int]) -> None:
    """TooFewSurvivors below the clients' floor or t, or where a secret that is needed has fewer than t holders left."""
    for least in (floors.survivors, params.threshold):
        if len(uploaded) < least:
            raise TooFewSurvivors("clients that uploaded", len(uploaded), least)
    graph = params.graph
    if graph.complete or len(uploaded) == params.clients:
        return  # every secret has t holders among those who stay
    alive = graph.flags(uploaded)
    needed = alive | alive[graph.neighbourhoods].any(axis=1)
    holders = alive[graph.holdings].sum(axis=1)
    short = np.flatnonzero(needed & (holders < params.threshold))
    if len(short):
        raise TooFewSurvivors(f"holders of client {short[0]}'s shares", int(holders[short[0]]), params.threshold)
