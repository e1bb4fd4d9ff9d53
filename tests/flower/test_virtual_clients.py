"""A simulation on Flower's own engine is the one in this process."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("ray")

from federations import small, task_of

import flora_secure
from flora_secure.engine.flower.virtual import VirtualFederation
from flora_secure.engine.simulation import Simulation
from flora_secure.errors import ConfigError
from flora_secure.planning.masking import settled


def test_adapter_survivors_and_budget_are_those_of_this_process() -> None:
    config = settled(small(data__clients=6, training__rounds=2, aggregation__dropout=0.2))
    task = task_of(config)
    here, there = Simulation(config, task), VirtualFederation(config, task, None, print)
    list(here.rounds())
    list(there.rounds())
    for ours, theirs in zip(here.records, there.records, strict=True):
        assert theirs.survivors == ours.survivors
        assert len(ours.survivors) == 5
        assert theirs.epsilon == ours.epsilon
        assert theirs.download_bytes == ours.download_bytes
    adapters = [one.server.checkpoint().server.adapter for one in (here, there)]
    assert np.abs(adapters[0] - adapters[1]).max() < 1e-5
    assert np.abs(adapters[0]).max() > 0.01


@pytest.mark.parametrize(
    ("change", "says"),
    [({"aggregation__secagg": "off"}, "masking is off"), ({"aggregation__masking": "counted"}, "counted")],
)
def test_what_this_engine_cannot_do_is_refused(change: dict, says: str) -> None:
    config = small(data__clients=6, **change)
    with pytest.raises(ConfigError, match=says):
        VirtualFederation(config, task_of(config), None, print)


def test_data_that_a_program_passes_are_refused() -> None:
    config = small(data__clients=6)
    passed = dataclasses.replace(config, data=dataclasses.replace(config.data, dataset="own:mine"))
    with pytest.raises(ConfigError, match="in none but this"):
        VirtualFederation(passed, task_of(config), None, print)


def test_an_engine_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="give process or flower"):
        flora_secure.simulate(engine="spark")  # type: ignore[arg-type]
