"""`flora.json`: what it says is read back, and anything else that may lie there is refused in a line."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flora_secure.errors import PlainError, RunFolderError
from flora_secure.records.adapter_card import (
    AVERAGING,
    CARD,
    MOST_BYTES,
    WEIGHTS,
    AdapterCard,
    json_schema,
    read_card,
    write_card,
)

DOCS = Path(__file__).parents[2] / "docs"
GENUINE = AdapterCard(
    adapter_hash=hashlib.sha256(b"weights").hexdigest(),
    model="ViT-B-32",
    weights="tag",
    pretrained="laion2b_s34b_b79k",
    model_hash="0" * 64,
    precision="float32",
    image_size=[224, 224],
    resize_mode="shortest",
    interpolation="bicubic",
    mean=[0.48, 0.46, 0.41],
    std=[0.27, 0.26, 0.28],
    window="auto",
    background="black",
    images="files",
    mirror=True,
    crops=2,
    captioned=False,
    class_names=["bag", "“boot”"],
    templates=["a photo of a {}"],
    averaging=AVERAGING,
    logit_scale=28.0,
    placement="text-projection",
    last_layers=None,
    rank=2,
    scale=1.0,
    output_added=2.0,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    write_card(tmp_path, GENUINE)
    return tmp_path


def test_a_card_is_read_back(folder: Path) -> None:
    assert read_card(folder) == GENUINE
    table = json.loads((folder / CARD).read_text(encoding="utf-8"))
    jsonschema.validate(table, json_schema())
    captions = dataclasses.replace(GENUINE, captioned=True, class_names=[], templates=[])
    write_card(folder, captions)
    assert read_card(folder) == captions


def test_the_published_schema_is_this_one() -> None:
    assert json.loads((DOCS / "adapter.schema.json").read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("adapter_hash", "0" * 63, "adapter_hash must be a SHA-256"),
        ("model_hash", "g" * 64, "model_hash must be a SHA-256"),
        ("adapter_hash", "1" * 64, "is not the adapter of flora.json"),
        ("weights", "http", "weights must be one of"),
        ("weights", "embedded", "pretrained must be"),
        ("pretrained", None, "pretrained must be"),
        ("pretrained", "../../etc/passwd", "pretrained must be a name and no path"),
        ("pretrained", "c:\\w", "pretrained must be a name and no path"),
        ("pretrained", "a\0", "pretrained must be a name and no path"),
        ("precision", "float16", "precision must be one of"),
        ("image_size", [224], "image_size must be"),
        ("image_size", [0, 224], "image_size must be"),
        ("image_size", [10**9, 224], "image_size must be"),
        ("resize_mode", "tile", "resize_mode must be one of"),
        ("interpolation", "nearest", "interpolation must be one of"),
        ("mean", [0.5, 0.5], "mean must be three numbers"),
        ("images", "urls", "images must be one of"),
        ("crops", 3, "crops must be one of 1, 2, 4"),
        ("class_names", [], "class_names must be"),
        ("class_names", "bag", "class_names must be of type list"),
        ("class_names", [1], r"class_names\[0\] must be of type str"),
        ("templates", [], "templates must be"),
        ("templates", ["a photo"], "templates must be one {} each"),
        ("templates", ["{} {}"], "templates must be one {} each"),
        ("templates", ["{0.__class__} {}"], "templates must be one {} each"),
        ("captioned", True, "class_names must be"),
        ("captioned", 1, "captioned must be of type bool"),
        ("averaging", "none", "averaging must be one of"),
        ("placement", "everywhere", "placement must be one of"),
        ("last_layers", 0, "last_layers must be at least 1"),
        ("rank", 0, "rank must be at least 1"),
        ("rank", 2.0, "rank must be of type int"),
        ("scale", 0.0, "scale must be a positive number"),
        ("logit_scale", -1.0, "logit_scale must be a positive number"),
        ("output_added", 1e999, "Infinity is not JSON"),
        ("schema", "flora-secure/adapter/3", "schema must be 'flora-secure/adapter/2'.*use the release that wrote it"),
        ("more", 1, "unknown key 'more'"),
    ],
)
def test_other_values_are_refused(folder: Path, key: str, value: Any, what: str) -> None:
    table = json.loads((folder / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(json.dumps({**table, key: value}))
    with pytest.raises(RunFolderError, match=what) as caught:
        read_card(folder)
    assert "\n" not in str(caught.value)


def _missing_key(folder: Path) -> None:
    table = json.loads((folder / CARD).read_text(encoding="utf-8"))
    del table["rank"]
    (folder / CARD).write_text(json.dumps(table))


def _pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda folder: (folder / CARD).unlink(), "is missing"),
        (
            lambda folder: (folder / CARD).write_bytes(b" " * (MOST_BYTES + 1)),
            "it has 16,777,217 bytes, and 16,777,216 are the most",
        ),
        (lambda folder: (folder / CARD).write_bytes(b"\xff"), "it is not UTF-8 text"),
        (lambda folder: (folder / CARD).write_text("[" * 100_000), "nested deeper than 64 levels"),
        (lambda folder: (folder / CARD).write_text("[]"), "not a JSON object"),
        (lambda folder: (folder / CARD).write_text('{"rank": 1, "rank": 2}'), "occurs 2 times"),
        (_missing_key, "key 'rank' is missing"),
        (_pipe(CARD), "is no regular file"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read: No such file"),
        (_pipe(WEIGHTS), "is no regular file"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"others"), "one of them was exchanged"),
    ],
)
def test_other_files_are_refused(folder: Path, change: Callable[[Path], object], what: str) -> None:
    change(folder)
    with pytest.raises(RunFolderError, match=what):
        read_card(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(key=st.sampled_from([field.name for field in dataclasses.fields(AdapterCard)]), value=JSON)
def test_any_value_is_a_card_or_a_line(key: str, value: Any) -> None:
    from flora_secure.plain import from_plain

    table = {**dataclasses.asdict(GENUINE), key: value}
    told = ""
    try:
        card = from_plain(AdapterCard, table)
        assert AdapterCard(**json.loads(json.dumps(dataclasses.asdict(card)))) == card
    except PlainError as error:
        told = str(error)
    assert not told or key in told
