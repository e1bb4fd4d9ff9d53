"""FedAvgM against FedAdam and FedYogi: `python docs/studies/server_optimisers.py` (public data only, five minutes).

Each optimiser gets as many trials of its settings, drawn at random from wide ranges after the first, which is its
default. The best on two of the public slice's folds is then measured on the other three with fresh deals of the images
and fresh noise, which all optimisers share: beside its mean stand the differences from FedAvgM as it is by default and
as it was tuned, each with its standard error. FedAdam and FedYogi follow algorithm 2 of Reddi et al. 2021 (arXiv
2003.00295), without bias correction, their second moment from τ² on.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from statistics import fmean, stdev

import numpy as np
import torch
from public_folds import FOLDS, Momentum, PublicFolds, ServerStep

from flora_secure.rounds.optimiser import SERVER_STEP, TURN, quiet_step

CHOOSING = (0, 1)  # the folds on which settings are chosen
SIGNAL = 0.01  # a coordinate of the mean without noise, roughly: in what unit τ is to be thought of

Make = Callable[[], ServerStep]


class Adaptive:
    """FedAdam, and FedYogi, whose second moment moves by the new square alone."""

    def __init__(self, yogi: bool, step: float, beta1: float, beta2: float, tau: float) -> None:
        self.yogi, self.step, self.beta1, self.beta2, self.tau = yogi, step, beta1, beta2, tau
        self.first, self.second = torch.zeros(()), torch.tensor(tau**2)

    def change(self, mean: torch.Tensor) -> torch.Tensor:
        square = mean**2
        self.first = self.beta1 * self.first + (1 - self.beta1) * mean
        moved = square * torch.sign(square - self.second) if self.yogi else square - self.second
        self.second = self.second + (1 - self.beta2) * moved
        return self.step * self.first / (self.second.sqrt() + self.tau)


def momentum(rng: np.random.Generator | None, noise: float, rounds: int, width: int) -> tuple[str, Make]:
    """A trial of FedAvgM: by default, or drawn by `rng`."""
    beta, turn, most = 0.5, TURN, SERVER_STEP["client"]
    if rng is not None:
        beta, turn = float(rng.choice([0.0, 0.5, 0.8, 0.9])), float(np.exp(rng.uniform(np.log(0.3), np.log(1.5))))
        most = (1 - beta) * float(np.exp(rng.uniform(np.log(0.7), np.log(4))))
    step = quiet_step(noise, rounds, beta, width, most, turn)
    return f"β {beta:g}, step {step:.3g}", lambda: Momentum(step, beta)


def adaptive(yogi: bool, rng: np.random.Generator | None, noise: float, rounds: int, width: int) -> tuple[str, Make]:
    """A trial of FedAdam or FedYogi. Its step is fitted to what it does to noise, or to a mean without any."""
    beta1, beta2, tau, turn = 0.5, 0.99, 1e-3, TURN
    if rng is not None:
        beta1, beta2 = float(rng.choice([0.0, 0.5, 0.8, 0.9])), float(rng.choice([0.9, 0.99, 0.999]))
        tau, turn = 10 ** float(rng.uniform(-4, 0)), float(np.exp(rng.uniform(np.log(0.3), np.log(3))))
    usual = max(noise, SIGNAL)
    step = turn * (usual + (tau if rng is not None else 0.0)) / usual / math.sqrt(rounds * width)
    told = f"β1 {beta1:g}, β2 {beta2:g}, τ {tau:.2g}, step {step:.3g}"
    return told, lambda: Adaptive(yogi, step, beta1, beta2, tau)


def gain(differences: np.ndarray) -> str:
    """The mean of paired differences and its standard error."""
    return f"{differences.mean():+.2f} ± {stdev(differences.tolist()) / math.sqrt(len(differences)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 4.0, math.inf])
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    kinds = {
        "momentum": momentum,
        "adam": lambda *given: adaptive(False, *given),
        "yogi": lambda *given: adaptive(True, *given),
    }
    print(
        "| clients, ε | optimiser | chosen | percent | − the default | − momentum, tuned |\n|---|---|---|---|---|---|"
    )
    for clients in options.clients:
        folds = PublicFolds("clothes", "prompt-basis", "client", clients, options.images, 1e-5, 1)
        for epsilon in options.epsilons:
            noise = folds.noise(epsilon, options.rounds, folds.rate)

            def accuracy(make: Make, fold: int, seed: int, folds: PublicFolds = folds, noise: float = noise) -> float:
                return folds.accuracy(make, noise, fold, seed * FOLDS + fold, rounds=options.rounds)

            def measured(make: Make, accuracy: Callable[[Make, int, int], float] = accuracy) -> np.ndarray:
                pairs = [(f, s) for f in range(FOLDS) if f not in CHOOSING for s in range(1, 1 + options.seeds)]
                return np.array([accuracy(make, fold, seed) for fold, seed in pairs])

            where = f"{clients:,}, " + ("no noise" if epsilon == math.inf else f"ε = {epsilon:g}")
            told, make = momentum(None, noise, options.rounds, folds.width)
            usual = measured(make)
            print(f"| {where} | momentum, default | {told} | {usual.mean():.2f} | | |", flush=True)
            for name, kind in kinds.items():
                rng = np.random.default_rng(0)
                trials = [
                    kind(rng if number else None, noise, options.rounds, folds.width)
                    for number in range(options.trials)
                ]
                told, make = max(trials, key=lambda trial: fmean(accuracy(trial[1], fold, 0) for fold in CHOOSING))
                found = measured(make)
                if name == "momentum":
                    tuned = found
                row = f"{found.mean():.2f} | {gain(found - usual)} | {gain(found - tuned)}"
                print(f"| {where} | {name} | {told} | {row} |", flush=True)
    print(f"{time.process_time() - began:.0f} s of one processor")


if __name__ == "__main__":
    main()
