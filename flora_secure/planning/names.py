"""Names that a person may mean: of data sets, models and partitions. For completion and for the nearest valid value;
what is valid is decided where it is loaded."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FIXED = ("embedded", "icons", "fashion-mnist", "digits", "cifar10", "cifar100")
PHOTOGRAPHS = ("eurosat", "oxford-pets", "flowers102", "food101")
GENERIC = ("folder", "table", "webdataset")


def data_sets() -> tuple[str, ...]:
    """Every data set that `--dataset` takes."""
    return (*FIXED, *PHOTOGRAPHS, *GENERIC)


def partitions() -> tuple[str, ...]:
    """A partition of each kind."""
    return "iid", "dirichlet:0.5", "shards:2", "natural"


@cache
def models() -> tuple[str, ...]:
    """The architectures whose sizes are known, the embedded one first."""
    path = Path(__file__).parent.parent / "assets" / "architectures.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    return tuple(sorted(table["architectures"], key=lambda name: (name != "tiny", name)))
