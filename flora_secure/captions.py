"""Captions as a model reads them: tokens, cut to its context where they are longer, as open_clip's tokenizers do."""

from __future__ import annotations

import torch
from torch import Tensor

from flora_secure.clip import Clip
from flora_secure.data.dataset import Split
from flora_secure.data.skipped import SkipList
from flora_secure.tokenizers import cut_at_context

_CHUNK = 10_000  # captions that are tokenized at a time


def caption_tokens(clip: Clip, split: Split, cuts: SkipList) -> Tensor:
    """The captions of `split` as int64 (n, context), on the processor, in order.

    A caption that is longer than the context keeps its beginning, as in CLIP's training and in everybody's evaluation
    (Radford et al. 2021, arXiv 2103.00020, section 2.4); `cuts` counts it under its image's name. Captions are the
    clients' data and are not named themselves. Raises ValueError for a split without captions.
    """
    if split.captions is None:
        raise ValueError(f"images of {split.origin!r} have labels, and no captions")
    context = clip.tokenizer([""]).shape[1]
    reason = f"caption cut to the {context} tokens that the model reads"
    parts = [torch.empty(0, context, dtype=torch.int64)]
    for start in range(0, len(split), _CHUNK):
        tokens, cut = cut_at_context(clip.tokenizer, list(split.captions[start : start + _CHUNK]))
        for place in cut.nonzero().flatten().tolist():
            cuts.add(reason, split.name(start + place))
        parts.append(tokens)
    return torch.cat(parts)
