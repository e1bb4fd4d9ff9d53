"""How the fit to public labels was chosen (`flora_secure.model.fitting`): `python docs/studies/labelled_start.py`.

Public data only. Every rate, penalty and number of steps is tried on the folds that a run itself is decided on
(`flora_secure.engine.choices`): percent of images of other folds right after the fit, and after the rounds of a small
federation that begins with it, for each budget. What fits best by itself may leave the rounds little room: the longer
B is, the less an update turns a class embedding.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math

import torch

from flora_secure.data.cache import ArrayCache, default_folder
from flora_secure.data.federation import load_federation
from flora_secure.engine.choices.decided import federation_of, folds_of
from flora_secure.engine.choices.public_folds import share
from flora_secure.engine.choices.starts import held_out
from flora_secure.engine.frames.projection import Projection
from flora_secure.engine.task import framed
from flora_secure.model import fitting
from flora_secure.planning.config import RunConfig, override
from flora_secure.server import warm_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["icons", "clothes"])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 4.0, math.inf])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02, 0.05])
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--penalties", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("   rate  steps  penalty   mean   each data set: after the fit; after rounds at epsilon", *options.epsilons)
    frames = {name: frames_of(name, options.epsilons) for name in options.datasets}
    for kind in ("none", "images"):
        show(f"{kind:>23}", [figures(of, kind) for of in frames.values()])
    for rate, steps, penalty in itertools.product(options.rates, options.steps, options.penalties):
        fitting.RATE, fitting.PENALTY = rate, penalty
        warm_start.fitted = functools.partial(fitting.fitted, steps=steps)
        show(f"{rate:7g}{steps:7d}{penalty:9g}", [figures(of, "labels") for of in frames.values()])


def frames_of(name: str, epsilons: list[float]) -> list[Projection]:
    """A frame of a run on this data set at each budget, which starts from labels and has no control variate."""
    config = override(RunConfig(), {"data.dataset": name, "training.control_variate": 0.0})
    cache, found = ArrayCache(default_folder(), print), []
    federation = load_federation(config.data, config.seed, cache)
    for epsilon in epsilons:
        changes = {"privacy.epsilon": epsilon, "training.warm_start": "labels"}
        frame = framed(override(federation.settled(config), changes), federation.dataset, cache).frame
        assert isinstance(frame, Projection)
        found.append(frame)
    return found


def figures(frames: list[Projection], kind: warm_start.WarmStart) -> list[float]:
    """Percent after the warm start, and after the rounds of each frame's federation."""
    first, folds = frames[0], folds_of(frames[0])
    found = [held_out(first.head, first.fresh, first.public.features, folds, [kind])[kind]]
    for frame in frames:
        config = override(frame.setting.config, {"training.warm_start": kind})
        simulated = federation_of(frame.settled(config))
        found.append(simulated.held_out(frame.public.features, folds, [0.0])[0.0])
    return [100 * share(right) for right in found]


def show(what: str, each: list[list[float]]) -> None:
    after = [value for _, *rounds in each for value in rounds]
    shown = "   ".join(f"{fit:6.2f};" + "".join(f"{value:7.2f}" for value in rounds) for fit, *rounds in each)
    print(f"{what}{sum(after) / len(after):9.2f}   {shown}", flush=True)


if __name__ == "__main__":
    main()
