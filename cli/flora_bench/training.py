"""`bench training`: local training beside a plain loop of peft clients and beside full fine-tuning; whole runs.

Weights are random, since speed does not depend on them. CPU seconds; for whole runs, and on an accelerator, seconds on
the clock.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from statistics import median

from flora_bench.measure import Row, Scale, medians
from flora_secure.boundary.processes import fresh_python, surroundings
from flora_secure.errors import InputError
from flora_secure.planning.config import RunConfig, override
from flora_secure.records.record import PARTS

MISSING = "torch, open_clip and peft are not installed"
FLORA_TIME, FLORA_MEMORY = 34.72, 2.47  # Nguyen, Muñoz, Jannesari 2024, arXiv 2404.15182


def rows(scale: Scale, device: str = "cpu") -> Iterator[Row]:
    """Every row, as it is measured on `device`; none without the extra `train`.

    Raises `flora_secure.errors.ConfigError` if this machine has no such device.
    """
    if any(find_spec(name) is None for name in ("torch", "open_clip", "peft")):
        yield Row(figure="local training", setting="", ours=None, note=MISSING)
        return
    from flora_secure.model.devices import device_named

    device_named(device)
    yield from clients(scale, device)
    yield from epochs(scale, device)
    yield from precisions(scale, device)
    yield from runs(scale, device)


def clients(scale: Scale, device: str) -> Iterator[Row]:
    """Clients of the embedded model, their images cached: all in one batch, beside one after another through peft."""
    from flora_bench.training_peers import IMAGES, STEPS, batched_clients, clock_of, peft_client

    count = 20 if scale is Scale.QUICK else 1000
    ours, other = medians(
        1 if scale is Scale.QUICK else 5,
        batched_clients(count, device),
        peft_client(device),
        clock=clock_of(device),
    )
    yield Row(
        figure="local training of a client",
        setting=f"text projection, {IMAGES} images, {STEPS} steps, of {count:,} in a batch",
        ours=ours / count,
        other=other,
        against="a plain loop of peft clients",
        at_least=50.0,
    )


def epochs(scale: Scale, device: str) -> Iterator[Row]:
    """A local epoch of FLoRA's setting in processes of their own: time, and peak memory."""
    size = ("ViT-S-32-alt", 2) if scale is Scale.QUICK else ("ViT-B-32", 64)
    repeats = 1 if scale is Scale.QUICK else 5
    full = _epoch("full", *size, repeats=1 if device == "cpu" else repeats, device=device)
    setting = f"{size[0]}, {size[1]} images of 224 px, text projection"
    for kind, name, targets in (
        ("cached", "features cached", (FLORA_TIME, FLORA_MEMORY)),
        ("first", "features computed", (None, None)),
    ):
        seconds, memory = _epoch(kind, *size, repeats=repeats, device=device)
        for unit, ours, other, target in (("s", seconds, full[0], targets[0]), ("B", memory, full[1], targets[1])):
            if ours is None or other is None:
                continue  # the platform does not tell
            yield Row(
                figure="local epoch" if unit == "s" else "local epoch, peak memory",
                setting=f"{setting}, {name}",
                ours=ours,
                other=other,
                against="full fine-tuning (AdamW)",
                unit=unit,
                at_least=target,
            )


def _epoch(kind: str, model: str, images: int, repeats: int, device: str) -> tuple[float, float | None]:
    """Seconds (median of epochs) and peak memory in bytes, if known, of a fresh process: `training_peers.epoch`."""
    call = f"epoch({kind!r}, {model!r}, {images}, {repeats}, {device!r})"
    program = f"from flora_bench.training_peers import epoch; {call}"
    command = fresh_python("-c", program)
    done = subprocess.run(command, capture_output=True, check=True, env=surroundings(), text=True)  # noqa: S603  (our own program)
    *seconds, memory = done.stdout.split()
    return median(map(float, seconds)), None if memory == "None" else float(memory)


def precisions(scale: Scale, device: str) -> Iterator[Row]:
    """Image features under `--precision bfloat16`, beside float32, of images of the model's own size."""
    from flora_bench.training_peers import clock_of, image_features

    models = {"tiny": (1000, 20_000), "ViT-B-32": (16, 2048)}  # images on a processor, on an accelerator
    for model, counts in models.items():
        count = 2 if scale is Scale.QUICK else counts[device != "cpu"]
        trials = (image_features(model, count, precision, device) for precision in ("bfloat16", "float32"))
        ours, other = medians(1 if scale is Scale.QUICK else 3, *trials, clock=clock_of(device))
        yield Row(
            figure="image features in bfloat16",
            setting=f"{model}, {count:,} images",
            ours=ours,
            other=other,
            against="float32",
        )


def runs(scale: Scale, device: str) -> Iterator[Row]:
    """A thousand clients for thirty rounds: the training alone, and all of it with masking on every core, which no
    accelerator speeds up."""
    count, rounds = (20, 2) if scale is Scale.QUICK else (1000, 30)
    for secagg, figure, limit in (
        ("off", "training of a whole run", 10.0),
        ("semi-honest", "a whole run with masking", 60.0),
    )[: 2 if device == "cpu" else 1]:
        names = ("digits",) if scale is Scale.QUICK else ("fashion-mnist", "clothes")
        seconds, cpu, dataset, neighbours = _run(count, rounds, secagg, names, device)
        yield Row(
            figure=figure,
            setting=f"{count:,} clients, {rounds} rounds, {dataset}" + (f", k={neighbours}" if neighbours else ""),
            ours=seconds["training"] if secagg == "off" else sum(seconds[part] for part in PARTS),
            other=limit,
            against=f"{limit:g} s",
            at_most=1.0,
            note=f"seconds on the clock; {cpu:.3g} s of CPU in all processes; features computed before",
        )


def _run(
    clients: int, rounds: int, secagg: str, names: Sequence[str], device: str
) -> tuple[dict[str, float], float, str, int | None]:
    """A run over the first data set that this machine has: seconds on the clock by part, CPU seconds of all processes,
    that data set's name, and k."""
    from flora_secure.data.federation import load_federation
    from flora_secure.engine.simulation import Simulation
    from flora_secure.engine.task import prepare

    def configured(dataset: str) -> RunConfig:
        return override(
            RunConfig(),
            {
                "data.dataset": dataset,
                "data.clients": clients,
                "training.rounds": rounds,
                "training.device": device,
                "aggregation.secagg": secagg,
                "privacy.simulation_noise": True,
            },
        )

    for name in names:
        config = configured(name)
        try:
            federation = load_federation(config.data, config.seed)
            break
        except InputError:
            if name == names[-1]:
                raise
    simulation = Simulation(config, prepare(config, federation))
    total: dict[str, float] = {}
    before = sum(os.times()[:4])  # of this process and of those that have ended: workers count when the rounds are over
    for record in simulation.rounds():
        for part, seconds in record.seconds.items():
            total[part] = total.get(part, 0.0) + seconds
    dataset = f"{len(federation.dataset.private):,} images of {config.data.dataset}"
    return total, sum(os.times()[:4]) - before, dataset, record.neighbours
