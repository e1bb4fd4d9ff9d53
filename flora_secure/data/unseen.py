"""Unseen classes: their images leave the clients and the public slice, and are tested apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flora_secure.data.dataset import Dataset, Owners, Split, Unseen
from flora_secure.data.errors import DataError
from flora_secure.data.skipped import NAMED, Skipped

_LISTED = 100  # class names in a message


def set_apart(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """``dataset`` with the classes called ``names`` unseen; ``dataset.unseen`` is ``None`` before.

    The classes that stay, and those that go, keep their order and are numbered from 0 each. Private and public images
    of unseen classes are left out and counted, their test images move to `Unseen.test`. Raises DataError for captions,
    an unknown name, fewer than two classes left, and where a side has no test image or the clients no image left.
    """
    known = dataset.class_names
    if dataset.captioned:
        raise DataError(f"data set {dataset.name!r} has captions and no classes: leave out --unseen-classes")
    if unknown := [name for name in names if name not in known]:
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        raise DataError(
            f"unseen class {unknown[0]!r} is none of data set {dataset.name!r}; known: "
            f"{', '.join(known[:_LISTED])}{more}"
        )
    apart = np.array([name in names for name in known])
    if (left := int((~apart).sum())) < 2:
        raise DataError(
            f"{len(known) - left} unseen classes leave {left} of {len(known)} to train: at least 2 are needed"
        )
    number = np.where(apart, np.cumsum(apart), np.cumsum(~apart)) - 1

    def part(split: Split, which: NDArray[np.bool_]) -> Split:
        kept = split.at(np.flatnonzero(which[split.labels]).astype(np.int64))
        return replace(kept, labels=number[kept.labels].astype(np.int64))

    private, public, test = (part(split, ~apart) for split in (dataset.private, dataset.public, dataset.test))
    unseen = Unseen(tuple(name for name in known if name in names), part(dataset.test, apart))
    for split, what in ((private, "private image of any other class"), (test, "test image of any other class"),
                        (unseen.test, "test image of them")):  # fmt: skip
        if len(split) == 0:
            raise DataError(f"unseen classes {', '.join(names)}: data set {dataset.name!r} has no {what}")
    gone = [
        split.name(place)
        for split in (dataset.private, dataset.public)
        for place in np.flatnonzero(apart[split.labels]).tolist()
    ]
    owners, idle = dataset.owners, list[str]()
    if owners is not None:
        of = owners.of[~apart[dataset.private.labels]]
        idle = [owners.names[client] for client in np.setdiff1d(owners.of, of)]
        owners = Owners(owners.names, of)
    return replace(
        dataset,
        private=private,
        public=public,
        test=test,
        class_names=tuple(name for name in known if name not in names),
        owners=owners,
        skipped=(
            *dataset.skipped,
            *_skipped("image of an unseen class", gone),
            *_skipped("client with images of unseen classes alone", idle),
        ),
        unseen=unseen,
    )


def _skipped(reason: str, names: list[str]) -> tuple[Skipped, ...]:
    return (Skipped(reason, len(names), tuple(names[:NAMED])),) if names else ()
