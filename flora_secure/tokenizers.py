"""What turns a model's prompts into tokens: the embedded vocabulary, or what open_clip has for an architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import open_clip
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from flora_secure.errors import first_line
from flora_secure.weights import ModelError, folder_config

Tokenizer = Callable[[list[str]], Tensor]


def folder_tokenizer(folder: Path, vocabulary: Path) -> Tokenizer:
    """Of an open_clip folder whose text tower reads byte pairs of this ``vocabulary``."""
    context = folder_config(folder)["model_cfg"]["text_cfg"]["context_length"]
    tokenizer: Tokenizer = SimpleTokenizer(bpe_path=str(vocabulary), context_length=context)
    return tokenizer


def open_clip_tokenizer(model: str) -> Tokenizer:
    """Of one of open_clip's architectures. Most tokenizers come with open_clip; some are downloaded from Hugging Face.

    Raises ModelError, one line, which names the tokenizer that cannot be had.
    """
    try:
        tokenizer: Tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # transformers, its hub and the network each raise their own kinds
        name = (open_clip.get_model_config(model) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
        remedy = (
            "pip install transformers"
            if isinstance(error, ImportError)
            else "run once with a network, which downloads it, or set HF_HOME to a cache that holds it"
        )
        raise ModelError(
            f"model {model!r} needs {f'the tokenizer {name!r}' if name else 'a tokenizer'}, which cannot be loaded "
            f"({first_line(error)}): {remedy}, or use an architecture whose tokenizer comes with open_clip, such as "
            "ViT-B-32"
        ) from None
    return tokenizer
