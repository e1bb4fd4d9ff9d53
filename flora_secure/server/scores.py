"""What stands beside one accuracy figure: its confidence interval, each class, each client."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_Z95 = 1.959963984540054  # 0.975 quantile of the normal distribution


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927), as fractions.

    Raises ValueError unless 0 <= `correct` <= `total` and `total` > 0.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} right of {total} is no proportion")
    share, weight = correct / total, _Z95**2 / total
    centre = (share + weight / 2) / (1 + weight)
    half = _Z95 * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    # exact at the ends, where rounding could leave the proportion outside
    return (centre - half if correct else 0.0), (centre + half if correct < total else 1.0)


def guessed(right: int, total: int, chance: float) -> bool:
    """Whether guessing, which is right with probability `chance`, explains `right` answers of `total` as well.

    The rule: the 95 % interval (Wilson) does not lie above chance. A model that guesses is missed in one case of forty.
    False alarms: with t test images, a model whose true accuracy p is 1.96 (√(chance (1 - chance)) + √(p (1 - p))) / √t
    above chance is suspected in one case of forty, a better one less often. For ten classes that is an accuracy of 25 %
    with 100 images, and of 12 % with 4,000.
    """
    return wilson_interval(right, total)[0] <= chance


@dataclass(frozen=True)
class Evaluation:
    """Fractions. `interval`: of the top-1. `per_class`: recall of each class, None where no test image shows it.
    `client_mean`, `client_worst_decile`: see `evaluate`."""

    interval: tuple[float, float]
    per_class: list[float | None]
    client_mean: float | None
    client_worst_decile: float | None


def evaluate(
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: int,
    client_labels: Sequence[NDArray[np.int64]],
) -> Evaluation:
    """Evaluate `predicted` against the test images' `labels`, both int64 (n,), n > 0.

    A client's accuracy is what the model would reach on test images that are mixed like the client's own labels
    (`client_labels[i]`, int64, at least one): the mean recall of its images' classes. The worst decile is the mean
    over the tenth of the clients (rounded up) that fare worst. None where a client holds a class that no test image
    shows, and where nobody knows the clients' labels.
    """
    right = np.bincount(labels[predicted == labels], minlength=classes)
    shown = np.bincount(labels, minlength=classes)
    recall = np.divide(right, shown, out=np.full(classes, np.nan), where=shown > 0)
    of_clients = np.sort([recall[own].mean() for own in client_labels])
    known = len(of_clients) > 0 and not np.isnan(of_clients).any()
    return Evaluation(
        interval=wilson_interval(int(right.sum()), len(labels)),
        per_class=[None if math.isnan(value) else value for value in recall.tolist()],
        client_mean=float(of_clients.mean()) if known else None,
        client_worst_decile=float(of_clients[: math.ceil(len(of_clients) / 10)].mean()) if known else None,
    )


RECALLS = (1, 5, 10)
TIE = 1e-6  # cosines that rounding in float32 may have set apart
_AT_ONCE = 1 << 22  # similarities in memory at a time: 16 MiB, which a processor reads several times


@dataclass(frozen=True, eq=False)
class Ranks:
    """How many wrong answers come before the (first) right one, 0 the best: `image_to_text` int64 (n,) wrong captions
    of each image, `text_to_image` int64 (m,) wrong images of each caption."""

    image_to_text: Tensor = field(repr=False)
    text_to_image: Tensor = field(repr=False)

    def recall(self, k: int) -> tuple[float, float]:
        """The recall@k, as fractions, image to text and text to image: right answers among the first k. Images find any
        of their captions."""
        image, text = (float((ranks < k).double().mean()) for ranks in (self.image_to_text, self.text_to_image))
        return image, text


@torch.no_grad()
def ranks(images: Tensor, captions: Tensor, image_of: Tensor, *, at_once: int = _AT_ONCE) -> Ranks:
    """Rank by cosine what belongs together.

    Args:
        images: embeddings float32 (n, e) of unit norm, n > 0.
        captions: embeddings float32 (m, e) of unit norm.
        image_of: int64 (m,), the image of each caption; every image has one at least.
        at_once: similarities in memory at a time (whole rows of `m` at least); n × m never are at once.

    Ties count against us: a wrong answer whose cosine is not smaller by `TIE` comes first, so that a model that gives
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


@dataclass(frozen=True)
class Hits:
    """How many test images have their own class nearest. `among_unseen`: images of unseen classes, with those classes
    alone to choose from; `unseen_among_all` and `seen_among_all`: with all classes, of either kind of image."""

    among_unseen: int
    unseen_among_all: int
    seen_among_all: int


@torch.no_grad()
def hits(
    seen: tuple[Tensor, Tensor], seen_labels: Tensor, unseen: tuple[Tensor, Tensor], unseen_labels: Tensor
) -> Hits:
    """Count right answers.

    Args:
        seen, unseen: embeddings float32 (classes, e) of the classes and (n, e) of their test images.
        seen_labels, unseen_labels: int64 (n,), the class of each image among its own kind.

    Ties count as wrong, so that a model that gives everything one embedding, or NaN, is right nowhere (but where there
    is one class to choose from).
    """
    classes = torch.cat([seen[0], unseen[0]])
    # one product for both questions: who is right among all is right among fewer, however it was rounded
    cosines, own = unseen[1] @ classes.T, unseen_labels + len(seen[0])
    return Hits(
        among_unseen=_right(cosines[:, len(seen[0]) :], unseen_labels),
        unseen_among_all=_right(cosines, own),
        seen_among_all=_right(seen[1] @ classes.T, seen_labels),
    )


def _right(cosines: Tensor, labels: Tensor) -> int:
    own = cosines.gather(1, labels[:, None])
    others = cosines.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
    return int((own > others).sum())
