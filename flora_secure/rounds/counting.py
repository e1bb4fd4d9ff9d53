"""The masking protocol's messages of a round by their sizes, with nothing run: what each client sends and receives.

As in a simulation that does run it: everybody of the cohort advertises keys and shares secrets, and who drops out does
so before its upload. Sizes are asked of `flora_protocols.message_bytes`; what is known here is who sends what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flora_protocols import Floors, Kind, RoundAborted, SessionParams, TooFewSurvivors, Trip, message_bytes

# before the uploads, and after them among those whose upload is there; true: client → server
_EARLY = {Kind.ADVERTISEMENT: True, Kind.ROSTER: False, Kind.SHARES: True, Kind.INBOX: False}
_LATE = {Kind.SURVIVORS: False, Kind.ENDORSEMENT: True, Kind.AGREEMENT: False, Kind.REVEAL: True}


class Counted(NamedTuple):
    """A message of one kind that each of `positions` sends (`up`) or receives, of so many bytes each."""

    kind: Kind
    up: bool
    positions: Sequence[int]
    size: int


def messages(params: SessionParams, floors: Floors, uploaded: Sequence[int]) -> Iterator[Counted]:
    """Every message of the round, trip by trip. `uploaded`: the positions that stay, ascending.

    Raises RoundAborted where the round that runs would: after the uploads, with nobody announced.
    """
    sizes = {kind: int(size) for kind, size in message_bytes(params).items()}  # whole, where nobody tells pair keys
    for kind, up in _EARLY.items():
        yield Counted(kind, up, range(params.clients), sizes[kind])
    yield Counted(Kind.UPLOAD, True, uploaded, sizes[Kind.UPLOAD])
    try:
        _require_enough(params, floors, uploaded)
    except TooFewSurvivors as cause:
        raise RoundAborted(cause, Trip.MASK, (), {}) from cause
    for kind, up in _LATE.items():
        if kind in sizes:
            yield Counted(kind, up, uploaded, sizes[kind])


def recovered(params: SessionParams, uploaded: Sequence[int]) -> int:
    """How many dropped clients' pairwise masks would have to be removed: of those with a neighbour that stays."""
    if params.graph.complete:
        return params.clients - len(uploaded)
    alive = params.graph.flags(uploaded)
    return int((~alive & alive[params.graph.neighbourhoods].any(axis=1)).sum())


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
