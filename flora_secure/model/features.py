"""Features of all images of a split, once: from the cache on disk, or through the frozen image tower."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import numpy as np
import open_clip
import timm
import torch
from torch import Tensor

from flora_secure.data.cache import ArrayCache, cache_key
from flora_secure.data.dataset import Split
from flora_secure.data.files.decoding import decode
from flora_secure.data.images import EncodedImages, Images, content
from flora_secure.data.notes import Notes
from flora_secure.model.clip import Clip
from flora_secure.model.image_views import ImageViews
from flora_secure.model.tokenizers import cut_at_context

_CHUNK = 256  # decoded images in memory at a time: 150 MB at 448 pixels


def split_features(clip: Clip, images: Images, *, views: ImageViews, cache: ArrayCache | None = None) -> Tensor:
    """`Clip.image_features` of pixels or encoded images, float32 (n, embed), on the model's device.

    Encoded images are decoded in worker processes and cut to the model's size as `clip.shape` says. A cached result is
    that of the same model, images, preprocessing, kind of device and release of torch. Raises DataError for an encoded
    image that is not what it was when it was checked.
    """
    return _split(clip, images, views, cache, "image features", partial(clip.image_features, views=views))


def split_pooled_features(clip: Clip, images: Images, *, views: ImageViews, cache: ArrayCache | None = None) -> Tensor:
    """`Clip.pooled_image_features`, float32 (n, views, width), in all else as `split_features`."""
    embed = partial(clip.pooled_image_features, views=views)
    return _split(clip, images, views, cache, "pooled image features", embed)


def _split(
    clip: Clip,
    images: Images,
    views: ImageViews,
    cache: ArrayCache | None,
    what: str,
    embed: Callable[[np.ndarray], Tensor],
) -> Tensor:
    device = clip.model.logit_scale.device
    key = _key(clip, images, views, what)
    if cache is not None:
        known = cache.get(key, len(images), "f4")
        if known is not None:
            return torch.from_numpy(known).to(device)
    if isinstance(images, EncodedImages):
        parts = [embed(pixels) for pixels in decode(images, clip.shape, _CHUNK)]
        features = torch.cat(parts) if parts else embed(np.zeros((0, 1, 1), np.uint8))
    else:
        features = embed(images)
    if cache is not None and len(images):
        cache.put(key, features.cpu().numpy())
    return features


def _key(clip: Clip, images: Images, views: ImageViews, what: str) -> str:
    line, data = content(images)
    # an array is stretched to the model's size, whatever the shape says for encoded images
    shape = clip.shape if isinstance(images, EncodedImages) else clip.shape.size
    return cache_key(
        *(
            what,
            4,
            clip.name,
            open_clip.__version__,
            timm.__version__,
            clip.model_hash,
            line,
            hashlib.sha256(data).hexdigest(),
            views.mirror,
            views.crops,
        ),
        *(shape, clip.mean, clip.std, clip.model.logit_scale.device.type, torch.__version__),
        *(() if clip.precision == torch.float32 else (str(clip.precision),)),
    )


_CAPTIONS = 10_000  # captions that are tokenized at a time


def caption_tokens(clip: Clip, split: Split, cuts: Notes) -> Tensor:
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
    for start in range(0, len(split), _CAPTIONS):
        tokens, cut = cut_at_context(clip.tokenizer, list(split.captions[start : start + _CAPTIONS]))
        for place in cut.nonzero().flatten().tolist():
            cuts.mark(reason, split.name(start + place))
        parts.append(tokens)
    return torch.cat(parts)
