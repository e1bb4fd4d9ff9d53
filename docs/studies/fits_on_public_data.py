"""What chose rate, steps and penalty of `flora_secure.model.fitting.fitted_to_the_end`, on public images alone:
`python docs/studies/fits_on_public_data.py`.

So many public images, drawn anew in each of several repeats, are fitted; the other public images are the test. No
private and no test image is read.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from flora_secure.data.cache import ArrayCache, default_folder
from flora_secure.data.federation import load_federation
from flora_secure.engine.competitors import public_features
from flora_secure.engine.frames.projection import Projection
from flora_secure.engine.task import framed
from flora_secure.model import fitting
from flora_secure.planning.config import RunConfig, override

SIZES, REPEATS = (10, 30, 70, 150), 6
WHOLE, FOLDS = 3_000, 2  # images of the largest fits, and how many of these
PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="*", default=[50, 100, fitting.STEPS_APART, 400])
    steps = parser.parse_args().steps
    for name in ("icons", "clothes"):
        config = override(RunConfig(), {"data.dataset": name})
        cache = ArrayCache(default_folder(), print)
        frame = framed(config, load_federation(config.data, 0).dataset, cache).frame
        assert isinstance(frame, Projection)
        features = public_features(frame)[:WHOLE]
        labels = torch.from_numpy(frame.setting.public.labels[:WHOLE])
        for size in (*SIZES, len(labels) * 4 // 5):
            for penalty in PENALTIES:
                fitting.PENALTY_APART = penalty
                shares = [f"{count} steps {accuracy(frame, features, labels, size, count):.1f}" for count in steps]
                print(f"{name}, {size} images, penalty {penalty:g}/n: {', '.join(shares)}", flush=True)
    fitting.PENALTY_APART = 1.0


def accuracy(frame: Projection, features: torch.Tensor, labels: torch.Tensor, size: int, steps: int) -> float:
    """In percent, the mean over the repeats."""
    found = []
    for repeat in range(REPEATS if size in SIZES else FOLDS):
        order = torch.from_numpy(np.random.default_rng(repeat).permutation(len(labels)))
        own, rest = order[:size], order[size:]
        adapter = fitting.fitted_to_the_end(frame.head, frame.fresh, features[own], labels[own], steps)
        predicted = frame.head.logits(features[rest], adapter).argmax(dim=1)
        found.append(float((predicted == labels[rest]).float().mean()))
    return 100 * float(np.mean(found))


if __name__ == "__main__":
    main()
