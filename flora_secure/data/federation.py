"""Who holds what: a data set and the private images of each client. Needs no model, so bad input is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flora_secure.config import DataConfig
from flora_secure.data.partitions import parse_partition, partition
from flora_secure.data.sources import Dataset, load_dataset


@dataclass(frozen=True, eq=False)
class Federation:
    """``clients[i]``: int64 indices into ``dataset.private`` of client i's images; together they are all of them."""

    dataset: Dataset
    clients: list[NDArray[np.int64]] = field(repr=False)


def load_federation(config: DataConfig, seed: int) -> Federation:
    """Load the data set and deal its private images. Raises :class:`flora_secure.data.errors.DataError`."""
    scheme = parse_partition(config.partition)
    dataset = load_dataset(config.dataset, None if config.data_root is None else Path(config.data_root))
    clients = partition(dataset.private.labels, config.clients, scheme, np.random.default_rng([seed, 0]))
    return Federation(dataset, clients)
