"""Accuracy of the default run over seeds, with and without noise: `python docs/studies/default_run.py`.

With another `--dataset`, of that one. Each seed deals the images anew; noise comes from the seed too, so that the
figures repeat. Masking is left out, since the sum is the same to the last bit with it.
"""

from __future__ import annotations

import argparse
from statistics import fmean, pstdev

from flora_secure.data.federation import load_federation
from flora_secure.engine.simulation import Simulation, without_noise
from flora_secure.engine.task import prepare
from flora_secure.planning.config import RunConfig, override


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epsilon", type=float, default=4.0)
    parser.add_argument("--dataset", default=RunConfig().data.dataset)
    parser.add_argument("--rule", default="prompt-basis")
    options = parser.parse_args()
    private, clean = [], []
    for seed in range(options.seeds):
        changes = {
            "seed": seed,
            "data.dataset": options.dataset,
            "privacy.epsilon": options.epsilon,
            "privacy.simulation_noise": True,
            "aggregation.secagg": "off",
            "model.rule": options.rule,
        }
        config = override(RunConfig(), changes)
        task = prepare(config, load_federation(config.data, config.seed))
        *_, last = Simulation(config, task).rounds()
        private.append(last.accuracy)
        clean.append(without_noise(config, task))
        print(
            f"seed {seed}: {private[-1]:.2%} at epsilon {options.epsilon:g}, {clean[-1]:.2%} without noise", flush=True
        )
    for name, found in ((f"epsilon {options.epsilon:g}", private), ("without noise", clean)):
        print(f"{name}: mean {fmean(found):.2%}, standard deviation {pstdev(found):.2%}, least {min(found):.2%}")


if __name__ == "__main__":
    main()
