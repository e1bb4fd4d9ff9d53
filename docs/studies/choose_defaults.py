"""How the defaults of training were chosen: ``python docs/studies/choose_defaults.py`` (public data only).

The public slice is cut into five folds: accuracy is measured on one, the warm start and the control variate see the
images of another, and clients are made of the other three. The noise in the mean is that of a run over ``--clients``
clients who hold ``--images`` images in all, although only some of them fit the slice. Neither the clients' images nor
the test images are read. Lists of values make a grid; all else stays at its default. ``--turns`` are values of
`flora_secure.rounds.optimisers.TURN`, ``--most`` of `server_step.SERVER_STEP`.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np
import torch

from flora_secure.client.closed_form import ClientBatch
from flora_secure.client.control_variate import ControlVariate
from flora_secure.client.example_gradients import ClientExamples, example_gradients, gradient_sums
from flora_secure.data.partitions import parse_partition, partition
from flora_secure.data.sources import load_dataset
from flora_secure.model.clip import class_prompts
from flora_secure.model.factors import initial_factors
from flora_secure.model.head import Head
from flora_secure.model.loading import load_clip
from flora_secure.model.views import Views
from flora_secure.planning.protection import CLIP_NORM, EXAMPLE_RATE
from flora_secure.planning.rules import Rule, rule_named
from flora_secure.planning.sections import TrainingConfig
from flora_secure.privacy.accounting import noise_multiplier_for
from flora_secure.rounds.optimisers import TURN, quiet_step
from flora_secure.rounds.step import SERVER_STEP
from flora_secure.server.warm_start import warm_start

FOLDS, DROPOUTS, CORRUPT = 5, 0.1, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="embedded")
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
    parser.add_argument("--warm-starts", type=int, nargs="+", default=[TrainingConfig().warm_start])
    parser.add_argument("--variates", type=float, nargs="+", default=[TrainingConfig().control_variate])
    parser.add_argument("--crops", type=int, choices=(1, 2, 4), default=1)
    parser.add_argument("--folds", type=int, default=FOLDS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    data, clip, rule = load_dataset(options.dataset), load_clip(), rule_named(options.rule)
    features = clip.image_features(data.public.images, views=Views(data.mirror, options.crops))
    labels = torch.from_numpy(data.public.labels)
    prompts = clip.pooled_class_features(class_prompts(data.class_names, data.templates))
    by_example = options.unit == "example"
    sampled = rule.local_rate if not by_example else EXAMPLE_RATE

    def run(epsilon: float, fold: int, values: tuple[float, ...]) -> float:
        rounds, local, rate, clip_norm, momentum, scale, turn, most, warm, weight = values
        rounds, head = int(rounds), Head.normalised(prompts, clip.text_projection, scale)
        part = torch.arange(len(labels)) % FOLDS
        test, public = part == fold, part == (fold + 1) % FOLDS
        x, y = features[~test & ~public], labels[~test & ~public]
        generator = torch.Generator().manual_seed(fold)
        factors = initial_factors(rule, head.prompts, x.shape[1], None, generator)
        factors = warm_start(head, factors, features[public], int(warm))
        variate = ControlVariate(features[public], weight) if weight else None
        # the noise in the mean, in units of the clip norm
        noise, contributions = 0.0, options.clients if not by_example else rate * options.images
        if epsilon != math.inf:
            z = noise_multiplier_for(epsilon, options.delta, rounds, rate if by_example else 1.0)
            noise = z / math.sqrt(1 - DROPOUTS - CORRUPT) / contributions
        step = quiet_step(noise, rounds, momentum, x.shape[1], most, turn)
        if by_example:
            examples = ClientExamples([np.arange(len(x))])
        else:
            count = max(2, len(x) * options.clients // options.images)
            shares = partition(y.numpy(), count, parse_partition("dirichlet:0.5"), np.random.default_rng(fold))
            batch = ClientBatch(x, y, [torch.from_numpy(s) for s in shares], len(prompts))
        velocities: dict[Rule, torch.Tensor] = {}  # of each factor where they take turns
        for number in range(rounds):
            now = rule.of_round(number + 1)
            if by_example:
                drawn = [examples.draw(0, rate, f"{fold} {number}".encode())]
                found = lambda parts: (example_gradients(head, now, factors, x[i], y[i]) for i in parts)  # noqa: B023, E731
                total = gradient_sums(found, drawn, factors.dimension(now), clip_norm).sums[0]
                mean = -torch.from_numpy(total).float() / (rate * len(x) * clip_norm)
            else:
                updates = batch.train(head, now, factors, int(local), rate, variate=variate)
                mean = (updates * (clip_norm / updates.norm(dim=1, keepdim=True)).clamp(max=1)).mean(0) / clip_norm
            mean = mean + noise * torch.randn(len(mean), generator=generator)
            velocities[now] = momentum * velocities.get(now, torch.zeros(())) + mean
            factors = factors.with_vector(now, factors.vector(now) + step * velocities[now])
        return 100 * float((head.logits(features[test], factors).argmax(1) == labels[test]).float().mean())

    grid = itertools.product(
        options.rounds,
        options.local_steps,
        options.rates or [sampled],
        options.clips or [CLIP_NORM[options.unit]],
        options.momenta,
        options.scales,
        options.turns,
        options.most or [SERVER_STEP[options.unit]],
        options.warm_starts,
        options.variates,
    )
    print(
        "rounds  local  rate  clip  momentum  scale  turn  most  warm  variate   percent at epsilon", *options.epsilons
    )
    for values in grid:
        found = [np.mean([run(e, fold, values) for fold in range(options.folds)]) for e in options.epsilons]
        print("  ".join(f"{v:5g}" for v in values), "  ", *(f"{f:6.2f}" for f in found), flush=True)


if __name__ == "__main__":
    main()
