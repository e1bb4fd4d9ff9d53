"""Names that a person may mean: of data sets, models, partitions and competitors. For completion, for the nearest valid
value and for the data set that lies at a place; what is valid is decided where it is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from flora_secure.errors import did_you_mean, require

ICONS = "icons"  # the default: what ships with clients of its own
FIXED = (ICONS, "clothes", "fashion-mnist", "digits", "cifar10", "cifar100")
PHOTOGRAPHS = ("eurosat", "oxford-pets", "flowers102", "food101")
GENERIC = ("folder", "table", "webdataset")
SHIPPED = (ICONS, "clothes", "digits")  # which need no files of the user's
_EARLIER = {"embedded": "clothes"}  # what earlier releases called a data set, and its name of today
PASSED = "own:"  # before the name of a data set that a program passes and that is in no file
COMPETITORS = ("public", "local", "central", "no-noise")  # of a run, which its report may have beside it
_TABLES = (".csv", ".tsv", ".parquet")
# a folder or file that tells a named data set by itself
_MARKS = {
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
    "FashionMNIST": "fashion-mnist",
    "eurosat": "eurosat",
    "oxford-iiit-pet": "oxford-pets",
    "flowers-102": "flowers102",
    "food-101": "food101",
}

LOCAL_DIR = "local-dir:"  # before the path of an open_clip folder in the place of a model's name, as open_clip has it


def data_sets() -> tuple[str, ...]:
    """Every data set that `--dataset` takes."""
    return (*FIXED, *PHOTOGRAPHS, *GENERIC)


def called_now(data_set: str) -> str:
    """The name of today of a data set, where `data_set` is what an earlier release called it; else the name itself."""
    return _EARLIER.get(data_set, data_set)


def partitions() -> tuple[str, ...]:
    """A partition of each kind."""
    return "iid", "dirichlet:0.5", "shards:2", "natural"


def competitors(named: Iterable[str]) -> tuple[str, ...]:
    """The competitors that are named, each once, in the order of all. Raises `flora_secure.errors.ConfigError`."""
    asked = [*named] if isinstance(named, Iterable) else [named]
    require(all(isinstance(name, str) for name in asked), f"`compare` must be a list of names, got {named!r}")
    for name in asked:
        known = ", ".join(COMPETITORS)
        require(name in COMPETITORS, f"`compare` {name!r} is none of {known}{did_you_mean(name, COMPETITORS)}")
    return tuple(name for name in COMPETITORS if name in asked)


@cache
def models() -> tuple[str, ...]:
    """The architectures whose sizes are known, the embedded one first."""
    path = Path(__file__).parent.parent / "assets" / "architectures.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    return tuple(sorted(table["architectures"], key=lambda name: (name != "tiny", name)))


def proposed(root: Path, but: str = "") -> str:
    """The end of a message about a data root that a data set, `but`, does not read: what to set for what lies there."""
    general = "see docs/data.md for the layout"
    if not but:
        general = f"say what lies there by `data.dataset`: {', '.join(GENERIC)}"
    try:
        inside = sorted(os.listdir(root)) if root.is_dir() else []
    except OSError:
        return general
    for mark, name in _MARKS.items():
        if mark in (root.name, *inside) and name != but:
            return f"it looks like `data.dataset` {name}"
    if root.suffix.lower() in _TABLES and but != "table":
        return "a table is `data.dataset` table"
    splits = [one for one in inside if (root / one).is_dir()]
    shards = any(name.endswith(".tar") for one in ("", *splits[:8]) for name in _names(root / one))
    if (shards or root.suffix == ".tar") and but != "webdataset":
        return "shards in .tar files are `data.dataset` webdataset"
    tables = [name for name in inside if name.lower().endswith(_TABLES)]
    if tables and (len(tables) == 1 or not splits):
        return f"for the table in it, `data.dataset` table and `data.data_root` {str(root / tables[0])!r}"
    return "folders of images are `data.dataset` folder" if splits and but != "folder" else general


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def pathless(model: str) -> str:
    """A model's name as adapters carry it: of a folder its own name alone, and no path."""
    return model if not model.startswith(LOCAL_DIR) else LOCAL_DIR + last_part(model.removeprefix(LOCAL_DIR))


def last_part(path: str) -> str:
    """The name of a file or folder, without what some systems have in names and others in paths."""
    return Path(path).name.replace("\\", "_")


NOT_DRAWN, OF_UNSEEN = "image of a client that was not drawn", "image of an unseen class"
"""Why images of a named data set are left out by its settings: reasons that reports count, and audits know."""
