"""Recall@k against a slow reference in exact arithmetic, by hand, and where a model has collapsed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from flora_secure.server.scores import Ranks, ranks


def slow_recall(images, captions, image_of, k: int) -> tuple[Fraction, Fraction]:
    """By the definition, with lists and whole numbers: sort all answers, wrong ones first where equal; look at k."""

    def hit(similarity: list[int], right: list[bool]) -> bool:
        best = sorted(range(len(right)), key=lambda j: (-similarity[j], right[j]))
        return any(right[j] for j in best[:k])

    table = [[sum(a * b for a, b in zip(image, caption, strict=True)) for caption in captions] for image in images]
    to_text = [hit(row, [of == i for of in image_of]) for i, row in enumerate(table)]
    to_image = [
        hit([row[j] for row in table], [i == image_of[j] for i in range(len(images))]) for j in range(len(captions))
    ]
    return Fraction(sum(to_text), len(images)), Fraction(sum(to_image), len(captions))


@st.composite
def retrievals(draw):
    """Few values, hence many ties; whole numbers, hence exact in float32 whatever the order of the sum."""
    n, e = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    image_of = draw(st.permutations([*range(n), *draw(st.lists(st.integers(0, n - 1), max_size=12))]))
    vector = st.lists(st.integers(-2, 2), min_size=e, max_size=e)
    images = draw(st.lists(vector, min_size=n, max_size=n))
    captions = draw(st.lists(vector, min_size=len(image_of), max_size=len(image_of)))
    return images, captions, image_of


@given(retrievals(), st.integers(1, 6), st.integers(1, 200))
@settings(max_examples=300)
def test_recall_is_that_of_the_slow_reference(case, k: int, at_once: int) -> None:
    images, captions, image_of = case
    found = ranks(
        torch.tensor(images, dtype=torch.float32),
        torch.tensor(captions, dtype=torch.float32),
        torch.tensor(image_of),
        at_once=at_once,
    )
    assert found.recall(k) == pytest.approx([float(part) for part in slow_recall(images, captions, image_of, k)])


def test_by_hand() -> None:
    """Image 0 is nearest to its second caption, image 1 to the first caption, which is not its own."""
    images = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    captions = F.normalize(torch.tensor([[0.6, 0.8], [1.0, 0.1], [0.8, 0.6]]))
    found = ranks(images, captions, torch.tensor([0, 0, 1]))
    assert found.image_to_text.tolist() == [0, 1]
    assert found.text_to_image.tolist() == [1, 0, 1]
    assert found.recall(1) == (0.5, pytest.approx(1 / 3))
    assert found.recall(2) == (1.0, 1.0)


def test_a_perfect_model_finds_everything_in_any_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(400, 64, generator=generator), dim=1)
    image_of = torch.arange(400).repeat(3)[torch.randperm(1200, generator=generator)]
    captions = F.normalize(images[image_of] + 0.01 * torch.randn(1200, 64, generator=generator), dim=1)
    found = [ranks(images, captions, image_of, at_once=at_once) for at_once in (1, 5000, 1 << 25)]
    for one in found:
        assert one.recall(1) == (1.0, 1.0)
    noisy = F.normalize(captions + 0.3 * torch.randn(1200, 64, generator=generator), dim=1)
    found = [ranks(images, noisy, image_of, at_once=at_once) for at_once in (1, 5000, 1 << 25)]
    assert 0.05 < found[0].recall(1)[1] < 0.95
    for one in found[1:]:
        assert torch.equal(one.image_to_text, found[0].image_to_text)
        assert torch.equal(one.text_to_image, found[0].text_to_image)


def test_the_wrong_images_are_not_found() -> None:
    """Captions dealt to other images: of 500 each finds its own first by accident once, so 10 hits of 500 by accident
    have probability below 1e-7 (Poisson with mean 1)."""
    images = F.normalize(torch.randn(500, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    found = ranks(images, images, torch.arange(500).roll(1))
    assert max(found.recall(1)) == 0.0
    unrelated = F.normalize(torch.randn(500, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    assert max(ranks(images, unrelated, torch.arange(500)).recall(1)) < 10 / 500


@pytest.mark.parametrize("collapsed", ["one embedding", "captions alone", "nan", "zero"])
def test_a_collapsed_model_finds_nothing(collapsed: str) -> None:
    """One embedding for all, in whatever place of the product and however it is rounded there."""
    generator = torch.Generator().manual_seed(0)
    n, image_of = 777, torch.arange(777).repeat(2)
    one = F.normalize(torch.randn(1, 97, generator=generator), dim=1)
    images, captions = one.repeat(n, 1), one.repeat(2 * n, 1)
    if collapsed == "captions alone":
        images = F.normalize(torch.randn(n, 97, generator=generator), dim=1)
    if collapsed == "nan":
        images = torch.full_like(images, torch.nan)
    if collapsed == "zero":
        captions = torch.zeros_like(captions)
    found = ranks(images, captions, image_of, at_once=10_000)
    to_text, to_image = found.recall(10)
    assert to_text == 0.0
    # captions that are all one still find the images that happen to be nearest to it
    assert to_image == pytest.approx(10 / n if collapsed == "captions alone" else 0.0, abs=1e-9)


def test_a_duplicate_counts_against_us_though_rounding_could_hide_it() -> None:
    images = F.normalize(torch.randn(600, 333, generator=torch.Generator().manual_seed(3)), dim=1)
    twice = torch.cat([images, images])
    found = ranks(twice, twice, torch.arange(1200), at_once=70_000)
    assert found.recall(1) == (0.0, 0.0)
    assert found.recall(2) == (1.0, 1.0)


def test_misuse_raises() -> None:
    images, captions = torch.eye(3), torch.eye(3)
    with pytest.raises(ValueError, match="3 images, 2 of them"):
        ranks(images, captions, torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="each needs one"):
        ranks(images, captions, torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match="owners"):
        ranks(images, captions, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="owners"):
        ranks(images, torch.eye(4), torch.tensor([0, 1, 2, 2]))
    with pytest.raises(ValueError, match="0 images"):
        ranks(images[:0], captions[:0], torch.empty(0, dtype=torch.int64))


def test_recall_counts_the_ranks_below_k() -> None:
    counts = Ranks(torch.tensor([0, 4, 5, 99_999]), torch.tensor([10, 0]))
    assert [counts.recall(k) for k in (1, 5, 10, 11)] == [(0.25, 0.5), (0.5, 0.5), (0.75, 0.5), (0.75, 1.0)]
    assert np.isclose(counts.recall(100_000)[0], 1.0)
