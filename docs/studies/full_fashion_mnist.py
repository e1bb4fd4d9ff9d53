"""Accuracy on the full Fashion-MNIST over clients, budgets and seeds: `python docs/studies/full_fashion_mnist.py`.

50,000 private images dealt by Dirichlet 0.5, 10,000 test images, δ = 1e-5, all settings at their defaults but the
number of clients, the rounds, four crops of each image (`--crops 4`), and no tolerance of dropouts: nobody drops out
here, and the ledger then charges the very ε of the row (with `--dropout-tolerance 0.1`, the default, the noise of a
tenth of the clients is to spare, and some 6 % of ε stays unspent). Beside the figures stand the competitors: the same
head trained on the public labels alone, which needs no federation, and naive DP-FedAvg (both factors averaged, plain
mean, no momentum). Noise comes from the seed, so that the figures repeat; masking is left out, since the sum is the
same to the last bit with it. Needs Debian's package dataset-fashion-mnist, or --data-root.
"""

from __future__ import annotations

import argparse
import json
import math
from statistics import fmean, pstdev
from typing import Any

import torch

from flora_secure.client.closed_form import ClientBatch, ClosedForm
from flora_secure.data.cache import ArrayCache, default_folder
from flora_secure.data.federation import load_federation
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task, prepare
from flora_secure.model.image_views import ImageViews
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.sections import Crops

CROPS: Crops = 4
NAIVE = {
    "model.rule": "ab",
    "privacy.clip_norm": 1.0,
    "training.local_steps": 10,
    "training.local_rate": 1.0,
    "training.server_step": 1.0,
    "training.server_momentum": 0.0,
    "training.warm_start": "none",
    "training.control_variate": 0.0,
}


def public_labels_alone(task: Task) -> dict[str, float]:
    """The head trained on the labels of the public slice, by number of labels: percent on the test images."""
    public, learner = task.federation.dataset.public, task.learner
    assert isinstance(learner, ClosedForm)
    views = ImageViews(task.federation.dataset.mirror, CROPS)
    features, labels = task.clip.image_features(public.images, views=views), torch.from_numpy(public.labels)
    found = {}
    for count in (180, 900, len(public)):
        chosen = torch.randperm(len(public), generator=torch.Generator().manual_seed(0))[:count]
        batch = ClientBatch(features, labels, [chosen], len(task.federation.dataset.class_names))
        factors = task.initial
        best = 0.0
        for _ in range(20):  # the best of its training, measured on the test images: a bound in its favour
            update = batch.train(learner.head, task.rule, factors, 50, 1.0)[0]
            factors = factors.with_vector(task.rule, factors.vector(task.rule) + update)
            best = max(best, 100 * task.evaluator.accuracy(factors))
        found[f"{count} labels"] = best
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-root")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--dropout-tolerance", type=float, default=0.0)
    parser.add_argument("--naive", action="store_true", help="naive DP-FedAvg of both factors in place of ours")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cache = ArrayCache(default_folder(), print)

    def run(seed: int, clients: int, unit: str, epsilon: float) -> tuple[float, Task]:
        changes: dict[str, Any] = {
            "seed": seed,
            "data.dataset": "fashion-mnist",
            "data.data_root": options.data_root,
            "data.clients": clients,
            "model.crops": CROPS,
            "training.rounds": options.rounds,
            "privacy.epsilon": epsilon,
            "privacy.delta": 1e-5,
            "privacy.unit": unit,
            "privacy.dropout_tolerance": options.dropout_tolerance,
            "privacy.simulation_noise": True,
            "aggregation.secagg": "off",
        }
        config = override(RunConfig(), changes | (NAIVE if options.naive else {}))
        task = prepare(config, load_federation(config.data, config.seed), cache)
        *_, last = Simulation(config, task).rounds()
        return 100 * last.accuracy, task

    rows: dict[str, Any] = {}
    for clients, unit in ((1000, "client"), (100, "client"), (1000, "example")):
        if options.naive and unit == "example":
            continue
        for epsilon in (1.0, 4.0, math.inf):
            found = []
            for seed in range(options.seeds):
                accuracy, task = run(seed, clients, unit, epsilon)
                found.append(accuracy)
            name = f"unit {unit}, N = {clients}, " + ("no noise" if epsilon == math.inf else f"epsilon {epsilon:g}")
            rows[name] = found
            if not options.json:
                spread = f"± {pstdev(found):.2f}, least {min(found):.2f}"
                frozen, warm = 100 * task.evaluator.accuracy(task.frozen), 100 * task.evaluator.accuracy(task.initial)
                start = f"zero-shot {frozen:.2f} %, warm start {warm:.2f} %"
                print(
                    f"{name:40} {fmean(found):6.2f} % {spread}  {start}",
                    flush=True,
                )
    if not options.naive:
        rows["public labels alone"] = public_labels_alone(task)
        if not options.json:
            print("public labels alone:", ", ".join(f"{k} {v:.2f} %" for k, v in rows["public labels alone"].items()))
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
