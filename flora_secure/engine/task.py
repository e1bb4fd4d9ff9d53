"""A run's task: model, data and frame, and from them the trainer of clients and the server's evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flora_secure.client.contribution import Trainer
from flora_secure.client.trainer import ExampleTrainer, Learner, UpdateTrainer
from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset
from flora_secure.data.federation import Federation
from flora_secure.data.notes import Notes
from flora_secure.engine.choices.decided import decided
from flora_secure.engine.frames.placed import PlacedFrame
from flora_secure.engine.frames.projection import Projection
from flora_secure.engine.frames.setting import Frame, Setting, local_rate
from flora_secure.errors import ConfigError
from flora_secure.model.clip import Clip
from flora_secure.model.devices import device_named
from flora_secure.model.factors import Factors
from flora_secure.model.loading import EMBEDDED, load_clip
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.rules import Rule, TrainedValues, rule_named
from flora_secure.records.report import Choices
from flora_secure.server.evaluator import Evaluator
from flora_secure.server.scores import guessed
from flora_secure.server.task import ServerTask

KNOWN = ("icons", "clothes", "fashion-mnist")  # the data sets that the embedded model was made for
_LITTLE_ELSE = (
    f"the embedded model, {EMBEDDED}, was trained on grey pictures of 28 × 28 pixels of clothes, icons of everyday "
    "things, simple shapes, letters and digits, and knows little else; for other images use `model.model` ViT-B-32 and "
    "`model.pretrained` laion2b_s34b_b79k"
)
_OTHER_MODEL = (
    "it may not know such images or such class names (`data.class_names`, `data.templates`), or its weights "
    "may be another model's (`model.model`, `model.pretrained`)"
)


@dataclass(frozen=True, eq=False)
class Framed:
    """The frozen model, which factors train, and the frame of both: all that client and server make alike.

    `config`: what it was made by, with what public data decided; `choices`: of these.
    """

    config: RunConfig
    clip: Clip
    rule: Rule
    frame: Frame = field(repr=False)
    choices: Choices = field(repr=False)

    @property
    def trained(self) -> TrainedValues:
        """Which values train, and how many."""
        return self.frame.initial.trained(self.rule)


@dataclass(frozen=True, eq=False)
class Task:
    """Everything of a run that does not depend on noise or masking, as its server knows it; in a simulation, with the
    training of all clients.

    Attributes:
        made: the frozen model, which factors train, the frame and the fresh adapter.
        federation: the data, and who holds it. A deployed server has test and public images, and no client's.
        learner: local training of all clients; None where they train elsewhere.
        evaluator: of the test images.
    """

    made: Framed
    federation: Federation
    learner: Learner | None = field(repr=False)
    evaluator: Evaluator = field(repr=False)

    @property
    def clip(self) -> Clip:
        """The frozen model that everything is trained on."""
        return self.made.clip

    @property
    def rule(self) -> Rule:
        """The rule that says which factors train."""
        return self.made.rule

    @property
    def frame(self) -> Frame:
        """The frozen part of training, and the fresh adapter."""
        return self.made.frame

    @property
    def initial(self) -> Factors:
        """The adapter before round 1."""
        return self.frame.initial

    @property
    def frozen(self) -> Factors:
        """An adapter that changes nothing: the frozen model, before the warm start."""
        return Factors(a=self.initial.a, b=torch.zeros_like(self.initial.b))

    @property
    def trained(self) -> TrainedValues:
        """Which values train, and how many."""
        return self.initial.trained(self.rule)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines about what was guessed, replaced or looks wrong in data and model, and what to do about it."""
        doubt = self.doubt(self.zero_shot, "the frozen model", _OTHER_MODEL)
        return (*self.federation.dataset.warnings, *self.clip.warnings, *doubt)

    def doubt(self, accuracy: float, whose: str, remedy: str) -> tuple[str, ...]:
        """A line about an accuracy on the test images that guessing explains as well, or none: see `guessed`."""
        captioned, target = self.federation.dataset.captioned, self.evaluator.target
        images = int(target.max()) + 1 if captioned else len(target)
        choices = images if captioned else len(self.federation.dataset.class_names)
        if not guessed(round(accuracy * images), images, 1 / choices):
            return ()
        among = "images" if captioned else "classes"
        return (
            f"accuracy of {whose}, {accuracy:.1%} of {images:,} test images, is no better than guessing among "
            f"{choices:,} {among} ({1 / choices:.1%}): {remedy}",
        )

    @cached_property
    def zero_shot(self) -> float:
        """The accuracy of the frozen model, which the report has too: worked out once, before the first round."""
        return self.evaluator.accuracy(self.frozen)

    def settled(self, config: RunConfig) -> RunConfig:
        """`config` with what it left open of warm start and control variate as the task has it: what a run folder
        holds."""
        own = self.made.config.training
        changes = {f"training.{key}": getattr(own, key) for key in ("warm_start", "control_variate")}
        return override(config, changes)

    def chosen(self, earlier: Choices | None) -> Task:
        """This task of a run that goes on, whose `earlier` beginning decided what is now in its configuration."""
        return self if earlier is None else replace(self, made=replace(self.made, choices=earlier))

    def factors(self, values: NDArray[np.float32]) -> Factors:
        """The adapter with these trained values, float32 (trained.dimension,)."""
        return self.initial.with_vector(self.rule, torch.from_numpy(values).to(self.initial.b.device))

    def trainer(self, config: RunConfig) -> Trainer:
        """The trainer of all clients, see `trainer_of`. Raises ValueError where they train elsewhere."""
        if self.learner is None:
            raise ValueError("this task has no clients: they train where their images are")
        federation = self.federation
        return trainer_of(config, self.made, self.learner, federation.clients, captioned=federation.dataset.captioned)

    def for_server(self, images: int | None = None) -> ServerTask:
        """What the server is told of the task. `images`: of all clients together, where they are not here."""
        data = self.federation.dataset
        return ServerTask(
            trained=self.trained,
            initial=self.initial.vector(self.rule).cpu().numpy(),
            width=self.frame.width,
            images=len(data.private.labels) if images is None else images,
            model_hash=self.clip.model_hash,
            data_hash=data.data_hash,
            accuracy=lambda values: self.evaluator.accuracy(self.factors(values)),
        )

    def save(self, factors: Factors, folder: Path) -> None:
        """Write the adapter in peft's format."""
        self.frame.save(factors, folder)


