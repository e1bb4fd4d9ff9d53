"""`flora.json` in an adapter's folder: all that is needed, beside peft's own files, to use the adapter.

peft's files hold the factors; a classifier also needs the model that they belong to, the class names and prompts, how
images reach the model and how embeddings are averaged. Whoever reads a card may have it from a stranger: it is bounded,
read strictly, and names no path. docs/use.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flora_secure.boundary.foreign import open_regular, read_text
from flora_secure.errors import ForeignError, PlainError, RunFolderError
from flora_secure.plain import document_schema, from_plain
from flora_secure.planning.placements import PLACEMENTS
from flora_secure.records.reading import parse_object

SCHEMA = "flora-secure/adapter/2"
CARD, WEIGHTS = "flora.json", "adapter_model.safetensors"
MOST_BYTES = 1 << 24  # of a card; ten thousand classes with their names take less than one MiB
MOST_WEIGHTS = 1 << 31  # bytes; of full rank in every tower of the largest model it is less

AVERAGING = "prompts: mean of pooled text features before the projection; views: normalised mean of normalised"
EMBEDDED, TAG, RANDOM, LOCAL = "embedded", "tag", "random", "local"
ARRAYS, FILES = "arrays", "files"


@dataclass(frozen=True, kw_only=True)
class AdapterCard:
    """What an adapter is and how to use it. `adapter_hash`: SHA-256 of `adapter_model.safetensors`; `model`: an
    architecture, or "local-dir:" and the name (no path) of the open_clip folder that describes it; `model_hash`: of the
    frozen model's configuration and parameters. `weights`: how these were had, "embedded", by open_clip's "tag",
    "local" or "random"; `pretrained`: the tag, or the name (no path) of the local file or folder. `images`: "arrays"
    are stretched bilinearly to `image_size` (height, width), "files" are brought to it by `resize_mode` and
    `interpolation`; `window`: which values of files with more than 8 bits are black and white, and `background`: what
    transparent ones show, both as in the run's settings. `averaging`: how an image's views and a class's prompts
    become one embedding. An adapter of a run on captions has neither `class_names` nor `templates`. `scale`: what A B
    is multiplied by; `output_added`: how often peft adds the delta of an attention's output matrix, by which its
    `lora_B` is divided. `logit_scale`: what cosines were multiplied by in training. `precision`: of the products
    inside a tower that stays frozen."""

    adapter_hash: str
    model: str
    weights: str
    pretrained: str | None
    model_hash: str
    precision: str
    image_size: list[int]
    resize_mode: str
    interpolation: str
    mean: list[float]
    std: list[float]
    images: str
    window: str
    background: str
    mirror: bool
    crops: int
    captioned: bool
    class_names: list[str]
    templates: list[str]
    averaging: str
    logit_scale: float
    placement: str
    last_layers: int | None
    rank: int
    scale: float
    output_added: float

    def __post_init__(self) -> None:
        """Raises `PlainError` that names the first key whose value cannot be."""
        for key in ("adapter_hash", "model_hash"):
            _require(re.fullmatch("[0-9a-f]{64}", getattr(self, key)) is not None, key, "a SHA-256, 64 hex digits")
        _one_of("weights", self.weights, (EMBEDDED, TAG, RANDOM, LOCAL))
        named = self.weights in (TAG, LOCAL)
        _require((self.pretrained is not None) == named, "pretrained", "the weights' name where they have one")
        _require(
            self.pretrained is None or not re.search(r"[/\\\0]", self.pretrained), "pretrained", "a name and no path"
        )
        _require(not re.search(r"[/\\\0]", self.model), "model", "a name and no path")
        _one_of("precision", self.precision, ("float32", "bfloat16"))
        _require(
            len(self.image_size) == 2 and all(1 <= side <= 1 << 14 for side in self.image_size),
            "image_size",
            "height and width in pixels",
        )
        _one_of("resize_mode", self.resize_mode, ("shortest", "squash", "longest"))
        _one_of("interpolation", self.interpolation, ("bilinear", "bicubic"))
        for key in ("mean", "std"):
            values = getattr(self, key)
            _require(len(values) == 3 and all(map(math.isfinite, values)), key, "three numbers")
        _one_of("images", self.images, (ARRAYS, FILES))
        _one_of("crops", self.crops, (1, 2, 4))
        _require(bool(self.class_names) != self.captioned, "class_names", "the classes, none where it is captioned")
        _require(bool(self.templates) != self.captioned, "templates", "prompt templates, none where it is captioned")
        for template in self.templates:
            rest = template.replace("{}", "", 1)
            _require("{}" in template and not {*rest} & {*"{}"}, "templates", f"one {{}} each, not {template!r:.60}")
        _one_of("averaging", self.averaging, (AVERAGING,))
        _one_of("placement", self.placement, tuple(PLACEMENTS))
        _require(self.last_layers is None or self.last_layers >= 1, "last_layers", "at least 1")
        _require(self.rank >= 1, "rank", "at least 1")
        for key in ("logit_scale", "scale", "output_added"):
            value = getattr(self, key)
            _require(math.isfinite(value) and value > 0, key, "a positive number")

    def to_json(self) -> str:
        """The card as a document, `schema` first."""
        table = {"schema": SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _require(condition: bool, key: str, what: str) -> None:
    if not condition:
        raise PlainError(f"{key} must be {what}")


def _one_of(key: str, value: object, known: tuple[object, ...]) -> None:
    _require(value in known, key, f"one of {', '.join(map(str, known))}, not {value!r:.60}")


def write_card(folder: Path, card: AdapterCard) -> None:
    """`flora.json` in `folder`. Raises `OSError`."""
    (folder / CARD).write_text(card.to_json(), encoding="utf-8")


def read_card(folder: Path) -> AdapterCard:
    """The card in `folder`, whose weights have the hash that it says.

    Raises `RunFolderError`, one line that names the file, for one that is missing, too
    large, unreadable or of another schema, and for other weights.
    """
    path = folder / CARD
    if not os.path.lexists(path):
        raise RunFolderError(f"{path} is missing: {folder} is no adapter of flora-secure, or one of an older release")
    try:
        table = parse_object(read_text(path, MOST_BYTES), str(path))
    except ForeignError as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from None
    if (schema := table.pop("schema", None)) != SCHEMA:
        raise RunFolderError(f"{path}: schema must be {SCHEMA!r}, got {schema!r:.60}; use the release that wrote it")
    try:
        card = from_plain(AdapterCard, table)
    except PlainError as error:
        raise RunFolderError(f"{path}: {error}") from None
    if (found := adapter_hash(folder)) != card.adapter_hash:
        raise RunFolderError(
            f"{folder / WEIGHTS} is not the adapter of {CARD}: its SHA-256 is {found:.12}…, not "
            f"{card.adapter_hash:.12}…; one of them was exchanged"
        )
    return card


def adapter_hash(folder: Path) -> str:
    """SHA-256, hexadecimal, of `adapter_model.safetensors` in `folder`. RunFolderError where it cannot be read."""
    path = folder / WEIGHTS
    try:
        with open_regular(path, MOST_WEIGHTS) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from None
    except ForeignError as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `flora.json`."""
    return document_schema(AdapterCard, SCHEMA)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
