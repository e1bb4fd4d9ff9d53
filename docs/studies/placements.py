"""Accuracy and bytes of every placement that the embedded model has: `python docs/studies/placements.py`.

Data set clothes, with fewer clients, rounds and local steps than the default run, since a tower that trains costs
some hundred times as much as its last matrix, without the warm start and the control variate, which only labels on the
text projection have; the same for all, so that the rows compare. Noise comes from the seed,
masking is left out (the sum is the same with it); bytes are those that `plan` gives with it.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch

from flora_secure.data.cache import ArrayCache, default_folder
from flora_secure.data.federation import load_federation
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import prepare
from flora_secure.planning.config import RunConfig, override
from flora_secure.records.forecast import forecast

ROWS: tuple[dict[str, Any], ...] = (
    {"model.placement": "text-projection"},
    {"model.placement": "text-projection", "model.rule": "frozen-a"},
    {"model.placement": "visual-projection"},
    {"model.placement": "both-projections"},
    {"model.placement": "text-attention"},
    {"model.placement": "text-attention-full", "model.last_layers": 1},
    {"model.placement": "text-mlp"},
    {"model.placement": "text-mlp", "model.last_layers": 1},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--local-steps", type=int, default=2)
    parser.add_argument("--only", help="rows of this placement")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cache = ArrayCache(default_folder(), print)
    print("| placement | rule | values | reduction on the wire | ε = 4 | no noise | training, s |")
    print("|---|---|---|---|---|---|---|")
    for row in ROWS:
        if options.only not in {None, row["model.placement"]}:
            continue
        found, seconds = [], 0.0
        for epsilon in (4.0, math.inf):
            changes = {
                "seed": options.seed,
                "data.dataset": "clothes",
                "data.clients": options.clients,
                "training.rounds": options.rounds,
                "training.local_steps": options.local_steps,
                "training.warm_start": "none",
                "training.control_variate": 0.0,
                "privacy.epsilon": epsilon,
                "privacy.simulation_noise": True,
                "aggregation.secagg": "off",
            }
            config = override(RunConfig(), changes | row)
            task = prepare(config, load_federation(config.data, config.seed), cache)
            simulation = Simulation(config, task)
            *_, last = simulation.rounds()
            found.append(100 * last.accuracy)
            seconds += sum(record.seconds["training"] for record in simulation.records) / 2
        size = {"data.clients": options.clients, "training.rounds": options.rounds}
        config = override(RunConfig(), {"data.dataset": "clothes", **size, **row})
        bytes_ = forecast(config).communication
        name = config.model.placement + (f", last {config.model.last_layers}" if config.model.last_layers else "")
        print(
            f"| `{name}` | `{config.model.trained_rule}` | {bytes_.parameters:,} | {bytes_.reduction:,.0f} × "
            f"| {found[0]:.2f} | {found[1]:.2f} | {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
