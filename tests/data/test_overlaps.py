"""An image is its content: copies stay on one side of a split that is made, and are said where a split is given."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
from images import encoded, write
from listings import lines

from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.federation import load_federation
from flora_secure.data.files.overlaps import with_overlaps
from flora_secure.data.sources import load_dataset
from flora_secure.planning.sections import DataConfig


def test_copies_of_an_image_stay_together(tmp_path: Path) -> None:
    """Each of 40 images five times, under names of its own: none is private and a test image at once."""
    for i in range(40):
        for copy in range(5):
            write(tmp_path / ("dog" if i % 2 else "cat") / f"{copy}-{i}.png", i, "PNG")
    data = load_dataset("folder", tmp_path)
    assert not data.private.digests() & data.test.digests()
    assert (len(data.private), len(data.test)) == (160, 40)
    rows = [f"{('dog' if i % 2 else 'cat')}/{copy}-{i}.png,{i % 2}" for copy in range(5) for i in range(40)]
    data = load_dataset("table", lines(tmp_path / "t.csv", "path,label", *rows))
    assert not data.private.digests() & data.test.digests()
    assert set(Counter(data.test.indices % 40).values()) == {5}


def test_without_copies_the_split_is_what_it_always_was(tmp_path: Path) -> None:
    for i in range(40):
        write(tmp_path / ("dog" if i % 2 else "cat") / f"{i:02}.png", i, "PNG")
    rng, expected = np.random.default_rng(0), []
    for members in (np.arange(20), np.arange(20, 40)):  # cats, then dogs, in the order of their names
        expected += rng.permutation(members)[:4].tolist()
    assert load_dataset("folder", tmp_path).test.indices.tolist() == sorted(expected)


def test_overlaps_of_given_splits_are_counted_and_named_by_nobody(tmp_path: Path) -> None:
    for part, seeds in (("train", (1, 2, 3, 4, 4)), ("public", (4, 5)), ("test", (1, 2, 5, 6))):
        for place, seed in enumerate(seeds):
            write(tmp_path / part / ("cat" if place % 2 else "dog") / f"secret-{place}.png", seed, "PNG")
    config = DataConfig(dataset="folder", data_root=str(tmp_path), clients=2, partition="iid")
    federation = load_federation(config, 0)
    assert federation.dataset.warnings == (
        "2 images are both private and test: accuracy counts what clients train on; keep one of the two",
        "1 image is both public and test: accuracy counts what the warm start and the control variate see; keep one of "
        "the two",
        "1 image is both private and public: what is public is not protected; keep one of the two",
        "1 of 5 private images are copies of others among them, and a budget for each example counts every copy as "
        "another",
        "2 images are given with more than one label each",
    )
    assert all(f"warning: {line}" in federation.lines for line in federation.dataset.warnings)
    assert "secret" not in "".join(federation.dataset.warnings)


def test_several_captions_of_an_image_are_no_copies(tmp_path: Path) -> None:
    for i in range(10):
        write(tmp_path / f"{i}.png", i, "PNG")
    (tmp_path / "copy.png").write_bytes(encoded(3, "PNG"))
    rows = [f"{i}.png,{text} {i}" for i in range(10) for text in ("one", "two")]
    path = lines(tmp_path / "t.csv", "path,caption", *rows)
    config = DataConfig(dataset="table", data_root=str(path), clients=2)
    assert load_federation(config, 0).dataset.warnings == ()
    lines(path, "path,caption", *rows, "copy.png,three")
    (line,) = load_federation(config, 0).dataset.warnings
    assert "1 of " in line


def test_the_sets_that_ship_have_no_overlaps_and_that_is_found_quickly() -> None:
    data = load_dataset("clothes")
    before = time.perf_counter()
    assert with_overlaps(data).warnings == ()
    assert time.perf_counter() - before < 5
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    one = Split(images, np.zeros(3, np.int64), "a", np.arange(3))
    found = with_overlaps(Dataset("x", one, one.at(np.arange(0)), one, ("a", "b"), ("{}",), False))
    assert found.warnings == (
        "3 images are both private and test: accuracy counts what clients train on; keep one of the two",
    )