def _require_public(config: RunConfig, data: Dataset) -> None:
    """ConfigError where somebody has set what public images with labels are to do, and there are none."""
    lacks = "captions have no classes" if data.captioned else "" if len(data.public) else "the data set has none"
    for key, idle in (("warm_start", "none"), ("control_variate", 0.0)):
        value = getattr(config.training, key)
        if lacks and value not in (None, idle):
            raise ConfigError(
                f"`training.{key}` {value} is what public images of classes do, and {lacks}: leave it out"
            )
    known = set(data.public.labels.tolist())
    if config.training.warm_start == "labels" and len(known) < len(data.class_names):
        missing = next(name for place, name in enumerate(data.class_names) if place not in known)
        raise ConfigError(
            f"`training.warm_start` labels needs public images of every class, and of {missing!r} there are none; use "
            "images or none, or leave it out"
        )


def framed(config: RunConfig, data: Dataset, cache: ArrayCache | None = None) -> Framed:
    """Load the model and make the frame, of which private and test images of `data` are no part.

    Raises an `errors.InputError` for anything in `config` that does not fit together.
    """
    device = device_named(config.training.device)
    rule = rule_named(config.model.trained_rule)
    if data.captioned and rule.prompt_basis:
        if config.model.rule is not None:
            raise ConfigError(
                "`model.rule` prompt-basis needs class prompts, and captions have none; use frozen-a or ab"
            )
        rule = rule_named("frozen-a")
    _require_public(config, data)
    precision = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.training.precision]
    clip = load_clip(config.model.model, config.model.pretrained, device, precision)
    if config.model.model == EMBEDDED and config.model.pretrained in (None, "embedded") and data.name not in KNOWN:
        clip = replace(clip, warnings=(*clip.warnings, _LITTLE_ELSE))
    setting = Setting.of(config, data, clip, rule, cache)
    if config.model.placement != "text-projection" or data.captioned:
        return Framed(config, clip, rule, PlacedFrame.of(setting), Choices(warm_start=None, control_variate=None))
    frame = Projection.of(setting)
    config, choices = decided(frame)
    return Framed(config, clip, rule, frame.settled(config), choices)


def trainer_of(
    config: RunConfig, made: Framed, learner: Learner, clients: Sequence[NDArray[np.int64]], *, captioned: bool
) -> Trainer:
    """The trainer of `clients`, whose images `learner` has, for the unit that the budget protects.

    Raises ConfigError for unit `example` with captions, where a loss belongs to all of a client's pairs.
    """
    initial = made.frame.initial
    if config.privacy.unit == "client":
        rate = local_rate(config, made.rule)
        return UpdateTrainer(learner, made.rule, initial, config.training.local_steps, rate)
    if captioned:
        raise ConfigError(
            "`privacy.unit` example needs labels: with captions a loss belongs to all of a client's pairs"
        )
    coins = config.seed if config.privacy.simulation_noise else None
    return ExampleTrainer(learner, made.rule, initial, clients, coins)


def prepare(config: RunConfig, federation: Federation, cache: ArrayCache | None = None) -> Task:
    """Load the model, take the features of all images (from `cache` where it has them), make a fresh adapter.

    Raises an `errors.InputError` for anything in `config` that does not fit together.
    """
    data, cuts = federation.dataset, Notes()
    made = framed(config, data, cache)
    learner = made.frame.learner(data.private, federation.clients, cuts) if federation.clients else None
    evaluator = made.frame.evaluator(data.test, data.unseen, cuts)
    if cut := cuts.skipped():
        federation = replace(federation, dataset=replace(data, skipped=(*data.skipped, *cut)))
    return Task(made, federation, learner, evaluator)
