"""Fixtures: a run to audit with masking, one without, and one whose masking was counted."""

from pathlib import Path

import pytest
from falsifying import small, written
from federations import task_of

from flora_secure.engine.task import Task


@pytest.fixture(scope="session")
def digits() -> Task:
    return task_of(small())


@pytest.fixture(scope="session")
def genuine(digits, tmp_path_factory) -> Path:
    return written(small(), digits, tmp_path_factory.mktemp("audit") / "run")


@pytest.fixture(scope="session")
def open_run(digits, tmp_path_factory) -> Path:
    return written(small(aggregation__secagg="off"), digits, tmp_path_factory.mktemp("audit") / "off")


@pytest.fixture(scope="session")
def counted_run(digits, tmp_path_factory) -> Path:
    return written(small(aggregation__masking="counted"), digits, tmp_path_factory.mktemp("audit") / "counted")
