"""Retrieval between images and captions: at which rank each finds what belongs to it, and recall@k.

An image may have several captions, any of which is right for it, as is usual for Flickr30k and COCO (Karpathy, Fei-Fei
2015, arXiv 1412.2306; Radford et al. 2021, arXiv 2103.00020, section 3.1.4); a caption has one image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

RECALLS = (1, 5, 10)
TIE = 1e-6  # cosines that rounding in float32 may have set apart
_AT_ONCE = 1 << 22  # similarities in memory at a time: 16 MiB, which a processor reads several times


@dataclass(frozen=True, eq=False)
class Ranks:
    """How many wrong answers come before the (first) right one, 0 the best: ``image_to_text`` int64 (n,) wrong captions
    of each image, ``text_to_image`` int64 (m,) wrong images of each caption."""

    image_to_text: Tensor = field(repr=False)
    text_to_image: Tensor = field(repr=False)

    def recall(self, k: int) -> tuple[float, float]:
        """recall@k as fractions, image to text and text to image: right answers among the first k. Images find any of
        their captions."""
        image, text = (float((ranks < k).double().mean()) for ranks in (self.image_to_text, self.text_to_image))
        return image, text


@torch.no_grad()
def ranks(images: Tensor, captions: Tensor, image_of: Tensor, *, at_once: int = _AT_ONCE) -> Ranks:
    """Rank by cosine what belongs together.

    Args:
        images: embeddings float32 (n, e) of unit norm, n > 0.
        captions: embeddings float32 (m, e) of unit norm.
        image_of: int64 (m,), the image of each caption; every image has one at least.
        at_once: similarities in memory at a time (whole rows of ``m`` at least); n × m never are at once.

    Ties count against us: a wrong answer whose cosine is not smaller by ``TIE`` comes first, so that a model that gives
    everything one embedding, or NaN, finds nothing. Raises ValueError for shapes that do not fit and an image without a
    caption.
    """
    n, m = len(images), len(captions)
    if image_of.shape != (m,) or images.shape[1:] != captions.shape[1:]:
        raise ValueError(f"images {tuple(images.shape)}, captions {tuple(captions.shape)} and {len(image_of)} owners")
    owned = torch.bincount(image_of, minlength=n)
    if n == 0 or len(owned) != n or not bool((owned > 0).all()):
        raise ValueError(f"{n} images, {int((owned > 0).sum())} of them and of others with a caption: each needs one")
    of_caption = (images[image_of] * captions).sum(1) - TIE
    lowest = torch.full((n,), -torch.inf, dtype=of_caption.dtype, device=of_caption.device)
    of_image = lowest.scatter_reduce(0, image_of, of_caption, "amax")
    # results have their places from the start: small tensors that outlive a piece would keep its memory from reuse
    before_image = torch.empty(n, dtype=torch.int64, device=of_caption.device)
    before_caption = torch.zeros(m, dtype=torch.int64, device=of_caption.device)
    order = torch.argsort(image_of)
    ends = torch.cumsum(owned, 0).tolist()
    rows = max(1, at_once // m)
    whole = images.new_empty(min(rows, n), m)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        cosines = torch.mm(images[start:stop], captions.T, out=whole[: stop - start])
        own = order[ends[start - 1] if start else 0 : ends[stop - 1]]
        cosines[image_of[own] - start, own] = -torch.inf
        # all but the smaller ones, rather than those at least as large: NaN counts against us too
        before_image[start:stop] = m - (cosines < of_image[start:stop, None]).sum(1, dtype=torch.int32)
        before_caption += stop - start - (cosines < of_caption).sum(0, dtype=torch.int32)
    return Ranks(before_image, before_caption)
