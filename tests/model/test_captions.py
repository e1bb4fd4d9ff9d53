"""Captions as tokens: what open_clip's tokenizers give, and a count of those that were cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_secure.data.dataset import Split
from flora_secure.data.notes import Notes, Skipped
from flora_secure.model.clip import Clip, ModelError
from flora_secure.model.features import caption_tokens
from flora_secure.model.loading import load_clip


@pytest.fixture(scope="session")
def tiny() -> Clip:
    return load_clip()


def split_of(*captions: str) -> Split:
    n = len(captions)
    return Split(np.zeros((n, 2, 2), np.uint8), np.zeros(n, np.int64), "album", 100 + np.arange(n), captions)


def test_captions_longer_than_the_context_are_cut_and_named(tiny: Clip) -> None:
    """The embedded model reads 16 tokens: 14 between the first and the last, and "a" is one of them."""
    captions = ("a " * 14, "a " * 15, "a coat", "", "a " * 500)
    cuts = Notes()
    tokens = caption_tokens(tiny, split_of(*captions), cuts)
    assert tokens.shape == (5, 16)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, tiny.tokenizer(list(captions)))
    assert torch.equal(tokens[0], tokens[1])
    assert cuts.skipped() == (
        Skipped("caption cut to the 16 tokens that the model reads", ("album[101]", "album[104]"), True),
    )
    features = tiny.model.encode_text(tokens, normalize=True)
    assert bool(torch.isfinite(features).all())


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
@settings(max_examples=100)
def test_what_is_cut_is_what_has_more_tokens(tiny: Clip, captions: list[str]) -> None:
    cuts = Notes()
    tokens = caption_tokens(tiny, split_of(*captions), cuts)
    assert torch.equal(tokens, tiny.tokenizer(captions))
    encode = tiny.tokenizer.encode  # type: ignore[attr-defined]
    longer = [f"album[{100 + i}]" for i, text in enumerate(captions) if len(encode(text)) + 2 > 16]
    assert [name for one in cuts.skipped() for name in one.names] == longer
    assert sum(one.count for one in cuts.skipped()) == len(longer)


class FilledWithOnes:
    """As tokenizers of other libraries are: no start token, filled up with 1, cut without an end token."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> torch.Tensor:
        length = context_length or 4
        rows = [[5 + len(word) for word in text.split()][:length] for text in texts]
        return torch.tensor([row + [1] * (length - len(row)) for row in rows])


def test_a_tokenizer_that_fills_up_with_something_else(tiny: Clip) -> None:
    other = dataclasses.replace(tiny, tokenizer=FilledWithOnes())
    cuts = Notes()
    tokens = caption_tokens(other, split_of("one two three four", "one two three four five", ""), cuts)
    assert tokens.tolist() == [[8, 8, 10, 9], [8, 8, 10, 9], [1, 1, 1, 1]]
    assert [one.names for one in cuts.skipped()] == [("album[101]",)]


class EndsAndFillsWithOnes:
    """As SigLIP's: one token ends a text and fills up the rest, and is put in the last place where a text is cut."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> torch.Tensor:
        length = context_length or 4
        rows = [[5 + len(word) for word in text.split()][: length - 1] for text in texts]
        return torch.tensor([row + [1] * (length - len(row)) for row in rows])


def test_a_tokenizer_whose_end_also_fills_up(tiny: Clip) -> None:
    other, cuts = dataclasses.replace(tiny, tokenizer=EndsAndFillsWithOnes()), Notes()
    texts = ["one two three", "one two three four", "one two three four five", "one", ""]
    assert torch.equal(caption_tokens(other, split_of(*texts), cuts), other.tokenizer(texts))
    assert [one.names for one in cuts.skipped()] == [("album[101]", "album[102]")]
    other.require_short([texts[0], texts[3]])
    with pytest.raises(ModelError, match=r"^1 prompts are longer than the 4 tokens .* such as 'one two three four': "):
        other.require_short(texts[:2])


def test_the_vocabulary_of_open_clip(tiny: Clip) -> None:
    other = dataclasses.replace(tiny, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
    cuts = Notes()
    captions = ("a " * 75, "a " * 76)
    assert torch.equal(caption_tokens(other, split_of(*captions), cuts), other.tokenizer(list(captions)))
    assert cuts.skipped() == (Skipped("caption cut to the 77 tokens that the model reads", ("album[101]",), True),)


def test_several_splits_are_counted_together_and_in_pieces(tiny: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flora_secure.model.features._CAPTIONS", 2)
    cuts, long = Notes(), "a " * 20
    first = caption_tokens(tiny, split_of("a", long, "a b", "b", long), cuts)
    assert torch.equal(first, tiny.tokenizer(["a", long, "a b", "b", long]))
    assert caption_tokens(tiny, split_of(), cuts).shape == (0, 16)
    caption_tokens(tiny, split_of(long), cuts)
    assert [(one.count, one.names) for one in cuts.skipped()] == [(3, ("album[101]", "album[104]", "album[100]"))]


def test_labelled_images_have_none(tiny: Clip) -> None:
    labelled = dataclasses.replace(split_of("a"), captions=None)
    with pytest.raises(ValueError, match="'album' have labels, and no captions"):
        caption_tokens(tiny, labelled, Notes())
