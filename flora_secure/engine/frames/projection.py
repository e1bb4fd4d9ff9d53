"""The frame of labels on the text projection, where local training has a closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from flora_secure.client.closed_form import ClientBatch, ClosedForm
from flora_secure.client.control_variate import ControlVariate
from flora_secure.data.dataset import Split, Unseen
from flora_secure.data.notes import Notes
from flora_secure.engine.frames.setting import PublicSample, Setting, target_of
from flora_secure.model.factors import Factors, initial_factors
from flora_secure.model.head import Head
from flora_secure.model.matrices import matrices_of
from flora_secure.model.peft_format import save_adapter
from flora_secure.model.towers import Indices
from flora_secure.planning.config import RunConfig
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.server.evaluator import Embeddings, Evaluator
from flora_secure.server.warm_start import warm_start


@dataclass(frozen=True, eq=False)
class Projection:
    """The classifier's frozen part `head`, the `fresh` adapter before its warm start, and the `public` images."""

    setting: Setting
    head: Head
    fresh: Factors = field(repr=False)
    public: PublicSample = field(repr=False)

    @classmethod
    def of(cls, setting: Setting) -> Projection:
        """The frame for a setting with labels. Raises AdapterError for a rank that does not fit."""
        config, clip = setting.config, setting.clip
        prompts = clip.pooled_class_features(setting.class_texts(setting.class_names))
        head = Head.normalised(prompts, clip.text_projection, config.training.logit_scale, bias=clip.projection.bias)
        factors = initial_factors(
            setting.rule, head.prompts.cpu(), head.base.shape[1], config.model.rank, setting.generator
        )
        head = replace(head, scale=config.model.scale(factors.rank))
        return cls(setting, head, factors.to(setting.device), PublicSample(setting))

    @property
    def width(self) -> float:
        """Coordinates of a class embedding, in units of what one trained value moves."""
        return float(self.head.base.shape[1]) * self.head.scale**2

    def settled(self, config: RunConfig) -> Projection:
        """The same with another `config`, of which warm start and control variate alone may differ."""
        return replace(self, setting=replace(self.setting, config=config))

    @cached_property
    def initial(self) -> Factors:
        """The fresh adapter, after its warm start on public images where the config names one."""
        kind = self.setting.config.training.warm_start or "none"
        if kind == "none" or not len(self.public):
            return self.fresh
        return warm_start(kind, self.head, self.fresh, self.public.features, self.public.labels)

    def learner(self, private: Split, clients: Sequence[Indices], cuts: Notes) -> ClosedForm:
        """Local training in closed form, see `setting.Frame`."""
        config = self.setting.config
        features = self.setting.features(private.images)
        labels = torch.from_numpy(private.labels).to(features.device)
        parts = [torch.from_numpy(indices) for indices in clients]
        batch = ClientBatch(features, labels, parts, len(self.setting.class_names))
        weight = config.training.control_variate or 0.0
        varies = weight > 0 and len(self.public) > 0 and config.privacy.unit == "client"
        variate = ControlVariate(self.public.features, weight) if varies else None
        return ClosedForm(self.head, batch, features, labels, variate)

    def evaluator(self, test: Split, unseen: Unseen | None, cuts: Notes) -> Evaluator:
        """The evaluator on cached features, see `setting.Frame`."""
        apart = None
        if unseen is not None:
            others = self.setting.clip.pooled_class_features(self.setting.class_texts(unseen.class_names))
            embeddings = self._embeddings(self.head.of_classes(others), unseen.test)
            apart = embeddings, torch.from_numpy(unseen.test.labels).to(self.setting.device)
        target = target_of(test, self.setting.device, captioned=False)
        return Evaluator(self._embeddings(self.head, test), target, captioned=False, unseen=apart)

    def _embeddings(self, head: Head, split: Split) -> Embeddings:
        features = self.setting.features(split.images)
        return lambda factors: (head.text(factors), features)

    def save(self, factors: Factors, folder: Path) -> None:
        """Write the adapter in peft's format."""
        model, placement = self.setting.clip.model, PLACEMENTS["text-projection"]
        save_adapter(model, matrices_of(model, placement), self.head.to_model(factors), folder, self.head.scale)
