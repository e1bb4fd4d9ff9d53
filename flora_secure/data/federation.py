"""Who holds what: a data set and the private images of each client. Needs no model, so bad input is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flora_secure.config import DataConfig
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset, Owners
from flora_secure.data.partitions import Natural, Skew, parse_partition, partition, partition_captioned, skew
from flora_secure.data.sources import load_dataset
from flora_secure.data.unseen import set_apart


@dataclass(frozen=True, eq=False)
class Federation:
    """``clients[i]``: int64 indices into ``dataset.private`` of client i's images; together they are all of them."""

    dataset: Dataset
    clients: list[NDArray[np.int64]] = field(repr=False)

    @cached_property
    def skew(self) -> Skew:
        """How unevenly the images are dealt."""
        private = self.dataset.private
        if self.dataset.captioned:
            return skew(None, [np.unique(private.distinct[1][part]) for part in self.clients])
        return skew(private.labels, self.clients)

    @property
    def image_counts(self) -> tuple[int, int, int]:
        """Private, public and test images, those of unseen classes apart; one with several captions counts once."""
        splits = (self.dataset.private, self.dataset.public, self.dataset.test)
        private, public, test = (len(s.distinct[0] if self.dataset.captioned else s) for s in splits)
        return private, public, test

    @property
    def lines(self) -> list[str]:
        """What a person should know before training: images and classes or captions, the skew, and what was left
        out."""
        data = self.dataset
        private, public, test = self.image_counts
        described = f"images, {len(data.class_names)} classes"
        if data.captioned:
            described = f"images with {len(data.private):,}, {len(data.public):,} and {len(data.test):,} captions"
        apart = []
        if data.unseen is not None:
            names = ", ".join(data.unseen.class_names)
            apart = [f"unseen classes {names}: {len(data.unseen.test):,} test images apart"]
        return [
            f"data {data.name}: {private:,} private, {public:,} public, {test:,} test {described}; {self.skew.line}",
            *apart,
            *(skipped.line for skipped in data.skipped),
        ]


def load_federation(config: DataConfig, seed: int, cache: ArrayCache | None = None) -> Federation:
    """Load the data set and deal its private images. Raises :class:`flora_secure.data.errors.DataError`."""
    scheme = parse_partition(config.partition)
    natural = isinstance(scheme, Natural)
    dataset = load_dataset(
        config.dataset,
        config.data_root,
        natural=natural,
        class_names=config.class_names,
        templates=config.templates,
        cache=cache,
    )
    if config.unseen_classes is not None:
        dataset = set_apart(dataset, config.unseen_classes)
    owners = None if dataset.owners is None else dataset.owners.of
    rng = np.random.default_rng([seed, 0])
    if dataset.captioned:
        clients = partition_captioned(dataset.private.distinct[1], config.clients, scheme, rng, owners)
    else:
        clients = partition(dataset.private.labels, config.clients, scheme, rng, owners)
    if natural:
        dataset, clients = _only(dataset, clients)
    return Federation(dataset, clients)


def _only(dataset: Dataset, clients: list[NDArray[np.int64]]) -> tuple[Dataset, list[NDArray[np.int64]]]:
    """The data set without the private images that no client of the run holds, and the clients' indices into that."""
    kept = np.sort(np.concatenate(clients))
    if len(kept) == len(dataset.private):
        return dataset, clients
    owners = None if dataset.owners is None else Owners(dataset.owners.names, dataset.owners.of[kept])
    return (
        replace(dataset, private=dataset.private.at(kept), owners=owners),
        [np.searchsorted(kept, part).astype(np.int64) for part in clients],
    )
