"""Small federations of the digits data set, and runs in them: what tests of training and of run folders share."""

import torch

from flora_secure.config import RunConfig, override
from flora_secure.data.federation import load_federation
from flora_secure.simulation import Simulation
from flora_secure.task import Task, prepare

DIGITS = {
    "data.dataset": "digits",
    "data.clients": 10,
    "training.rounds": 3,
    "privacy.simulation_noise": True,
}
SMALL = {**DIGITS, "data.partition": "iid", "privacy.epsilon": 50.0}


def changed(base: dict[str, object], changes: dict[str, object]) -> RunConfig:
    """``base`` with changes whose keys have two underscores in the place of the dot."""
    return override(RunConfig(), {**base, **{key.replace("__", "."): value for key, value in changes.items()}})


def small(**changes: object) -> RunConfig:
    return changed(SMALL, changes)


def task_of(config: RunConfig) -> Task:
    torch.set_num_threads(1)
    return prepare(config, load_federation(config.data, config.seed))


def finish(config: RunConfig, task: Task) -> Simulation:
    simulation = Simulation(config, task)
    list(simulation.rounds())
    return simulation


def outcome(simulation: Simulation) -> list[tuple]:
    """What a run did, without what a clock has measured."""
    return [
        (r.accuracy, r.survivors, r.upload_bytes, r.download_bytes, r.payload_bytes, r.model_hash)
        for r in simulation.records
    ]
