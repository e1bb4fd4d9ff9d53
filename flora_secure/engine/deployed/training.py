"""What a party of a federation computes with the model: its terms, a site's training, and the server's evaluation.

It imports torch, so that a site imports it only when a message asks for training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flora_secure.client.contribution import Contributions, Trainer
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset
from flora_secure.data.images import content
from flora_secure.data.notes import Notes
from flora_secure.engine.task import Framed, framed, trainer_of
from flora_secure.model.trained.folder import describe_adapter
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.rules import TrainedValues
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.float16 import from_wire
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.terms import Terms


def terms_of(config: RunConfig, data: Dataset, made: Framed, enrolment: Enrolment) -> Terms:
    """What a party brings to a federation, as the others compare it."""
    initial = made.frame.initial
    line, held = content(data.public.images)
    frozen = [part.reshape(-1).cpu().numpy() for part, trains in
              ((initial.a, made.rule.trains_a), (initial.b, made.rule.trains_b)) if not trains]  # fmt: skip
    return Terms.of(
        config,
        class_names=data.class_names,
        templates=data.templates,
        model_hash=made.clip.model_hash,
        frozen=np.concatenate([np.empty(0, np.float32), *frozen]),
        public_hash=hashlib.sha256(line.encode() + held).hexdigest() if len(data.public) else "",
        enrolment=enrolment.digest,
    )


@dataclass(frozen=True, eq=False)
class SiteTraining:
    """Everything of a site that needs the model: it is the `Trainer` of one client, whatever its number.

    Attributes:
        config, data: of the federation, and the site's images.
        made: the frozen model and the frame of training.
    """

    config: RunConfig
    data: Dataset
    made: Framed
    trainer: Trainer = field(repr=False)

    @classmethod
    def of(cls, config: RunConfig, data: Dataset, cache: ArrayCache | None) -> SiteTraining:
        """Load the model and take the features of the site's images. Raises an `errors.InputError` for what does not
        fit together."""
        # the server makes the warm start, and its broadcast brings it
        made, cuts = framed(override(config, {"training.warm_start": "none"}), data, cache), Notes()
        own = [np.arange(len(data.private), dtype=np.int64)]
        learner = made.frame.learner(data.private, own, cuts)
        return cls(config, data, made, trainer_of(config, made, learner, own, captioned=data.captioned))

    @property
    def trained(self) -> TrainedValues:
        """Which values it trains, and how many."""
        return self.made.trained

    @property
    def model_hash(self) -> str:
        """SHA-256 of the frozen model, hex."""
        return self.made.clip.model_hash

    def terms(self, enrolment: Enrolment) -> Terms:
        """What this site brings to the federation."""
        return terms_of(self.config, self.data, self.made, enrolment)

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """The site's contribution, see `contribution.Trainer`. Raises ValueError for other `members` than one."""
        if len(members) != 1:
            raise ValueError(f"a site trains for itself, not for {len(members)} clients")
        return self.trainer.contributions(invitation, broadcast, [0])

    def save(self, adapter: bytes, folder: Path) -> None:
        """Write the adapter with these trained values, float16 as `rounds.float16` has them, in peft's format.

        Raises ValueError for another length, OSError where it cannot be written.
        """
        import torch

        initial = self.made.frame.initial
        values = torch.from_numpy(from_wire(adapter, self.trained.dimension)).to(initial.b.device)
        factors = initial.with_vector(self.made.rule, values)
        self.made.frame.save(factors, folder)
        describe_adapter(folder, self.config, self.made.clip, self.data, factors.rank)
