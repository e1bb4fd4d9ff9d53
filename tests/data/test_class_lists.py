"""Files of class names and prompt templates in the place of a data set's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from listings import lines, pairs, skipped, write_classes

from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError


def test_a_list_of_labels_admits_those_alone(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", 5, ("cat", "dog", "emu"))
    data = load_dataset("folder", tmp_path / "images", class_names=lines(tmp_path / "names", "emu", "cat", "yak"))
    assert data.class_names == ("emu", "cat", "yak")
    assert {label for _, label in pairs(data, data.private)} == {"emu", "cat"}
    assert skipped(data)["label outside the class list"] == (5, tuple(f"dog/{i}.jpg: dog" for i in range(5)))


def test_names_in_the_order_of_the_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", 5, ("n01", "n02"))
    data = load_dataset("folder", tmp_path / "images", class_names=lines(tmp_path / "names", "tench", "goldfish"))
    assert data.class_names == ("tench", "goldfish")
    assert all(("n01" in name) == (label == "tench") for name, label in pairs(data, data.private))
    with pytest.raises(DataError, match="none of the 2 labels, such as 'n01', is among the 3 class names"):
        load_dataset("folder", tmp_path / "images", class_names=lines(tmp_path / "names", "a", "b", "c"))


def test_names_and_templates_of_a_data_set_that_ships(tmp_path: Path) -> None:
    ten = lines(tmp_path / "names", *(f"number {i}" for i in range(10)))
    data = load_dataset("digits", class_names=ten, templates=lines(tmp_path / "t", "the {}", "a {c}."))
    assert data.class_names[3] == "number 3"
    assert data.templates == ("the {}", "a {}.")
    with pytest.raises(DataError, match="2 lines, data set 'digits' has 10 classes"):
        load_dataset("digits", class_names=lines(tmp_path / "names", "a", "b"))


@pytest.mark.parametrize("text", ["no place", "{} and {}", "{0}", "{name}", "{} {", "{}{!r}"])
def test_templates_need_one_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"needs one \{\} for the class's name"):
        load_dataset("digits", templates=lines(tmp_path / "t", text))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"a\nb\na\n", "lists 'a' twice"),
        (b"\xff\xfea\0", "UTF-16 text"),
        (b"a\nb\xff\n", r"not UTF-8 text \(line 2\)"),
    ],
)
def test_bad_lists(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "names").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        load_dataset("digits", class_names=tmp_path / "names")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_dataset("digits", class_names=tmp_path / "absent")
