"""What turns a model's prompts into tokens: the embedded vocabulary, or what open_clip has for an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import open_clip
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer
from torch import Tensor

from flora_secure.boundary.foreign import printable
from flora_secure.errors import ModelError, first_line

_VOCABULARY = 49_408  # of open_clip's own tokenizer, and of its text towers where nothing else is said
_OPTIONS: dict[str, tuple[object, ...]] = {  # of tokenizers, that a stranger's configuration may set
    "clean": ("lower", "canonicalize", "whitespace"),
    "strip_sep_token": (True, False),
}
_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")


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


def embedded_tokenizer(vocabulary: Path, context: int) -> Tokenizer:
    """The tokenizer of the embedded model, whose text tower reads byte pairs of this `vocabulary`."""
    tokenizer: Tokenizer = SimpleTokenizer(bpe_path=str(vocabulary), context_length=context)
    return tokenizer


def folder_tokenizer(folder: Path, text: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of an open_clip folder, of whose configuration `text` is the `text_cfg`: open_clip's own, or that
    of transformers' files in the folder. None where those are needed and are not there.

    What a stranger wrote may clean texts, and have no code run. Raises ModelError, one line, for a tokenizer that
    cannot be loaded, for options that are not respected, and for one that knows more tokens than the text tower.
    """
    where, options = f"`model.pretrained`: folder {str(folder)!r}", text.get("tokenizer_kwargs") or {}
    for key, value in options.items():
        if key not in _OPTIONS or value not in _OPTIONS[key]:
            raise ModelError(f"{where}: text_cfg.tokenizer_kwargs.{printable(key)[:60]} {value!r:.60} is not supported")
    if mode := text.get("tokenizer_mode"):
        raise ModelError(f"{where}: text_cfg.tokenizer_mode {mode!r:.60} is not supported")
    context, most = text.get("context_length", DEFAULT_CONTEXT_LENGTH), text.get("vocab_size", _VOCABULARY)
    tokenizer: Any
    if not text.get("hf_tokenizer_name"):
        tokenizer = SimpleTokenizer(context_length=context, **options)
        known = tokenizer.vocab_size
    else:
        if not any((folder / name).is_file() for name in _FILES):
            return None
        try:
            tokenizer = HFTokenizer(
                str(folder), context_length=context, trust_remote_code=False, local_files_only=True, **options
            )
            known = len(tokenizer.tokenizer)
        except Exception as error:  # transformers raises any kind for files that are not what they should be
            raise ModelError(f"{where}: its tokenizer cannot be loaded: {printable(first_line(error))}") from None
    if known > most and not text.get("hf_model_name"):
        raise ModelError(
            f"{where}: its tokenizer knows {known:,} tokens, its text tower {most:,} (text_cfg.vocab_size): the folder "
            "must hold the tokenizer that the weights were trained with, and text_cfg.hf_tokenizer_name name it"
        )
    return cast(Tokenizer, tokenizer)


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
