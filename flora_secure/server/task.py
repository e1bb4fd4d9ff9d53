"""What a server is told beside its configuration: numbers and hashes, and whom to ask what an adapter is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_secure.planning.rules import TrainedValues


@dataclass(frozen=True, kw_only=True)
class ServerTask:
    """What a server knows of the task: numbers and hashes, no model and no image.

    Attributes:
        trained: sizes of the adapter's factors, and which of them train.
        initial: float32 (trained.dimension,), the trained values before round 1.
        width: coordinates of a class embedding that a trained value moves, for the fitted server step.
        images: of all clients together, by which unit `example` is planned.
        model_hash, data_hash: SHA-256, hex, of the frozen model and of what the run trains on.
        accuracy: of an adapter, given its trained values as the clients receive them, float32 (trained.dimension,).
    """

    trained: TrainedValues
    initial: NDArray[np.float32]
    width: float
    images: int
    model_hash: str
    data_hash: str
    accuracy: Callable[[NDArray[np.float32]], float]
