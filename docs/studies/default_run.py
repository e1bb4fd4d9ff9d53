"""Accuracy of the default run over seeds and budgets, beside its competitors: `python docs/studies/default_run.py`.

With `--dataset`, `--test` or `--unit`, of another one. Each seed deals the images anew, where they are dealt, and draws
the noise, so that the figures repeat. Masking is left out, since the sum is the same to the last bit with it. Test
images are looked at after the last round alone.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean, pstdev
from tempfile import TemporaryDirectory

from flora_secure.data.cache import ArrayCache
from flora_secure.data.federation import load_federation
from flora_secure.engine.competitors import competitors_of
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import prepare
from flora_secure.planning.config import RunConfig, override


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 4.0, 8.0, math.inf])
    parser.add_argument("--dataset", default=RunConfig().data.dataset)
    parser.add_argument("--test", default="default")
    parser.add_argument("--unit", default="client")
    parser.add_argument("--rule", default="prompt-basis")
    parser.add_argument("--weights", help="the folder of another pretraining, not the embedded weights")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        cache = ArrayCache(Path(folder), print)
        for epsilon in options.epsilons:
            measure(options, epsilon, cache)


def measure(options: argparse.Namespace, epsilon: float, cache: ArrayCache) -> None:
    """Print the accuracy at one budget: mean, deviation and least over the seeds."""
    found = []
    for seed in range(options.seeds):
        changes = {
            "seed": seed,
            "data.dataset": options.dataset,
            "data.test": options.test,
            "privacy.unit": options.unit,
            "privacy.epsilon": epsilon,
            "privacy.simulation_noise": epsilon < math.inf,
            "aggregation.secagg": "off",
            "model.rule": options.rule,
            "model.pretrained": options.weights,
        }
        config = override(RunConfig(), changes)
        federation = load_federation(config.data, config.seed)
        config = federation.settled(config)
        task = prepare(config, federation, cache)
        run = Simulation(task.made.config, task)
        *_, last = run.rounds()
        found.append(last.accuracy)
        if seed == 0 and epsilon == options.epsilons[0]:
            print(f"zero-shot {task.zero_shot:.1%}; " + "; ".join(task.made.choices.lines))
        if seed == 0:
            beside = competitors_of(run, ("local", "central"))
            alone = beside.local
            assert alone is not None
            assert beside.public is not None
            assert beside.central is not None
            print(
                f"  public labels alone {beside.public:.1%}, all data in one place {beside.central:.1%}; one client "
                f"alone {alone.mean:.1%} (federated there {alone.federated:.1%}, fitted on at home "
                f"{alone.fitted_on:.1%}), the {alone.largest} largest {alone.mean_of_largest:.1%} "
                f"({alone.federated_of_largest:.1%}, {alone.fitted_on_of_largest:.1%})",
                flush=True,
            )
    print(
        f"epsilon {epsilon:g}, unit {options.unit}: mean {fmean(found):.2%}, standard deviation {pstdev(found):.2%}, "
        f"least {min(found):.2%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
