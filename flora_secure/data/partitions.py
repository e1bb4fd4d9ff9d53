"""Dealing the private images to clients: evenly, by a Dirichlet draw per class, by shards of sorted labels, or as the
data set has them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flora_secure.errors import DataError


@dataclass(frozen=True)
class Iid:
    """Shuffled and dealt in equal parts (sizes differ by one at most)."""

    def __str__(self) -> str:
        return "iid"


@dataclass(frozen=True)
class Dirichlet:
    """Each class is split by proportions from a symmetric Dirichlet(alpha) (Hsu, Qi, Brown 2019, arXiv 1909.06335)."""

    alpha: float

    def __str__(self) -> str:
        return f"dirichlet:{self.alpha:g}"


@dataclass(frozen=True)
class Shards:
    """Sorted by label, cut into clients × per_client shards, dealt out (McMahan et al. 2017, section 3)."""

    per_client: int

    def __str__(self) -> str:
        return f"shards:{self.per_client}"


@dataclass(frozen=True)
class Natural:
    """The data set's own deal: each of its own clients keeps its images."""

    def __str__(self) -> str:
        return "natural"


Scheme = Iid | Dirichlet | Shards | Natural


@dataclass(frozen=True)
class Skew:
    """How uneven a partition is: images a client, the mean number of classes a client holds, and the mean distance of a
    client's labels from everybody's: total variation ½ Σ |p − q|, 0 for the same shares of each class. The last two are
    `None` where there are no classes."""

    minimum: int
    median: float
    maximum: int
    mean_classes: float | None
    mean_distance: float | None

    @property
    def line(self) -> str:
        """A line for people: images a client, and classes and label distance where there are labels."""
        sizes = f"{self.minimum:,} / {self.median:,.0f} / {self.maximum:,} images a client (min, median, max)"
        if self.mean_classes is None:
            return sizes
        return f"{sizes}, {self.mean_classes:.1f} classes each, label distance {self.mean_distance:.2f}"


def parse_partition(text: str) -> Scheme:
    """The scheme written as `iid`, `dirichlet:A` (A > 0), `shards:K` (K ≥ 1) or `natural`; DataError otherwise."""
    kind, _, value = text.partition(":")
    try:
        if text in {"iid", "natural"}:
            return Iid() if text == "iid" else Natural()
        if kind == "dirichlet" and math.isfinite(alpha := float(value)) and alpha > 0:
            return Dirichlet(alpha)
        if kind == "shards" and (count := int(value)) >= 1:
            return Shards(count)
    except ValueError:
        pass
    raise DataError(
        f"unknown `data.partition` {text!r}: use iid, dirichlet:A with A > 0, shards:K with a whole K ≥ 1, or natural"
    )


def partition(
    labels: np.ndarray, clients: int, scheme: Scheme, rng: np.random.Generator, owners: np.ndarray | None = None
) -> list[np.ndarray]:
    """Positions of each client's images in `labels` (n,): sorted int64 arrays, disjoint, none empty, covering all n.

    A client that a Dirichlet draw leaves without any takes one image from whoever then holds most. Scheme natural reads
    `owners` int64 (n,), each image's client; of more than `clients` it draws that many, and the images of the others
    are left out. Raises DataError for fewer than one client, more clients (or shards) than images, and more clients
    than the data set has by itself.
    """
    n = len(labels)
    if clients < 1:
        raise DataError(f"`data.clients` {clients}: at least 1 is needed")
    if clients > n:
        raise DataError(f"`data.clients` {clients} for {n} images: every client needs one, use at most {n}")
    if isinstance(scheme, Natural):
        parts = _natural(clients, owners, rng)
    elif isinstance(scheme, Dirichlet):
        parts = _dirichlet(labels, clients, scheme.alpha, rng)
    elif isinstance(scheme, Shards):
        total = clients * scheme.per_client
        if total > n:
            raise DataError(
                f"`data.partition` {scheme}: {clients} clients × {scheme.per_client} shards for {n} images; use at "
                f"most {n} shards in all"
            )
        # shuffled before the stable sort, so that a shard is a random part of its class
        order = rng.permutation(n)
        shards = np.array_split(order[np.argsort(labels[order], kind="stable")], total)
        deal = rng.permutation(total).reshape(clients, scheme.per_client)
        parts = [np.concatenate([shards[i] for i in row]) for row in deal]
    else:
        parts = np.array_split(rng.permutation(n), clients)
    return [np.sort(part).astype(np.int64) for part in parts]


def partition_captioned(
    images: np.ndarray, clients: int, scheme: Scheme, rng: np.random.Generator, owners: np.ndarray | None = None
) -> list[np.ndarray]:
    """`partition` of n pairs of an image and a caption; `images` int64 (n,) says which image each shows.

    Scheme iid deals images, each to one client with all its captions. Raises DataError for the schemes that deal by
    label, too.
    """
    if isinstance(scheme, Natural):
        return partition(images, clients, scheme, rng, owners)
    if not isinstance(scheme, Iid):
        raise DataError(f"`data.partition` {scheme} deals by label, and captions have none: use iid or natural")
    parts = partition(np.zeros(images.max(initial=-1) + 1, np.int64), clients, scheme, rng)
    holder = np.empty(sum(map(len, parts)), np.int64)
    for client, part in enumerate(parts):
        holder[part] = client
    of = holder[images]
    return np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of, minlength=clients))[:-1])


def _natural(clients: int, owners: np.ndarray | None, rng: np.random.Generator) -> list[np.ndarray]:
    if owners is None:
        raise DataError(
            "`data.partition` natural needs a data set with clients of its own: folders of clients, or a client for "
            "every image of a table or shard"
        )
    order = np.argsort(owners, kind="stable")
    whole = np.split(order, np.flatnonzero(np.diff(owners[order])) + 1)
    if clients > len(whole):
        raise DataError(
            f"`data.clients` {clients}, but the data set has {len(whole)} of its own: use {len(whole)}, or deal the "
            "images anew by a `data.partition` such as iid"
        )
    if len(whole) < 2:
        raise DataError(
            "`data.partition` natural: all images are of one client, and a federation has two at least; deal them by a "
            "`data.partition` such as iid"
        )
    return [whole[i] for i in np.sort(rng.permutation(len(whole))[:clients])]


def _dirichlet(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, alpha))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    whole = [np.concatenate(part) for part in parts]
    for i in range(clients):
        if len(whole[i]) == 0:
            rich = max(range(clients), key=lambda j: len(whole[j]))
            give = int(rng.integers(len(whole[rich])))
            whole[i] = whole[rich][give : give + 1]
            whole[rich] = np.delete(whole[rich], give)
    return whole


def skew(labels: np.ndarray | None, parts: list[np.ndarray]) -> Skew:
    """The summary of `parts` as `partition` returns them for `labels`; `None` where there are no classes."""
    sizes = [len(part) for part in parts]
    if labels is None:
        return Skew(min(sizes), float(np.median(sizes)), max(sizes), None, None)
    counts = np.stack([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])
    shares, whole = counts / counts.sum(1, keepdims=True), counts.sum(0) / counts.sum()
    return Skew(
        min(sizes),
        float(np.median(sizes)),
        max(sizes),
        float((counts > 0).sum(1).mean()),
        float(np.abs(shares - whole).sum(1).mean() / 2),
    )
