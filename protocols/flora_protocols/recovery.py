"""Secrets from the shares that the survivors reveal: of all clients at once, and who is at fault where one is wrong.

A survivor's self-mask seed and a dropped client's mask secret are shared alike. Clients whose shares the same holders
have revealed are reconstructed with one matrix, others in batches with a matrix each (see shamir).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flora_protocols.errors import PeerError
from flora_protocols.keys import SECRET
from flora_protocols.shamir import LIMBS, Raw, combine

Places = NDArray[np.intp]
_BATCH = 1 << 17  # elements of the Lagrange matrices, or limbs, in memory at once


def recover(
    needed: Sequence[int],
    shares: Mapping[int, Raw],
    owners: NDArray[np.uint16],
    threshold: int,
) -> dict[int, bytes]:
    """The 16-byte secret of each client in ``needed``, ascending; at least t holders have revealed a share of each.

    ``shares``: by holder, ascending, uint8 (m, 17), canonical. ``owners``: whose they are, one holder after another.
    Raises PeerError naming whose share is wrong.
    """
    order, first, last = turned(owners, needed)
    table = picked(shares.values(), order)
    points = np.repeat(list(shares), [len(revealed) for revealed in shares.values()])[order] + 1
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
            joined = found.tobytes()
            for place, at in zip(alike[part].tolist(), range(0, len(joined), SECRET), strict=True):
                secrets[needed[place]] = joined[at : at + SECRET]
    return secrets


def turned(sent: NDArray[np.uint16], addressees: Sequence[int]) -> tuple[Places, Places, Places]:
    """What senders, ascending, have sent, turned around. ``sent``: one after another, to whom each sent, or about whom.

    Returns the order that sorts all of it by addressee and then by sender, and for each of ``addressees`` where its own
    begins and ends in that order. One sort costs a tenth of as many look-ups.
    """
    order = np.argsort(sent, kind="stable")  # of 16 bits: by radix
    counts, wanted = np.bincount(sent, minlength=max(addressees) + 1), list(addressees)
    last = np.cumsum(counts)[wanted]
    return order, last - counts[wanted], last


def picked(parts: Iterable[Raw], order: Places) -> Raw:
    """The rows of ``parts``, each (m, size), joined and in ``order``; moved as whole items, in a third of the time."""
    rows = np.concatenate(list(parts))
    items: Raw = rows.view(np.dtype((np.void, rows.shape[1])))[:, 0][order].view(np.uint8)
    return items.reshape(-1, rows.shape[1])


def _blame(owner: int, holders: tuple[int, ...], shares: Raw, threshold: int) -> PeerError:
    """Who is at fault when a client's shares lie on no polynomial: the holder without whom they do, else the owner."""
    points = np.array([holders], np.int64) + 1
    for at, holder in enumerate(holders):
        if len(holders) - 1 > threshold:  # with exactly t shares any holder would look guilty
            _, sound = combine(np.delete(points, at, 1), np.delete(shares, at, 0)[None, None], threshold)
            if sound.all():
                return PeerError(holder, f"revealed a wrong share of client {owner}'s secret")
    return PeerError(owner, f"its shares, revealed by {len(holders)} holders, lie on no polynomial of degree t - 1")
