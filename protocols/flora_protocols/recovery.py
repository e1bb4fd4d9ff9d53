"""Secrets from the shares that the survivors reveal: of all clients at once, and who is at fault where one is wrong.

A survivor's self-mask seed and a dropped client's mask secret are shared alike. Clients whose shares the same holders
have revealed are reconstructed with one matrix, others in batches with a matrix each (see shamir).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from .errors import PeerError
from .shamir import LIMBS, Raw, combine

Places = NDArray[np.intp]
_BATCH = 1 << 17  # elements of the Lagrange matrices, or limbs, in memory at once


def recover(
    needed: Sequence[int],
    shares: Mapping[int, Raw],
    owned_by: Callable[[int], Sequence[int]],
    threshold: int,
) -> dict[int, bytes]:
    """The 16-byte secret of each client in ``needed``, ascending; at least t holders have revealed a share of each.

    ``shares``: by holder, uint8 (len(owned_by(holder)), 17), canonical. Raises PeerError naming whose share is wrong.
    """
    owned = {holder: owned_by(holder) for holder in sorted(shares)}
    order, first, last = turned(list(owned.values()), needed)
    table = np.concatenate([shares[holder] for holder in owned])[order]
    points = np.repeat(list(owned), [len(owners) for owners in owned.values()])[order] + 1
    secrets: dict[int, bytes] = {}
    for count in np.unique(last - first):  # owners with equally many holders are reconstructed together
        alike = np.flatnonzero(last - first == count)
        rows = first[alike, None] + np.arange(count)
        shared = bool((points[rows] == points[rows[0]]).all())  # as in the complete graph: one matrix for all
        step = max(1, _BATCH // (count * (LIMBS if shared else threshold)))
        for start in range(0, len(alike), step):
            part = slice(start, start + step)
            revealed = table[rows[part]]
            if shared:
                found, sound = combine(points[rows[:1]], revealed[None], threshold)
            else:
                found, sound = combine(points[rows[part]], revealed[:, None], threshold)
            if not sound.all():
                bad = int(np.argmin(sound))  # one of the two leading axes has length 1
                holders = tuple((points[rows[part][bad]] - 1).tolist())
                raise _blame(needed[alike[part][bad]], holders, revealed[bad], threshold)
            owners = [needed[place] for place in alike[part]]
            secrets.update(zip(owners, map(bytes, found.reshape(len(owners), -1)), strict=True))
    return secrets


def turned(lists: Sequence[Sequence[int]], addressees: Sequence[int]) -> tuple[Places, Places, Places]:
    """What senders, ascending, have sent, turned around. ``lists``: for each, to whom it sent, or about whom.

    Returns the order that sorts all of it by addressee and then by sender, and for each of ``addressees`` where its own
    begins and ends in that order. One sort costs a tenth of as many look-ups.
    """
    flat = np.fromiter(chain.from_iterable(lists), np.uint16, sum(map(len, lists)))  # of 16 bits: sorted by radix
    order = np.argsort(flat, kind="stable")
    flat, wanted = flat[order], np.array(addressees, np.uint16)
    return order, np.searchsorted(flat, wanted, "left"), np.searchsorted(flat, wanted, "right")


def _blame(owner: int, holders: tuple[int, ...], shares: Raw, threshold: int) -> PeerError:
    """Who is at fault when a client's shares lie on no polynomial: the holder without whom they do, else the owner."""
    points = np.array([holders], np.int64) + 1
    for at, holder in enumerate(holders):
        if len(holders) - 1 > threshold:  # with exactly t shares any holder would look guilty
            _, sound = combine(np.delete(points, at, 1), np.delete(shares, at, 0)[None, None], threshold)
            if sound.all():
                return PeerError(holder, f"revealed a wrong share of client {owner}'s secret")
    return PeerError(owner, f"its shares, revealed by {len(holders)} holders, lie on no polynomial of degree t - 1")
