"""Sizes of the models that an adapter can sit on, known without torch: the embedded one and open_clip's.

`assets/architectures.json` is measured on the models themselves by `scripts/measure_architectures.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flora_secure.config import ConfigError, ModelConfig
from flora_secure.rules import rule_named

CLASSES = 10  # of each data set that ships, and so the default rank


@dataclass(frozen=True)
class Architecture:
    """`parameters` of the whole model; `width` and `embed`, the shape of its text projection."""

    name: str
    parameters: int
    width: int
    embed: int

    def dimension(self, model: ModelConfig) -> int:
        """Length d of an upload with this placement, rule and rank; ConfigError as :meth:`factor_sizes`."""
        return rule_named(model.rule).upload_size(*self.factor_sizes(model))

    def trained(self, model: ModelConfig) -> int:
        """Values that the server keeps and broadcasts; ConfigError as :meth:`factor_sizes`."""
        return rule_named(model.rule).size(*self.factor_sizes(model))

    def factor_sizes(self, model: ModelConfig) -> tuple[int, int]:
        """Values of A and of B.

        Raises ConfigError where the rank does not fit the projection.
        """
        most = min(self.width, self.embed)
        rank = min(CLASSES, most) if model.rank is None else model.rank
        if rank > most:
            raise ConfigError(f"rank {rank} exceeds {most}, the rank of {self.name}'s text projection; choose less")
        return rank * self.width, rank * self.embed


@cache
def _table() -> dict[str, dict[str, int]]:
    text = (Path(__file__).parent / "assets" / "architectures.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, int]] = json.loads(text)["architectures"]
    return table


def architecture(name: str) -> Architecture:
    """The architecture called `name`; ConfigError for one whose size is not known."""
    if name not in _table():
        raise ConfigError(f"the size of model {name!r} is not known; use one such as tiny, ViT-B-32 or ViT-L-14")
    return Architecture(name, **_table()[name])
