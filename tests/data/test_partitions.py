"""Partitions deal every image exactly once, leave nobody empty and repeat from their generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_secure.data.partitions import Dirichlet, Iid, Scheme, Shards, parse_partition, partition, skew
from flora_secure.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 10, 3000)
SCHEMES = [Iid(), Dirichlet(0.5), Dirichlet(0.01), Dirichlet(100.0), Shards(1), Shards(2)]


@given(
    n=st.integers(1, 200),
    clients=st.integers(1, 60),
    scheme=st.sampled_from(SCHEMES),
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 12),
)
@settings(max_examples=200)
def test_disjoint_cover_without_empty_clients(n: int, clients: int, scheme: Scheme, seed: int, classes: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, n)
    needed = clients * scheme.per_client if isinstance(scheme, Shards) else clients
    if needed > n:
        with pytest.raises(DataError, match=rf"\b{clients} .*{n}"):
            partition(labels, clients, scheme, np.random.default_rng(seed))
        return
    parts = partition(labels, clients, scheme, np.random.default_rng(seed))
    assert len(parts) == clients
    assert all(len(part) and part.dtype == np.int64 for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_repeats_from_its_generator_and_differs_otherwise(scheme: Scheme) -> None:
    one, same, other = (partition(LABELS, 20, scheme, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_schemes_are_as_skewed_as_they_say() -> None:
    def of(text: str) -> float:
        parts = partition(LABELS, 30, parse_partition(text), np.random.default_rng(0))
        return skew(LABELS, parts).mean_classes

    assert of("iid") > 9.9
    assert 3 < of("dirichlet:0.5") < 9 < of("dirichlet:100")
    assert of("dirichlet:0.05") < 3
    assert of("shards:2") <= 4


def test_sizes() -> None:
    even = skew(LABELS, partition(LABELS, 7, Iid(), np.random.default_rng(0)))
    assert (even.minimum, even.median, even.maximum) == (428, 429.0, 429)
    uneven = skew(LABELS, partition(LABELS, 100, Dirichlet(0.1), np.random.default_rng(0)))
    assert 1 <= uneven.minimum < uneven.median < uneven.maximum


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.5", "shards:2"])
def test_text_round_trip(text: str) -> None:
    assert str(parse_partition(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "even", "iid:2", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1", "dirichlet:nan", "dirichlet:inf",
     "dirichlet:a", "shards", "shards:0", "shards:1.5", "shards:-2"],
)  # fmt: skip
def test_unknown_schemes(text: str) -> None:
    with pytest.raises(DataError, match=r"unknown data.partition .*use iid, dirichlet:A"):
        parse_partition(text)


def test_more_clients_than_images() -> None:
    with pytest.raises(DataError, match="11 for 10 images"):
        partition(LABELS[:10], 11, Iid(), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"data\.clients 0"):
        partition(LABELS[:10], 0, Iid(), np.random.default_rng(0))
