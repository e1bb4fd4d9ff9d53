"""Secrets from the shares that the survivors reveal: of all clients at once, and who is at fault where one is wrong.

Whom to name is a matter of how many may lie. Of m shares, m - t + 1 - e holders that agree on what they reveal make e
others look wrong, and an innocent owner, too. Somebody is named only where that takes more than `corrupt` holders.

A survivor's self-mask seed and a dropped client's mask secret are shared alike. Clients whose shares the same holders
have revealed are reconstructed with one matrix, others in batches with a matrix each (see shamir).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flora_protocols.decoding import misfits
from flora_protocols.errors import Code, PeerError, UnsoundShares
from flora_protocols.keys import SECRET
from flora_protocols.shamir import LIMBS, Field, Raw, combine

Places = NDArray[np.intp]
_BATCH = 1 << 17  # elements of the Lagrange matrices, or limbs, in memory at once


class WrongShares(PeerError):  # noqa: N818  (as TooFewSurvivors: it says what happened)
    """Some holders revealed wrong shares. `faults`: each of them, and its error; the first is what this one says."""

    def __init__(self, faults: Mapping[int, PeerError]) -> None:
        first = faults[min(faults)]
        super().__init__(first.culprit, first.reason, first.code)
        self.faults = faults


def recover(
    needed: Sequence[int],
    shares: Mapping[int, Raw],
    owners: NDArray[np.uint16],
    threshold: int,
    corrupt: int,
) -> dict[int, bytes]:
    """The 16-byte secret of each client in `needed`, ascending; at least t holders have revealed a share of each.

    `shares`: by holder, ascending, uint8 (m, 17), canonical. `owners`: whose they are, one holder after another.
    Raises WrongShares naming all holders that are found to have revealed a wrong share, if no more than `corrupt` of an
    owner's lie; where none is found, UnsoundShares.
    """
    order, first, last = turned(owners, needed)
    table = picked(shares.values(), order)
    points = np.repeat(list(shares), [len(revealed) for revealed in shares.values()])[order] + 1
    secrets: dict[int, bytes] = {}
    unsound: list[tuple[int, Field, Raw]] = []
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
                for bad in np.flatnonzero(~sound):  # one of the two leading axes has length 1
                    unsound.append((needed[alike[part][bad]], points[rows[part][bad]], revealed[bad]))
            joined = found.tobytes()
            for place, at in zip(alike[part].tolist(), range(0, len(joined), SECRET), strict=True):
                secrets[needed[place]] = joined[at : at + SECRET]
    if unsound:
        raise _blame(unsound, threshold, corrupt)
    return secrets


def turned(sent: NDArray[np.uint16], addressees: Sequence[int]) -> tuple[Places, Places, Places]:
    """What senders, ascending, have sent, turned around. `sent`: one after another, to whom each sent, or about whom.

    Returns the order that sorts all of it by addressee and then by sender, and for each of `addressees` where its own
    begins and ends in that order. One sort costs a tenth of as many look-ups.
    """
    order = np.argsort(sent, kind="stable")  # of 16 bits: by radix
    counts, wanted = np.bincount(sent, minlength=max(addressees) + 1), list(addressees)
    last = np.cumsum(counts)[wanted]
    return order, last - counts[wanted], last


def picked(parts: Iterable[Raw], order: Places) -> Raw:
    """The rows of `parts`, each (m, size), joined and in `order`; moved as whole items, in a third of the time."""
    rows = np.concatenate(list(parts))
    items: Raw = rows.view(np.dtype((np.void, rows.shape[1])))[:, 0][order].view(np.uint8)
    return items.reshape(-1, rows.shape[1])


def tellable(revealed: int, threshold: int, corrupt: int, wrong: int = 0) -> bool:
    """Whether `corrupt` holders (one, where nobody is meant to be) are too few to have forged what is seen: that all of
    so many shares `revealed`, but so many `wrong` ones, lie on one polynomial."""
    return wrong + max(corrupt, 1) <= revealed - threshold


def _blame(unsound: Sequence[tuple[int, Field, Raw]], threshold: int, corrupt: int) -> WrongShares | UnsoundShares:
    """Who is at fault, given (owner, points, shares) of all whose shares lie on no polynomial: all holders that are
    found out, of whichever owner; or nobody."""
    faults: dict[int, PeerError] = {}
    for owner, points, shares in sorted(unsound, key=lambda one: one[0]):
        rest = ~np.isin(points - 1, list(faults))
        if int(rest.sum()) > threshold:
            _, sound = combine(points[None, rest], shares[None, None, rest], threshold)
            if sound.all():
                continue  # those found out already are all that is wrong here
        wrong = misfits(points, shares, threshold)
        if wrong is not None and tellable(len(points), threshold, corrupt, len(wrong)):
            for holder in (points[wrong] - 1).tolist():
                reason = f"revealed a wrong share of client {owner}'s secret, unless client {owner} dealt it so"
                faults.setdefault(holder, PeerError(holder, reason, Code.BAD_SHARE))
    if faults:
        return WrongShares(faults)
    owner, points, _ = min(unsound, key=lambda one: one[0])
    return UnsoundShares.revealed(owner, "are not those of one secret", len(points))
