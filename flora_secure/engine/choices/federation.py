"""Whether the control variate helps: a small federation of public images, trained with it and without.

Of a few folds one is what warm start and control variate see; of the others, half is dealt to clients and half judges.
Nothing is read of the real clients but what the configuration says of them all: how many there are, rule, local steps
and rate, clip norm, how images are dealt, and the noise in the mean of their updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from flora_secure.client.closed_form import ClientBatch
from flora_secure.client.control_variate import ControlVariate
from flora_secure.data.partitions import Iid, Scheme, Shards, partition
from flora_secure.engine.choices.public_folds import PublicFolds
from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.planning.rules import Rule
from flora_secure.planning.sections import WarmStart
from flora_secure.rounds.optimiser import MomentumAverage
from flora_secure.server.warm_start import warm_start

CLIENTS = 16  # at most, so that one has enough images


@dataclass(frozen=True, eq=False)
class PublicFederation:
    """How the clients of a run train, and what its server makes of their sum.

    Attributes:
        head, fresh, start: the frozen classifier, the adapter before any training, and how it is warmed up.
        rule, steps, rate: of local training.
        clip_norm: of an update.
        rounds: how many.
        noise: standard deviation in every coordinate of a round's mean, in units of the clip norm.
        optimiser: the server's.
        clients: how many there are in the run; at most CLIENTS are simulated.
        scheme: how images are dealt to them.
    """

    head: Head = field(repr=False)
    fresh: Factors = field(repr=False)
    start: WarmStart
    rule: Rule
    steps: int
    rate: float
    clip_norm: float
    rounds: int
    noise: float
    optimiser: MomentumAverage
    clients: int
    scheme: Scheme

    def held_out(self, features: Tensor, folds: PublicFolds, weights: Sequence[float]) -> Mapping[float, Tensor]:
        """Which of the judging images it has right after training with control variates of these weights, bool (m,).

        `features`: float32 (n, embed) of unit norm, of the images that were cut.
        """
        found: dict[float, list[Tensor]] = {weight: [] for weight in weights}
        for fold in range(folds.count):
            seen, test = folds.fold == fold, folds.judging(fold)
            held = ~seen & ~test
            start = warm_start(self.start, self.head, self.fresh, features[seen], folds.labels[seen])
            batch = self._dealt(features[held], folds.labels[held])
            for weight, right in found.items():
                control = ControlVariate(features[seen], weight) if weight else None
                trained = self._trained(batch, start, control, fold)
                right.append(self.head.logits(features[test], trained).argmax(1) == folds.labels[test])
        return {weight: torch.cat(right) for weight, right in found.items()}

    def _dealt(self, features: Tensor, labels: Tensor) -> ClientBatch:
        count = min(self.clients, CLIENTS, len(labels))
        # so many shards that an image would be several are a deal without any order
        torn = isinstance(self.scheme, Shards) and count * self.scheme.per_client > len(labels)
        scheme = Iid() if torn else self.scheme
        shares = partition(labels.cpu().numpy(), count, scheme, np.random.default_rng(0))
        return ClientBatch(features, labels, [torch.from_numpy(s) for s in shares], len(self.head.prompts))

    def _trained(self, batch: ClientBatch, factors: Factors, control: ControlVariate | None, seed: int) -> Factors:
        """The adapter after all rounds; `seed` draws the noise, the same for every control variate."""
        generator = torch.Generator().manual_seed(seed)
        velocity: dict[Rule, Tensor] = {}  # of each factor where they take turns
        for number in range(1, self.rounds + 1):
            now = self.rule.of_round(number)
            updates = batch.train(self.head, now, factors, self.steps, self.rate, variate=control)
            mean = (updates / updates.norm(dim=1, keepdim=True).clamp(min=self.clip_norm)).mean(dim=0)
            noise = self.noise * torch.randn(len(mean), generator=generator).to(mean.device)
            velocity[now] = self.optimiser.momentum * velocity.get(now, 0) + mean + noise
            factors = factors.with_vector(now, factors.vector(now) + self.optimiser.step * velocity[now])
        return factors
