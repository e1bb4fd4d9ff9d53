"""Fixtures: a federation of the digits whose clients hold different classes, and masks that mask nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from federations import changed, task_of

from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig

SKEWED = {
    "data.dataset": "digits",
    "data.clients": 24,  # so few that masking starts no processes
    "data.partition": "dirichlet:0.2",
    "training.rounds": 3,
    "training.warm_start": "images",
    "training.control_variate": 0.0,
    "aggregation.corrupt": 0.0,
}


def skewed(**changes: object) -> RunConfig:
    return changed(SKEWED, changes)


@pytest.fixture(scope="session")
def digits_at_sites() -> Task:
    return task_of(skewed())


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch) -> None:
    """Intervals from a quarter of the resamples, which is the time that they take."""
    monkeypatch.setattr("flora_secure.auditing.attacks.statistics.RESAMPLES", 1000)


@pytest.fixture
def broken_masks(monkeypatch) -> None:
    """Every keystream is zeros: the protocol runs, and its sums are right, but nothing is masked."""
    from flora_protocols import keystream

    def opened(key: bytes) -> Callable[..., None]:
        def fill(tile: bytes, zeros: memoryview, _: None, out: memoryview) -> None:
            np.frombuffer(out, np.uint8)[:] = 0

        return fill

    monkeypatch.setattr(keystream, "_SHORT_STREAM", opened)
    monkeypatch.setattr(keystream, "_LONG_STREAM", opened)
