"""What is trained: the frozen model, the clients' images and texts as far as they are constant, the fresh adapter.

What an adapter does not touch goes through the model once. On the text projection that is all but a few small
matrices: every image feature, and the pooled features of the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from flora_secure.client.trainer import Learner
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import SkipList
from flora_secure.data.federation import Federation
from flora_secure.engine.setup import Setting, any_placement, closed_form
from flora_secure.errors import ConfigError
from flora_secure.model.clip import Clip
from flora_secure.model.devices import device_named
from flora_secure.model.factors import Factors
from flora_secure.model.loading import load_clip
from flora_secure.planning.config import RunConfig
from flora_secure.planning.rules import Rule, rule_named
from flora_secure.server.scores import Hits, Ranks, hits, ranks


@dataclass(frozen=True, eq=False)
class Task:
    """Everything of a run that does not depend on noise or masking. ``test_target`` int64 (n,): the class of each test
    image, or the image of each test caption."""

    clip: Clip
    federation: Federation
    rule: Rule
    initial: Factors
    learner: Learner = field(repr=False)
    test_target: Tensor = field(repr=False)

    @property
    def dimension(self) -> int:
        """Length d of an upload."""
        return self.rule.upload_size(self.initial.a.numel(), self.initial.b.numel())

    @property
    def frozen(self) -> Factors:
        """An adapter that changes nothing: the frozen model, before the warm start."""
        return Factors(a=self.initial.a, b=torch.zeros_like(self.initial.b))

    def predicted(self, factors: Factors) -> Tensor:
        """The class of each test image, int64 (n,); not for captions."""
        texts, images = self.learner.test_embeddings(factors)
        return (images @ texts.T).argmax(dim=-1)

    def ranks(self, factors: Factors) -> Ranks:
        """Which rank test images and test captions have with each other; not for labels."""
        texts, images = self.learner.test_embeddings(factors)
        return ranks(images, texts, self.test_target)

    def hits(self, factors: Factors) -> Hits | None:
        """Right answers where the unseen classes count too; ``None`` where there are none."""
        found, unseen = self.learner.unseen_embeddings(factors), self.federation.dataset.unseen
        if found is None or unseen is None:
            return None
        labels = torch.from_numpy(unseen.test.labels).to(self.test_target.device)
        return hits(self.learner.test_embeddings(factors), self.test_target, found, labels)

    def accuracy(self, factors: Factors) -> float:
        """Top-1 on the test images, or recall@1 from image to text, as a fraction."""
        if self.federation.dataset.captioned:
            return self.ranks(factors).recall(1)[0]
        return float((self.predicted(factors) == self.test_target).float().mean())


def prepare(config: RunConfig, federation: Federation, cache: ArrayCache | None = None) -> Task:
    """Load the model, take the features of all images (from ``cache`` where it has them), make a fresh adapter.

    Raises an :class:`flora_secure.errors.InputError` for anything in ``config`` that does not fit together.
    """
    device = device_named(config.training.device)
    rule = rule_named(config.model.trained_rule)
    captioned = federation.dataset.captioned
    if captioned and rule.prompt_basis:
        if config.model.rule is not None:
            raise ConfigError(
                "`model.rule` prompt-basis needs class prompts, and captions have none; use frozen-a or ab"
            )
        rule = rule_named("frozen-a")
    precision = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.training.precision]
    clip = load_clip(config.model.model, config.model.pretrained, device, precision)
    setting, cuts = Setting(config, federation, clip, rule, cache), SkipList()
    learner: Learner
    if config.model.placement == "text-projection" and not captioned:
        learner, factors = closed_form(setting)
    else:
        learner, factors = any_placement(setting, cuts)
    if cut := cuts.summary():
        dataset = federation.dataset
        federation = replace(federation, dataset=replace(dataset, skipped=(*dataset.skipped, *cut)))
    test = federation.dataset.test
    return Task(
        clip=clip,
        federation=federation,
        rule=rule,
        initial=factors,
        learner=learner,
        test_target=torch.from_numpy(test.distinct[1] if captioned else test.labels).to(device),
    )
