"""The accuracy of trained values on the test images of a run that is over, for who has these and the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset
from flora_secure.data.federation import load_federation
from flora_secure.engine.task import prepare
from flora_secure.errors import ModelError
from flora_secure.planning.config import RunConfig


def measure_of(
    config: RunConfig, model_hash: str | None, cache: ArrayCache | None = None, passed: Dataset | None = None
) -> Callable[[NDArray[np.float32]], float]:
    """What measures trained values, float32 (d,), as the run of that configuration measured its adapter.

    `model_hash`: SHA-256 of the frozen model, as the report has it; `passed`: data that a program passed to the run.
    Raises an `errors.InputError` for model or data that cannot be had, or are not the run's.
    """
    task = prepare(config, load_federation(config.data, config.seed, cache, passed), cache)
    if model_hash is not None and task.clip.model_hash != model_hash:
        raise ModelError(
            f"the model has SHA-256 {task.clip.model_hash:.12}…, and the run's has {model_hash:.12}…: accuracies "
            "cannot be measured again with another model"
        )
    return lambda values: task.evaluator.accuracy(task.factors(values))
