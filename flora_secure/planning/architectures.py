"""Sizes that are known before anything is loaded: of the models that an adapter can sit on, the embedded one and
open_clip's, and of data sets.

`assets/architectures.json` is measured on the models themselves by `docs/making/measure_architectures.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flora_secure.errors import ConfigError, did_you_mean
from flora_secure.planning.names import ICONS, LOCAL_DIR, models
from flora_secure.planning.placements import PLACEMENTS, Shapes
from flora_secure.planning.rules import rule_named
from flora_secure.planning.sections import DataConfig, ModelConfig

CLASSES = 10  # of most data sets by name, and what is assumed of files of one's own: the default rank
IMAGES = 20_000  # of all clients together, which a plan assumes of data that it does not know; clothes has as many
_OTHER_CLASSES = {"cifar100": 100, "oxford-pets": 37, "flowers102": 102, "food101": 101}


def classes_of(data: DataConfig) -> int:
    """How many classes a run over the configured data set trains, the unseen ones left out."""
    there = len(_icons()["class_names"]) if data.name == ICONS else _OTHER_CLASSES.get(data.name, CLASSES)
    return there - len(data.unseen_classes or ())


def own_clients(data: DataConfig) -> int | None:
    """How many clients a run takes that the configured data set has of its own; None where it deals the images, and
    where that is not known before they are read."""
    if data.name != ICONS or data.partition not in (None, "natural"):
        return None
    icons, away = _icons(), set[str]()
    if data.test == "unseen-clients":
        away = set(icons["unseen_authors"])
    return sum(one["prefix"] not in icons["public_sets"] and one["author"] not in away for one in icons["sets"])


def private_images(data: DataConfig) -> int | None:
    """How many images all clients of the configured data set hold together; None where that is not known before they
    are read."""
    if data.total_images is not None or data.name != ICONS:
        return data.total_images
    start, stop = _icons()["pieces"]["private"]["range"]
    return int(stop - start - (_icons()["unseen_private_images"] if data.test == "unseen-clients" else 0))


@dataclass(frozen=True)
class Architecture:
    """`parameters` of the whole model and the `shapes` of its towers."""

    name: str
    parameters: int
    shapes: Shapes

    def dimension(self, model: ModelConfig, classes: int = CLASSES) -> int:
        """Length d of an upload with this placement, rule and rank; ConfigError as `factor_sizes`."""
        return rule_named(model.trained_rule).upload_size(*self.factor_sizes(model, classes))

    def trained(self, model: ModelConfig, classes: int = CLASSES) -> int:
        """Values that the server keeps and broadcasts; ConfigError as `factor_sizes`."""
        return rule_named(model.trained_rule).size(*self.factor_sizes(model, classes))

    def factor_sizes(self, model: ModelConfig, classes: int = CLASSES) -> tuple[int, int]:
        """Values of all A and of all B.

        Raises ConfigError where the model lacks the placement's matrices or the rank exceeds theirs.
        """
        placement = PLACEMENTS[model.placement]
        try:
            matrices = placement.matrices(self.shapes, model.last_layers)
        except ValueError as error:
            raise ConfigError(f"{self.name}: {error}") from None
        if matrices is None:
            if self.shapes.projected or placement.name.startswith("visual"):
                raise ConfigError(
                    f"{self.name}'s image tower has no matrix for `model.placement` {placement.name}; use one of the "
                    "text tower"
                )
            raise ConfigError(
                f"{self.name}'s text tower has no projection for `model.placement` {placement.name}; use another, "
                "such as text-attention"
            )
        most = min(map(min, matrices))
        rank = min(placement.rank or classes, most) if model.rank is None else model.rank
        if rank > most:
            what = placement.name.replace("-", " ")
            raise ConfigError(f"`model.rank` {rank} exceeds {most}, the rank of {self.name}'s {what}; choose less")
        return rank * sum(inputs for inputs, _ in matrices), rank * sum(outputs for _, outputs in matrices)


@cache
def _icons() -> dict[str, Any]:
    text = (Path(__file__).parent.parent / "assets" / ICONS / "manifest.json").read_text(encoding="utf-8")
    manifest: dict[str, Any] = json.loads(text)
    return manifest


@cache
def _table() -> dict[str, Any]:
    text = (Path(__file__).parent.parent / "assets" / "architectures.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def of_size(values: int) -> list[str]:
    """The architectures that weights of so many `values`, statistics of batch norms among them, may belong to."""
    known = _table()["architectures"]
    return [name for name in known if 0.99 * values <= known[name]["parameters"] <= values]


def architecture(name: str) -> Architecture:
    """The architecture called `name`; ConfigError for one whose size is not known."""
    if name.startswith(LOCAL_DIR):
        raise ConfigError(
            f"the size of `model.model` {name!r} is not known before it is loaded; use simulate, or plan with an "
            "architecture of these sizes, such as tiny, ViT-B-32 or ViT-L-14"
        )
    if hub := _table()["unmeasured"].get(name):
        raise ConfigError(
            f"the size of `model.model` {name!r} is not known before it is loaded: its text tower is {hub} of Hugging "
            "Face's hub; use simulate, or plan with one such as tiny, ViT-B-32 or ViT-L-14"
        )
    if name not in _table()["architectures"]:
        raise ConfigError(
            f"the size of `model.model` {name!r} is not known; use one such as tiny, ViT-B-32 or ViT-L-14"
            + did_you_mean(name, models())
        )
    sizes = dict(_table()["architectures"][name])
    return Architecture(name, sizes.pop("parameters"), Shapes(**sizes))
