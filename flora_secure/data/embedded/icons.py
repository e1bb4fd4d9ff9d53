"""The embedded icons: twenty things as studios draw them, each icon set a client, two public house styles apart.

There are two test splits of the same pack: other icons of the clients' sets, or all icons of studios of which no set is
a client then. No test image is equal to an image that is trained on, or near one; docs/data-card-icons.md has the rules
and the counts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flora_secure.data.dataset import Dataset, Owners, Split
from flora_secure.data.embedded.packed import MANIFEST, Piece, read_pack

ICONS_FOLDER = Path(__file__).parents[2] / "assets" / "icons"
NAMES = "names.xz"  # "set:icon" of every image, a line each, in the order of the ranges in the manifest
TEMPLATES = ("an icon of a {}", "a {} icon", "a pictogram of a {}", "a {}")


def icons(unseen_clients: bool) -> Dataset:
    """The data set with other icons of its clients as test images; or, `unseen_clients`, with icons of studios that are
    no clients, which leaves fewer of these."""
    pieces = read_pack(ICONS_FOLDER)
    manifest = json.loads((ICONS_FOLDER / MANIFEST).read_text(encoding="utf-8"))
    sets = manifest["sets"]
    public, private, test = (_split(pieces[name]) for name in ("public", "private", "test"))
    authors = [one["author"] for one in sets]
    public = replace(public, sources=np.unique(authors, return_inverse=True)[1][pieces["public"].columns[0]])
    of = pieces["private"].columns[0]
    if unseen_clients:
        away = np.array([one["author"] in manifest["unseen_authors"] for one in sets])[of]
        test = _joined(*(_split(pieces[name], pieces[name].columns[1] == 1) for name in ("private", "test")))
        private, of = private.at(np.flatnonzero(~away)), of[~away]
    clients, of = np.unique(of, return_inverse=True)
    # a set with a test icon has private ones
    of_test = None if unseen_clients else np.searchsorted(clients, pieces["test"].columns[0]).astype(np.int64)
    owners = Owners(tuple(sets[client]["prefix"] for client in clients), of.astype(np.int64), of_test)
    # not mirrored: a magnifying glass has its handle, and a flag its pole, on the side that everybody draws
    return Dataset("icons", private, public, test, tuple(manifest["class_names"]), TEMPLATES, False, owners)


def _split(piece: Piece, which: NDArray[np.bool_] | slice = slice(None)) -> Split:
    return Split(piece.images[which], piece.labels[which], piece.origin, piece.indices[which])


def _joined(one: Split, other: Split) -> Split:
    images, labels, indices = (
        np.concatenate([getattr(one, part), getattr(other, part)]) for part in ("images", "labels", "indices")
    )
    return Split(images, labels, one.origin, indices)
