"""What client and server both know of a task before a round: the frozen model, and what is public of the data.

A frame is made of it: the frozen part of training for one placement, with a fresh adapter. Both sides make the same
one, then the client adds its own images to it and the server its test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora_secure.client.trainer import Learner
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset, Split, Unseen
from flora_secure.data.images import Images, images_at
from flora_secure.data.notes import Notes
from flora_secure.model.clip import Clip, class_prompts
from flora_secure.model.factors import Factors
from flora_secure.model.features import split_features
from flora_secure.model.image_views import ImageViews
from flora_secure.model.towers import Indices
from flora_secure.planning.config import RunConfig
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.planning.rules import Rule
from flora_secure.server.evaluator import Evaluator
from flora_secure.server.warm_start import public_sample


@dataclass(frozen=True, eq=False)
class Setting:
    """What frames are made from: no private image and no test image is in it.

    Attributes:
        config, clip, rule: of the run.
        cache: where image features are kept; None computes them each time.
        class_names, templates: of the data set; empty where it is captioned.
        captioned: whether images have captions in the place of labels.
        mirror: whether a mirror image shows the same class.
        public: the public slice.
    """

    config: RunConfig
    clip: Clip
    rule: Rule
    cache: ArrayCache | None
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    captioned: bool
    mirror: bool
    public: Split = field(repr=False)

    @classmethod
    def of(cls, config: RunConfig, data: Dataset, clip: Clip, rule: Rule, cache: ArrayCache | None) -> Setting:
        """The setting of a run on `data`."""
        return cls(
            config, clip, rule, cache, data.class_names, data.templates, data.captioned, data.mirror, data.public
        )

    @property
    def views(self) -> ImageViews:
        """The views of an image that are embedded together."""
        given = self.config.model
        return ImageViews(self.mirror if given.mirror is None else given.mirror, given.crops)

    @property
    def generator(self) -> torch.Generator:
        """A generator at the run's seed."""
        return torch.Generator().manual_seed(self.config.seed)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        device: torch.device = self.clip.model.logit_scale.device
        return device

    def class_texts(self, class_names: Sequence[str]) -> list[list[str]]:
        """The prompts of each class. Raises ModelError where one is longer than the context."""
        texts = class_prompts(class_names, self.templates)
        self.clip.require_short([text for group in texts for text in group])
        return texts

    def features(self, images: Images) -> Tensor:
        """Unit-norm features of images, float32 (n, embed), all their views together."""
        return split_features(self.clip, images, views=self.views, cache=self.cache)


@dataclass(frozen=True, eq=False)
class PublicSample:
    """The images of the public slice that training may see, and their labels; embedded when something asks for them.

    Attributes:
        setting: whose slice it is, and which must have labels.
    """

    setting: Setting = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Which images of the slice they are, int64 (n,)."""
        return public_sample(len(self.setting.public))

    @cached_property
    def features(self) -> Tensor:
        """Float32 (n, embed) of unit norm."""
        return self.setting.features(images_at(self.setting.public.images, self.places))

    @cached_property
    def labels(self) -> Tensor:
        """Int64 (n,), as the data set has them: all 0 where it calls every image by one name."""
        return torch.from_numpy(self.setting.public.labels[self.places]).to(self.setting.device)

    @property
    def sources(self) -> NDArray[np.int64] | None:
        """Which of them are of one source, int64 (n,); None where the data set does not say."""
        known = self.setting.public.sources
        return None if known is None else known[self.places]


class Frame(Protocol):
    """The frozen part of training and evaluation on one placement."""

    @property
    def initial(self) -> Factors:
        """The fresh adapter, after its warm start where it has one."""
        ...

    @property
    def width(self) -> float:
        """Trained values that turn one class embedding, for the server's fitted step."""
        ...

    def learner(self, private: Split, clients: Sequence[Indices], cuts: Notes) -> Learner:
        """Local training on private images. `clients[i]`: indices of client i's; `cuts` counts captions cut short."""
        ...

    def evaluator(self, test: Split, unseen: Unseen | None, cuts: Notes) -> Evaluator:
        """The evaluator on test images, and on those of unseen classes where there are some."""
        ...

    def save(self, factors: Factors, folder: Path) -> None:
        """Write the adapter in peft's format."""
        ...


def local_rate(config: RunConfig, rule: Rule) -> float:
    """The clients' learning rate: as given, or the rule's on this placement."""
    return config.training.local_rate or rule.local_rate * PLACEMENTS[config.model.placement].rate


def target_of(test: Split, device: torch.device, *, captioned: bool) -> Tensor:
    """The right answers of a test split, as `Evaluator` wants them."""
    return torch.from_numpy(test.distinct[1] if captioned else test.labels).to(device)
