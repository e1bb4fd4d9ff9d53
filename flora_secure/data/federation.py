"""Who holds what: a data set and the private images of each client. Needs no model, so bad input is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flora_secure.config import DataConfig
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset, Owners, Split
from flora_secure.data.images import EncodedImages
from flora_secure.data.partitions import Natural, Skew, parse_partition, partition, skew
from flora_secure.data.sources import load_dataset


@dataclass(frozen=True, eq=False)
class Federation:
    """``clients[i]``: int64 indices into ``dataset.private`` of client i's images; together they are all of them."""

    dataset: Dataset
    clients: list[NDArray[np.int64]] = field(repr=False)

    @cached_property
    def skew(self) -> Skew:
        """How unevenly the images are dealt."""
        return skew(self.dataset.private.labels, self.clients)

    @property
    def lines(self) -> list[str]:
        """What a person should know before training: images and classes, the skew, and what was left out."""
        data = self.dataset
        return [
            f"data {data.name}: {len(data.private):,} private, {len(data.public):,} public, {len(data.test):,} test "
            f"images, {len(data.class_names)} classes; {self.skew.line}",
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
    owners = None if dataset.owners is None else dataset.owners.of
    clients = partition(dataset.private.labels, config.clients, scheme, np.random.default_rng([seed, 0]), owners)
    if natural:
        dataset, clients = _only(dataset, clients)
    return Federation(dataset, clients)


def _only(dataset: Dataset, clients: list[NDArray[np.int64]]) -> tuple[Dataset, list[NDArray[np.int64]]]:
    """The data set without the private images that no client of the run holds, and the clients' indices into that."""
    kept = np.sort(np.concatenate(clients))
    if len(kept) == len(dataset.private):
        return dataset, clients
    private, owners = dataset.private, dataset.owners
    images = private.images.at(kept) if isinstance(private.images, EncodedImages) else private.images[kept]
    split = Split(images, private.labels[kept], private.origin, private.indices[kept])
    return (
        replace(dataset, private=split, owners=None if owners is None else Owners(owners.names, owners.of[kept])),
        [np.searchsorted(kept, part).astype(np.int64) for part in clients],
    )
