"""Small federations of the digits data set, and runs in them: what tests of training and of run folders share."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Split
from flora_secure.data.federation import Federation, load_federation
from flora_secure.engine import task as engine
from flora_secure.engine.competitors import competitors_of
from flora_secure.engine.simulation import Simulation, without_noise
from flora_secure.engine.summary import summarise
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.masking import settled
from flora_secure.records.evidence.sums import bytes_of_adapter
from flora_secure.records.run_folder import RunFolder

DIGITS = {
    "data.dataset": "digits",
    "data.clients": 10,
    "training.rounds": 3,
    "privacy.simulation_noise": True,
}
SMALL = {**DIGITS, "data.partition": "iid", "privacy.epsilon": 50.0}
# what `small` takes so that a tower that trains, which is slow, is trained little
FEW = {"training__rounds": 2, "training__local_steps": 2, "privacy__epsilon": math.inf, "data__clients": 10}

_FEATURES = ArrayCache(Path(os.environ["XDG_CACHE_HOME"]) / "features-of-tests", print)


def prepare(config: RunConfig, federation: Federation) -> Task:
    """The engine's, with features that one test of all workers takes: a second for each task otherwise."""
    if federation.dataset.captioned or not len(federation.dataset.public):
        config = replace(config, training=replace(config.training, warm_start=None, control_variate=None))
    return engine.prepare(config, federation, _FEATURES)


def changed(base: dict[str, object], changes: dict[str, object]) -> RunConfig:
    """`base` with changes whose keys have two underscores in the place of the dot. What public data would decide is
    set, where it does something: that takes half a second a task."""
    given = {**base, **{key.replace("__", "."): value for key, value in changes.items()}}
    config = override(RunConfig(), given)
    if config.model.placement != "text-projection":
        return config
    decided = {"training.warm_start": "images", "training.control_variate": 1.0}
    if config.privacy.unit == "example":
        del decided["training.control_variate"]
    return override(config, {**decided, **given})


def small(**changes: object) -> RunConfig:
    return changed(SMALL, changes)


def task_of(config: RunConfig) -> Task:
    torch.set_num_threads(1)
    return prepare(config, load_federation(config.data, config.seed))


def few_images(**changes: object) -> Task:
    """Sixty images at ten clients, as many for testing, two prompts a class: for towers that train."""
    torch.set_num_threads(1)
    config = small(**{**FEW, **changes})
    data = load_federation(config.data, config.seed).dataset
    few = np.arange(60)
    data = replace(data, private=data.private.at(few), test=data.test.at(few), templates=data.templates[:2])
    return prepare(config, Federation(data, np.array_split(few, 10)))


def captioned(federation: Federation) -> Federation:
    """Every image twice, with captions that tell its class."""
    data = federation.dataset

    def twice(split: Split) -> Split:
        pairs = split.at(np.repeat(np.arange(min(len(split), 80)), 2))
        texts = [f"the number {data.class_names[label]}, {i}" for i, label in enumerate(pairs.labels)]
        return replace(pairs, labels=np.zeros_like(pairs.labels), captions=tuple(texts))

    splits = {name: twice(getattr(data, name)) for name in ("private", "public", "test")}
    clients = np.array_split(np.arange(160), 10)
    return Federation(replace(data, **splits, class_names=(), templates=()), clients)


def finish(config: RunConfig, task: Task) -> Simulation:
    simulation = Simulation(config, task)
    list(simulation.rounds())
    return simulation


def kept(config: RunConfig, task: Task, path: Path, compare: tuple[str, ...] = ()) -> Path:
    """A finished run in the new folder `path`: its rounds, adapter and report, with competitors to `compare`."""
    config = settled(config)
    simulation = Simulation(config, task)
    server = simulation.server
    first = bytes_of_adapter(server.broadcast) if server.keeps_sums else None
    folder = RunFolder(path, config, adapter=first)
    for record in simulation.rounds(transcript=folder.transcript(config)):
        folder.append_round(record, None, server.kept_sum)
    adapter = folder.write_adapter(simulation.save_adapter)
    no_noise = without_noise(config, task) if "no-noise" in compare else None
    beside = competitors_of(simulation, compare, no_noise)
    hashes = {"rounds_hash": folder.last_hash, "adapter_hash": adapter}
    report = summarise(simulation, total_seconds=1.0, competitors=beside, **hashes)
    folder.write_report(report)
    return path


def outcome(simulation: Simulation) -> list[tuple]:
    """What a run did, without what a clock has measured."""
    return [
        (r.accuracy, r.survivors, r.upload_bytes, r.download_bytes, r.payload_bytes, r.model_hash)
        for r in simulation.records
    ]
