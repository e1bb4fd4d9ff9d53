"""Secrets from the shares that the survivors reveal: of all clients at once, and who is at fault where one is wrong.

A survivor's self-mask seed and a dropped client's mask secret are shared alike. Clients whose shares the same holders
have revealed are reconstructed with one matrix; such groups of one shape in one batch (see shamir).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from .errors import PeerError
from .shamir import Raw, combine

_Group = tuple[tuple[int, ...], list[int]]  # holders, and the owners whose shares exactly these have revealed
_BATCH = 1 << 18  # elements of the Lagrange matrices in memory at once


def recover(
    needed: Mapping[int, tuple[int, ...]],
    shares: Mapping[int, Raw],
    owned_by: Callable[[int], Sequence[int]],
    threshold: int,
) -> dict[int, bytes]:
    """The 16-byte secret of each client in ``needed``, which gives the holders that revealed a share of it.

    ``shares``: by holder, uint8 (len(owned_by(holder)), 17), canonical. Raises PeerError naming whose share is wrong.
    """
    table = np.concatenate(list(shares.values()))
    first, places = _places(shares, owned_by)
    secrets: dict[int, bytes] = {}
    for batch in _batches(needed, threshold):
        points = np.array([holders for holders, _ in batch], np.int64) + 1
        at = [
            [[first[holder] + places[holder][owner] for holder in holders] for owner in owners]
            for holders, owners in batch
        ]
        revealed = table[np.array(at)]
        found, sound = combine(points, revealed, threshold)
        for (holders, owners), secret, good, theirs in zip(batch, found, sound, revealed, strict=True):
            if not good.all():
                bad = int(np.argmin(good))
                raise _blame(owners[bad], holders, theirs[bad], threshold)
            secrets.update(zip(owners, map(bytes, secret), strict=True))
    return secrets


def _places(
    shares: Mapping[int, Raw], owned_by: Callable[[int], Sequence[int]]
) -> tuple[dict[int, int], dict[int, dict[int, int]]]:
    """Where each holder's shares start, if those of all stand in one table; and, counted from there, each owner's."""
    first: dict[int, int] = {}
    places: dict[int, dict[int, int]] = {}
    owned: Sequence[int] = ()
    place: dict[int, int] = {}
    start = 0
    for holder, rows in shares.items():
        before, owned = owned, owned_by(holder)
        if owned is not before:  # in the complete graph all hold shares of the same clients
            place = {owner: at for at, owner in enumerate(owned)}
        first[holder], places[holder] = start, place
        start += len(rows)
    return first, places


def _batches(needed: Mapping[int, tuple[int, ...]], threshold: int) -> Iterator[list[_Group]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for owner, holders in needed.items():
        groups.setdefault(holders, []).append(owner)
    shapes: dict[tuple[int, int], list[_Group]] = {}
    for holders, owners in groups.items():
        shapes.setdefault((len(holders), len(owners)), []).append((holders, owners))
    for (points, _), alike in shapes.items():
        size = max(1, _BATCH // (points * threshold))
        for at in range(0, len(alike), size):
            yield alike[at : at + size]


def _blame(owner: int, holders: tuple[int, ...], shares: Raw, threshold: int) -> PeerError:
    """Who is at fault when a client's shares lie on no polynomial: the holder without whom they do, else the owner."""
    points = np.array([holders], np.int64) + 1
    for at, holder in enumerate(holders):
        if len(holders) - 1 > threshold:  # with exactly t shares any holder would look guilty
            _, sound = combine(np.delete(points, at, 1), np.delete(shares, at, 0)[None, None], threshold)
            if sound.all():
                return PeerError(holder, f"revealed a wrong share of client {owner}'s secret")
    return PeerError(owner, f"its shares, revealed by {len(holders)} holders, lie on no polynomial of degree t - 1")
