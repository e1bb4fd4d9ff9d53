"""How the defaults of training were chosen: `python docs/studies/choose_defaults.py` (public data only).

Every setting is tried on the federation that `public_folds.py` makes of the public slice, over `--clients` clients
who hold `--images` images in all. Lists of values make a grid; all else stays at its default. `--turns` are values
of `flora_secure.rounds.optimiser.TURN`, `--most` of `flora_secure.rounds.optimiser.SERVER_STEP`.
"""

from __future__ import annotations

import argparse
import itertools
import math
from typing import get_args

import numpy as np
import torch
from public_folds import FOLDS, Momentum, PublicFolds

from flora_secure.planning.protection import CLIP_NORM
from flora_secure.planning.sections import TrainingConfig, WarmStart
from flora_secure.rounds.optimiser import SERVER_STEP, TURN, quiet_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="clothes")
    parser.add_argument("--unit", choices=["client", "example"], default="client")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 4.0, math.inf])
    parser.add_argument("--rule", default="prompt-basis")
    parser.add_argument("--rounds", type=int, nargs="+", default=[20])
    parser.add_argument("--local-steps", type=int, nargs="+", default=[TrainingConfig().local_steps])
    parser.add_argument("--rates", type=float, nargs="+", help="local rate; of examples in unit example")
    parser.add_argument("--clips", type=float, nargs="+")
    parser.add_argument("--momenta", type=float, nargs="+", default=[TrainingConfig().server_momentum])
    parser.add_argument("--scales", type=float, nargs="+", default=[28.0])
    parser.add_argument("--turns", type=float, nargs="+", default=[TURN])
    parser.add_argument("--most", type=float, nargs="+")
    parser.add_argument("--warm-starts", choices=get_args(WarmStart), nargs="+", default=["images"])
    parser.add_argument("--variates", type=float, nargs="+", default=[1.0])
    parser.add_argument("--crops", type=int, choices=(1, 2, 4), default=1)
    parser.add_argument("--folds", type=int, default=FOLDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folds = PublicFolds(
        options.dataset, options.rule, options.unit, options.clients, options.images, options.delta, options.crops
    )

    def run(epsilon: float, fold: int, values: tuple[float, ...], warm: WarmStart) -> float:
        rounds, local, rate, clip_norm, momentum, scale, turn, most, weight = values
        noise = folds.noise(epsilon, int(rounds), rate)
        step = quiet_step(noise, int(rounds), momentum, folds.width, most, turn)
        return folds.accuracy(
            lambda: Momentum(step, momentum),
            noise,
            fold,
            fold,
            rounds=int(rounds),
            local=int(local),
            rate=rate,
            clip_norm=clip_norm,
            scale=scale,
            warm=warm,
            variate=weight,
        )

    grid = itertools.product(
        options.rounds,
        options.local_steps,
        options.rates or [folds.rate],
        options.clips or [CLIP_NORM[options.unit]],
        options.momenta,
        options.scales,
        options.turns,
        options.most or [SERVER_STEP[options.unit]],
        options.variates,
    )
    print("rounds  local  rate  clip  momentum  scale  turn  most  variate    warm   percent at", *options.epsilons)
    for values, warm in itertools.product(grid, options.warm_starts):
        found = [np.mean([run(e, fold, values, warm) for fold in range(options.folds)]) for e in options.epsilons]
        print("  ".join(f"{v:5g}" for v in values), f"  {warm:>6}  ", *(f"{f:6.2f}" for f in found), flush=True)


if __name__ == "__main__":
    main()
