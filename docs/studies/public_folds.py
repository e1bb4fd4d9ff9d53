"""A federation made of the public slice alone, on which settings are chosen: what the studies beside this file share.

The public slice is cut into five folds: accuracy is measured on one, the warm start and the control variate see the
images of another, and clients are made of the other three. The noise in the mean is that of a run over as many clients
as are asked for, although only some of them fit the slice. Neither the clients' images nor the test images are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

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
from flora_secure.model.image_views import ImageViews
from flora_secure.model.loading import load_clip
from flora_secure.planning.protection import CLIP_NORM, EXAMPLE_RATE, Unit
from flora_secure.planning.rules import Rule, rule_named
from flora_secure.planning.sections import Crops, TrainingConfig, WarmStart
from flora_secure.privacy.accounting import noise_multiplier_for
from flora_secure.server.warm_start import warm_start

FOLDS, DROPOUTS, CORRUPT = 5, 0.1, 0.05


class ServerStep(Protocol):
    """What a server does with a round's mean, for one factor of the adapter."""

    def change(self, mean: torch.Tensor) -> torch.Tensor:
        """What is added to the factor, float32 (d,), after a round with this mean, in units of the clip norm."""


class Momentum:
    """FedAvgM."""

    def __init__(self, step: float, momentum: float) -> None:
        self.step, self.momentum, self.velocity = step, momentum, torch.zeros(())

    def change(self, mean: torch.Tensor) -> torch.Tensor:
        self.velocity = self.momentum * self.velocity + mean
        return self.step * self.velocity


class PublicFolds:
    """The folds of a data set's public slice, as a federation of so many clients with so many images in all."""

    def __init__(
        self, dataset: str, rule: str, unit: Unit, clients: int, images: int, delta: float, crops: Crops
    ) -> None:
        data, clip = load_dataset(dataset), load_clip()
        self.rule, self.by_example, self.clients, self.images, self.delta = (
            rule_named(rule),
            unit == "example",
            clients,
            images,
            delta,
        )
        self.features = clip.image_features(data.public.images, views=ImageViews(data.mirror, crops))
        self.labels = torch.from_numpy(data.public.labels)
        self.prompts = clip.pooled_class_features(class_prompts(data.class_names, data.templates))
        self.projection = clip.text_projection
        self.rate = EXAMPLE_RATE if self.by_example else self.rule.local_rate
        self.clip_norm = CLIP_NORM[unit]
        self.width = self.features.shape[1]

    def noise(self, epsilon: float, rounds: int, rate: float) -> float:
        """Standard deviation of the noise in every coordinate of a round's mean, in units of the clip norm."""
        if epsilon == math.inf:
            return 0.0
        z = noise_multiplier_for(epsilon, self.delta, rounds, rate if self.by_example else 1.0)
        return z / math.sqrt(1 - DROPOUTS - CORRUPT) / (rate * self.images if self.by_example else self.clients)

    def accuracy(
        self,
        server: Callable[[], ServerStep],
        noise: float,
        fold: int,
        seed: int,
        *,
        rounds: int,
        local: int = TrainingConfig().local_steps,
        rate: float | None = None,
        clip_norm: float | None = None,
        scale: float = TrainingConfig().logit_scale,
        warm: WarmStart = "images",
        variate: float = 1.0,
    ) -> float:
        """Percent of the fold's images after a run; `seed` deals the images and draws the noise."""
        rate = self.rate if rate is None else rate
        clip_norm = self.clip_norm if clip_norm is None else clip_norm
        head = Head.normalised(self.prompts, self.projection, scale)
        part = torch.arange(len(self.labels)) % FOLDS
        test, public = part == fold, part == (fold + 1) % FOLDS
        x, y = self.features[~test & ~public], self.labels[~test & ~public]
        generator = torch.Generator().manual_seed(seed)
        factors = initial_factors(self.rule, head.prompts, self.width, None, generator)
        factors = warm_start(warm, head, factors, self.features[public], self.labels[public])
        control = ControlVariate(self.features[public], variate) if variate else None
        if self.by_example:
            examples = ClientExamples([np.arange(len(x))])
        else:
            count = max(2, len(x) * self.clients // self.images)
            shares = partition(y.numpy(), count, parse_partition("dirichlet:0.5"), np.random.default_rng(seed))
            batch = ClientBatch(x, y, [torch.from_numpy(s) for s in shares], len(self.prompts))
        servers: dict[Rule, ServerStep] = {}  # one for each factor where they take turns
        for number in range(rounds):
            now = self.rule.of_round(number + 1)
            if self.by_example:
                drawn = [examples.draw(0, rate, f"{seed} {number}".encode())]
                found = lambda parts: (example_gradients(head, now, factors, x[i], y[i]) for i in parts)  # noqa: B023, E731
                total = gradient_sums(found, drawn, factors.dimension(now), clip_norm).sums[0]
                mean = -torch.from_numpy(total).float() / (rate * len(x) * clip_norm)
            else:
                updates = batch.train(head, now, factors, local, rate, variate=control)
                mean = (updates * (clip_norm / updates.norm(dim=1, keepdim=True)).clamp(max=1)).mean(0) / clip_norm
            mean = mean + noise * torch.randn(len(mean), generator=generator)
            change = servers.setdefault(now, server()).change(mean)
            factors = factors.with_vector(now, factors.vector(now) + change)
        return 100 * float((head.logits(self.features[test], factors).argmax(1) == self.labels[test]).float().mean())
