"""Runs of a part of the data set: of some of its clients, without some of its classes."""

import pytest
from falsifying import Table, changed, falsified, found, written
from federations import task_of

PART = {
    "data.dataset": "icons",
    "data.clients": 12,
    "training.rounds": 1,
    "training.warm_start": "images",
    "training.control_variate": 0.0,
    "privacy.epsilon": 50.0,
    "privacy.simulation_noise": True,
    "aggregation.secagg": "off",
}


@pytest.mark.parametrize("apart", [None, ("book", "key")])
def test_images_that_were_left_out_count(tmp_path, apart: tuple[str, ...] | None) -> None:
    config = changed(PART, {} if apart is None else {"data__unseen_classes": apart})
    run = written(config, task_of(config), tmp_path / "run")
    assert found(run) == {}

    def fewer(lines: list[Table], report: Table) -> None:
        one = next(x for x in report["data"]["skipped"] if x["reason"] == "image of a client that was not drawn")
        one["count"] -= 2000

    said = found(falsified(run, tmp_path / "fewer", fewer))
    assert "the data set has 10424" in said["A-37"]
