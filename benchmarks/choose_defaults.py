"""How the defaults of training were chosen: ``python benchmarks/choose_defaults.py`` (public data only).

Clients are made of the public slice's 9,000 pretraining images, 200 a client as in the default run; accuracy is
measured on its 1,000 held-out images. The noise in the mean update is that of the default run (100 clients), although
only 45 clients fit the slice. Neither the clients' images nor the test images are read. ``--unit example`` does so
for unit example, with the noise of 20,000 images; ``--rates`` are then those of the examples.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch

from flora_secure.adapters import Factors, initial_factors
from flora_secure.clip import class_prompts, load_clip
from flora_secure.data.partitions import parse_partition, partition
from flora_secure.data.sources import load_dataset
from flora_secure.examples import ClientExamples
from flora_secure.local import ClientBatch, Head
from flora_secure.privacy.accounting import default_delta, noise_multiplier_for
from flora_secure.rules import rule_named

CLIENTS, IMAGES, DROPOUTS, CORRUPT = 100, 200, 0.1, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epsilon", type=float, default=4.0)
    parser.add_argument("--rule", default="prompt-basis")
    parser.add_argument("--unit", choices=["client", "example"], default="client")
    parser.add_argument("--rounds", type=int, nargs="+", default=[20])
    parser.add_argument("--clients", type=int, default=CLIENTS, help="of the run whose noise is matched")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--clips", type=float, nargs="+", default=[0.15])
    parser.add_argument("--steps", type=float, nargs="+", default=[0.035, 0.05, 0.07])
    parser.add_argument("--momentum", type=float, default=0.8)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--local-steps", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)

    data, clip, rule = load_dataset("embedded"), load_clip(), rule_named(options.rule)
    features, labels = clip.image_features(data.public.images, mirror=data.mirror), torch.from_numpy(data.public.labels)
    train, held = slice(0, 9000), slice(9000, 10000)
    prompts = clip.pooled_class_features(class_prompts(data.class_names, data.templates))
    head = Head.normalised(prompts, clip.text_projection, options.scale)

    def federate(rounds: int, rate: float, clip_norm: float, step: float, epsilon: float, seed: int) -> float:
        factors = initial_factors(
            rule, head.prompts, features.shape[1], None, generator := torch.Generator().manual_seed(seed)
        )
        shares = partition(
            labels[train].numpy(), 9000 // IMAGES, parse_partition("dirichlet:0.5"), np.random.default_rng(seed)
        )
        batch = ClientBatch(features[train], labels[train], [torch.from_numpy(s) for s in shares], len(prompts))
        noise = 0.0
        if epsilon != math.inf:
            z = noise_multiplier_for(epsilon, default_delta(options.clients), rounds)
            noise = z / math.sqrt(1 - DROPOUTS - CORRUPT) / options.clients
        momentum = torch.zeros(rule.dimension(factors))
        for _ in range(rounds):
            updates = batch.train(head, rule, factors, options.local_steps, rate)
            shrink = (clip_norm / updates.norm(dim=1, keepdim=True)).clamp(max=1)
            mean = (updates * shrink).mean(0) / clip_norm + noise * torch.randn(len(momentum), generator=generator)
            momentum = options.momentum * momentum + mean
            factors = rule.with_vector(factors, rule.vector(factors) + step * momentum)
        return accuracy(factors)

    def descend(rounds: int, rate: float, clip_norm: float, step: float, epsilon: float, seed: int) -> float:
        factors = initial_factors(
            rule, head.prompts, features.shape[1], None, generator := torch.Generator().manual_seed(seed)
        )
        examples = ClientExamples(features[train], labels[train], [np.arange(9000)])
        noise = 0.0
        if epsilon != math.inf:
            images = IMAGES * options.clients
            z = noise_multiplier_for(epsilon, default_delta(images), rounds, rate)
            noise = z / math.sqrt(1 - DROPOUTS - CORRUPT) / (rate * images)
        momentum = torch.zeros(rule.dimension(factors))
        for number in range(rounds):
            drawn = [examples.draw(0, rate, f"{seed} {number}".encode())]
            total = examples.gradient_sums(head, rule, factors, drawn, clip_norm).sums[0]
            mean = -torch.from_numpy(total).float() / (rate * 9000 * clip_norm)
            momentum = options.momentum * momentum + mean + noise * torch.randn(len(momentum), generator=generator)
            factors = rule.with_vector(factors, rule.vector(factors) + step * momentum)
        return accuracy(factors)

    run = federate if options.unit == "client" else descend

    def accuracy(factors: Factors) -> float:
        predicted = head.logits(features[held], factors).argmax(1)
        return float((predicted == labels[held]).float().mean())

    print("rounds  rate  clip  step   with noise   without   (mean of seeds, public hold-out)")
    for rounds in options.rounds:
        for rate in options.rates:
            for clip_norm in options.clips:
                for step in options.steps:
                    found = [
                        np.mean([run(rounds, rate, clip_norm, step, e, s) for s in range(options.seeds)])
                        for e in (options.epsilon, math.inf)
                    ]
                    print(
                        f"{rounds:6} {rate:5g} {clip_norm:5g} {step:5g}   {found[0]:10.2%}   {found[1]:7.2%}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
