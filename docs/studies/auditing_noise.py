"""How often the noise meter and the canaries raise an alarm: of correct runs, and of runs whose clients are broken.

    python docs/studies/auditing_noise.py meter            # 60 runs of each kind, without canaries
    python docs/studies/auditing_noise.py canaries         # 60 runs of each kind, 1000 canaries each

Every run is a whole simulation of the shipped icons at their own clients: training, clip, rotation, noise, the sum, the
server's step; masks are counted. What is broken is the clients' code, after the plan was made, so that log and report
claim what they would claim anyhow. Noise and coins come from the operating system: the figures vary from run to run of
this script, as a count of so many binomial trials does.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from flora_secure.auditing import noise_meter
from flora_secure.auditing.canaries import checks
from flora_secure.auditing.canaries.secret import Canaries, beside
from flora_secure.auditing.findings import VIOLATION, Block
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.data.federation import load_federation
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task, prepare
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.masking import settled
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.privacy.rounded_gaussian import RowsOfNoise
from flora_secure.records.evidence.sums import FOLDER, name_of

Broken = Callable[[NoisePlan], Any]


def noise_times(factor: Callable[[NoisePlan], float]) -> Broken:
    """Clients whose noise is so many times what the plan says."""

    def broken(plan: NoisePlan) -> Any:
        class Sampler(RowsOfNoise):
            def sample(self, y: Any, sigma: float) -> Any:
                return super().sample(y, factor(plan) * sigma)

        return mock.patch("flora_secure.client.upload.RowsOfNoise", Sampler)

    return broken


def unclipped(plan: NoisePlan) -> Any:
    """Clients that clip nothing."""

    def kept(rows: Any, norm: float) -> Any:
        return np.array(rows, np.float64), np.linalg.norm(rows, axis=1)

    return mock.patch("flora_secure.privacy.encoding.clip_rows", kept)


METER: dict[str, Broken | None] = {
    "correct": None,
    "8 % of the noise missing": noise_times(lambda plan: 0.92),
    "clip off": unclipped,
}
CANARIES: dict[str, Broken | None] = {
    "correct": None,
    "half the noise": noise_times(lambda plan: 0.5),
    "shares ÷ n instead of ÷ √h": noise_times(lambda plan: math.sqrt(plan.honest_minimum) / plan.clients),
    "clip off": unclipped,
}


@contextmanager
def audited(config: RunConfig, task: Task, broken: Broken | None) -> Iterator[tuple[Case, Path]]:
    """One run, as an auditor has it, and where its canaries are."""
    count = config.evidence.canaries
    canaries = Canaries.drawn(count, config.data_clients, task.trained.upload_size) if count else None
    if canaries is not None:
        config = override(config, {"evidence.canary_commitment": canaries.commitment})
    simulation = Simulation(config, task, canaries)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        (folder / FOLDER).mkdir(parents=True)
        if canaries is not None:
            beside(folder).write_bytes(canaries.to_bytes())
        with nullcontext() if broken is None else broken(simulation.server.plan):
            for record in simulation.rounds():
                assert simulation.server.kept_sum is not None
                (folder / FOLDER / name_of(record.round)).write_bytes(simulation.server.kept_sum)
        yield Case(folder, config, list(simulation.records), None, []), beside(folder)


def alarms(block: Block, *found: str) -> bool:
    """Whether any of these checks found a violation."""
    assert block.left_out is None, block.left_out
    return any(finding.severity == VIOLATION for finding in block.findings if finding.check in found)


def meter(
    config: RunConfig, task: Task, runs: int, kinds: dict[str, Broken | None] = METER
) -> dict[str, dict[str, int]]:
    """Alarms of the noise meter, by kind of run."""
    found = {}
    for kind, broken in kinds.items():
        found[kind] = {"meter": 0}
        for _ in range(runs):
            with audited(config, task, broken) as (case, _place):
                found[kind]["meter"] += alarms(noise_meter.block(case), "N-01", "N-02")
    return found


def canaries(
    config: RunConfig, task: Task, runs: int, kinds: dict[str, Broken | None] = CANARIES
) -> dict[str, dict[str, int]]:
    """Alarms of the fit and of the bound by f-DP, by kind of run; and of bounds in one run above the claim, which are
    none."""
    found = {}
    for kind, broken in kinds.items():
        found[kind] = {"fit": 0, "f-DP": 0, "one run (no alarm)": 0, "one-shot (no alarm)": 0}
        for _ in range(runs):
            with audited(config, task, broken) as (case, place):
                block = checks.block(case, place)
                value = {one.name: one.value or 0.0 for one in block.measurements}
                found[kind]["fit"] += alarms(block, "C-03")
                found[kind]["f-DP"] += alarms(block, "C-04")
                found[kind]["one run (no alarm)"] += value["ε, lower bound in one run"] > case.server
                found[kind]["one-shot (no alarm)"] += value["ε, one-shot estimate"] > case.server
    return found


def prepared(settings: dict[str, object]) -> tuple[RunConfig, Task]:
    """The configuration, with what the data say, and the task."""
    config = override(RunConfig(), {"training.warm_start": "images", "training.control_variate": 0.0, **settings})
    federation = load_federation(config.data, config.seed)
    config = settled(federation.settled(config))
    return config, prepare(config, federation)


def main() -> None:
    """Print a table of one of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("meter", "canaries"))
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=40, help="that hold data")
    parser.add_argument("--kind", action="append", help="of these alone; several times for several")
    given = parser.parse_args()
    settings: dict[str, object] = {"training.rounds": given.rounds, "aggregation.masking": "counted"}
    settings["data.clients"] = given.clients
    if given.what == "canaries":
        settings["evidence.canaries"] = given.canaries
    config, task = prepared(settings)
    began = time.perf_counter()
    measure, kinds = (meter, METER) if given.what == "meter" else (canaries, CANARIES)
    for kind, broken in kinds.items():
        if given.kind and kind not in given.kind:
            continue
        counts = measure(config, task, given.runs, {kind: broken})[kind]
        print(f"{kind}: " + ", ".join(f"{name} {count} of {given.runs}" for name, count in counts.items()), flush=True)
    print(f"{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
