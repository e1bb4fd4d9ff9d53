"""What is trained: the frozen model, the clients' images as cached features, the test images, the fresh adapter.

The image tower is frozen, so every image goes through it once; the class prompts are the same for all, so their pooled
features are constants too. Everything a round needs afterwards is a few small matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flora_secure.adapters import Factors, initial_factors
from flora_secure.clip import Clip, class_prompts, load_clip
from flora_secure.config import ConfigError, RunConfig
from flora_secure.data.cache import ArrayCache
from flora_secure.data.federation import Federation
from flora_secure.data.images import EncodedImages
from flora_secure.examples import ClientExamples
from flora_secure.features import split_features
from flora_secure.local import ClientBatch, Head
from flora_secure.placements import PLACEMENTS
from flora_secure.rules import Rule, rule_named
from flora_secure.warm_start import public_sample, warm_start


@dataclass(frozen=True, eq=False)
class Task:
    """Everything of a run that does not depend on noise or masking."""

    clip: Clip
    federation: Federation
    rule: Rule
    initial: Factors
    head: Head
    batch: ClientBatch = field(repr=False)
    examples: ClientExamples = field(repr=False)
    test_features: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)

    @property
    def dimension(self) -> int:
        """Length d of an upload."""
        return self.rule.upload_size(self.initial.a.numel(), self.initial.b.numel())

    @property
    def frozen(self) -> Factors:
        """An adapter that changes nothing: the frozen model, before the warm start."""
        return Factors(a=self.initial.a, b=torch.zeros_like(self.initial.b))

    def predicted(self, factors: Factors) -> Tensor:
        """The class of each test image, int64 (n,)."""
        return self.head.logits(self.test_features, factors).argmax(dim=-1)

    def accuracy(self, factors: Factors) -> float:
        """Top-1 on the test images, as a fraction."""
        return float((self.predicted(factors) == self.test_labels).float().mean())


def prepare(config: RunConfig, federation: Federation, cache: ArrayCache | None = None) -> Task:
    """Load the model, take the features of all images (from ``cache`` where it has them), make a fresh adapter.

    Raises an :class:`flora_secure.errors.InputError` for anything in ``config`` that does not fit together.
    """
    if not PLACEMENTS[config.model.placement].trainable:
        raise ConfigError(
            f"placement {config.model.placement} can be planned but not trained; use --placement text-projection"
        )
    try:
        device = torch.device(config.training.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {config.training.device!r} cannot be used: {str(error).splitlines()[0]}") from None
    dataset, rule = federation.dataset, rule_named(config.model.rule)
    clip = load_clip(config.model.model, config.model.pretrained, device)
    texts = class_prompts(dataset.class_names, dataset.templates)
    clip.require_short([text for group in texts for text in group])
    prompts = clip.pooled_class_features(texts)
    head = Head.normalised(prompts, clip.text_projection, config.training.logit_scale)
    generator = torch.Generator().manual_seed(config.seed)
    factors = initial_factors(rule, head.prompts.cpu(), head.base.shape[1], config.model.rank, generator)
    factors = Factors(a=factors.a.to(device), b=factors.b.to(device))
    labels = torch.from_numpy(dataset.private.labels).to(device)
    mirror = dataset.mirror if config.model.mirror is None else config.model.mirror
    features = split_features(clip, dataset.private.images, mirror=mirror, cache=cache)
    if config.training.warm_start:
        images, chosen = dataset.public.images, public_sample(len(dataset.public))
        images = images.at(chosen) if isinstance(images, EncodedImages) else images[chosen]
        public = split_features(clip, images, mirror=mirror, cache=cache)
        factors = warm_start(head, factors, public, config.training.warm_start)
    return Task(
        clip=clip,
        federation=federation,
        rule=rule,
        initial=factors,
        head=head,
        batch=ClientBatch(
            features,
            labels,
            [torch.from_numpy(indices) for indices in federation.clients],
            len(dataset.class_names),
        ),
        examples=ClientExamples(features, labels, federation.clients),
        test_features=split_features(clip, dataset.test.images, mirror=mirror, cache=cache),
        test_labels=torch.from_numpy(dataset.test.labels).to(device),
    )
