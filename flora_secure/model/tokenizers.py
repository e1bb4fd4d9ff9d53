"""What turns a model's prompts into tokens: the embedded vocabulary, or what open_clip has for an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import open_clip
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from flora_secure.errors import ModelError, first_line
from flora_secure.model.weights import folder_config


class Tokenizer(Protocol):
    """What open_clip's tokenizers do: texts to tokens, int64 (n, context), cut at that context or the model's own."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor: ...


def cut_at_context(tokenizer: Tokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Tokens int64 (n, context) of `texts`, and which of them were longer than that, bool (n,).

    One place more shows what was cut: either the end of the text stood there, or a word stands where the end was put,
    which is all there is to see where ends also fill up (SigLIP's tokenizers).
    """
    tokens = tokenizer(texts)
    context = tokens.shape[1]
    longer = tokenizer(texts, context_length=context + 1)
    filler = tokenizer([""], context_length=context + 1)[0, -1]
    return tokens, (tokens != longer[:, :context]).any(1) | (longer[:, context] != filler)


def folder_tokenizer(folder: Path, vocabulary: Path) -> Tokenizer:
    """The tokenizer of an open_clip folder whose text tower reads byte pairs of this `vocabulary`."""
    context = folder_config(folder)["model_cfg"]["text_cfg"]["context_length"]
    tokenizer: Tokenizer = SimpleTokenizer(bpe_path=str(vocabulary), context_length=context)
    return tokenizer


def open_clip_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of one of open_clip's architectures. Most come with open_clip, some from Hugging Face.

    Raises ModelError, one line, which names the tokenizer that cannot be had.
    """
    try:
        tokenizer: Tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # transformers, its hub and the network each raise their own kinds
        name = (open_clip.get_model_config(model) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
        remedy = "run once with a network, which downloads it, or set HF_HOME to a cache that holds it"
        if isinstance(error, ImportError):
            remedy = "pip install transformers" if error.name == "transformers" else "install what is missing"
        raise ModelError(
            f"model {model!r} needs {f'the tokenizer {name!r}' if name else 'a tokenizer'}, which cannot be loaded "
            f"({first_line(error)}): {remedy}, or use an architecture whose tokenizer comes with open_clip, such as "
            "ViT-B-32"
        ) from None
    return tokenizer
