"""What stands beside one accuracy figure: its confidence interval, each class, each client."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959963984540054  # 0.975 quantile of the normal distribution


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927), as fractions.

    Raises ValueError unless 0 <= ``correct`` <= ``total`` and ``total`` > 0.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} right of {total} is no proportion")
    share, weight = correct / total, _Z95**2 / total
    centre = (share + weight / 2) / (1 + weight)
    half = _Z95 * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    # exact at the ends, where rounding could leave the proportion outside
    return (centre - half if correct else 0.0), (centre + half if correct < total else 1.0)


@dataclass(frozen=True)
class Evaluation:
    """Fractions. ``interval``: of the top-1. ``per_class``: recall of each class, None where no test image shows it.
    ``client_mean``, ``client_worst_decile``: see :func:`evaluate`."""

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
    """Evaluate ``predicted`` against the test images' ``labels``, both int64 (n,), n > 0.

    A client's accuracy is what the model would reach on test images that are mixed like the client's own labels
    (``client_labels[i]``, int64, at least one): the mean recall of its images' classes. The worst decile is the mean
    over the tenth of the clients (rounded up) that fare worst. None where a client holds a class that no test image
    shows.
    """
    right = np.bincount(labels[predicted == labels], minlength=classes)
    shown = np.bincount(labels, minlength=classes)
    recall = np.divide(right, shown, out=np.full(classes, np.nan), where=shown > 0)
    of_clients = np.sort([recall[own].mean() for own in client_labels])
    known = not np.isnan(of_clients).any()
    return Evaluation(
        interval=wilson_interval(int(right.sum()), len(labels)),
        per_class=[None if math.isnan(value) else value for value in recall.tolist()],
        client_mean=float(of_clients.mean()) if known else None,
        client_worst_decile=float(of_clients[: math.ceil(len(of_clients) / 10)].mean()) if known else None,
    )
