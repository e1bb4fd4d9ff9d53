"""EuroSAT, Pets, Flowers-102, Food-101: the images, labels, splits and class names that torchvision finds there too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from images import write
from scipy.io import savemat

from flora_secure.data.class_names import EUROSAT_CLASSES, FLOWERS_CLASSES
from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError


def names(split: Split) -> list[str]:
    return [file.name for file in split.images.files]  # type: ignore[union-attr]


def sizes(data: Dataset) -> list[int]:
    return [len(split) for split in (data.private, data.public, data.test)]


def write_eurosat(root: Path) -> None:
    for number, name in enumerate(EUROSAT_CLASSES):
        for i in range(1, 6):
            write(root / "eurosat" / "2750" / name / f"{name}_{i}.jpg", number * 10 + i)


def write_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for number, breed in enumerate(("Abyssinian", "american_bulldog", "Bombay"), 1):
        for i in range(4):
            image = f"{breed}_{i + 1}"
            write(folder / "images" / f"{image}.jpg", number * 10 + i)
            lists["test" if i == 3 else "trainval"].append(f"{image} {number} {1 + number % 2} {number}")
    for part, lines in lists.items():
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_flowers(root: Path) -> None:
    folder = root / "flowers-102"
    folder.mkdir()
    for i in range(1, 13):
        write(folder / "jpg" / f"image_{i:05d}.jpg", i)
    savemat(
        folder / "imagelabels.mat", {"labels": np.array([[77, 77, 1, 1, 102, 102, 77, 1, 102, 77, 1, 5]], np.uint8)}
    )
    savemat(
        folder / "setid.mat",
        {"trnid": np.array([[1, 3, 5]]), "valid": np.array([[2, 4, 6]]), "tstid": np.array([[7, 8, 9, 10, 11, 12]])},
    )


def write_food(root: Path) -> None:
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    meta: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for number, dish in enumerate(("apple_pie", "pad_thai")):
        for i in range(4):
            write(folder / "images" / dish / f"{1000 + i}.jpg", number * 10 + i)
            meta["test" if i == 3 else "train"].setdefault(dish, []).append(f"{dish}/{1000 + i}")
    for part, content in meta.items():
        (folder / "meta" / f"{part}.json").write_text(json.dumps(content), encoding="utf-8")


WRITERS = {"eurosat": write_eurosat, "oxford-pets": write_pets, "flowers102": write_flowers, "food101": write_food}


def test_eurosat_is_split_by_class(tmp_path: Path) -> None:
    write_eurosat(tmp_path)
    data = load_dataset("eurosat", tmp_path)
    assert sizes(data) == [40, 0, 10]
    assert data.class_names == tuple(EUROSAT_CLASSES.values())
    assert np.bincount(data.test.labels).tolist() == [1] * 10
    for split in (data.private, data.test):
        for name, label in zip(names(split), split.labels, strict=True):
            assert data.class_names[label] == EUROSAT_CLASSES[name.split("/")[0]]
    assert not set(names(data.private)) & set(names(data.test))


def test_pets(tmp_path: Path) -> None:
    write_pets(tmp_path)
    data = load_dataset("oxford-pets", tmp_path)
    assert data.class_names == ("abyssinian", "american bulldog", "bombay")
    assert sizes(data) == [9, 0, 3]
    assert names(data.test) == ["images/Abyssinian_4.jpg", "images/american_bulldog_4.jpg", "images/Bombay_4.jpg"]
    assert data.test.labels.tolist() == [0, 1, 2]
    assert data.templates == ("a photo of a {}, a type of pet.",)


def test_flowers(tmp_path: Path) -> None:
    write_flowers(tmp_path)
    data = load_dataset("flowers102", tmp_path)
    assert len(set(FLOWERS_CLASSES)) == 102
    assert data.class_names == FLOWERS_CLASSES
    assert sizes(data) == [3, 3, 6]
    assert [data.class_names[label] for label in data.private.labels] == [
        "passion flower",
        "pink primrose",
        "blackberry lily",
    ]
    assert names(data.test)[0] == "jpg/image_00007.jpg"
    assert data.test.labels.tolist() == [76, 0, 101, 76, 0, 4]


def test_food(tmp_path: Path) -> None:
    write_food(tmp_path)
    data = load_dataset("food101", tmp_path)
    assert data.class_names == ("apple pie", "pad thai")
    assert sizes(data) == [6, 0, 2]
    assert names(data.test) == ["images/apple_pie/1003.jpg", "images/pad_thai/1003.jpg"]


def test_torchvision_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    for writer in WRITERS.values():
        writer(tmp_path)
    for kind in (datasets.Flowers102, datasets.OxfordIIITPet, datasets.Food101, datasets.EuroSAT):
        for check in ("_check_integrity", "_check_exists"):
            monkeypatch.setattr(kind, check, lambda self: True, raising=False)
    (tmp_path / "oxford-iiit-pet" / "annotations" / "trimaps").mkdir()
    for name, kind, part in (
        ("flowers102", datasets.Flowers102, {"split": "test"}),
        ("oxford-pets", datasets.OxfordIIITPet, {"split": "test"}),
        ("food101", datasets.Food101, {"split": "test"}),
    ):
        theirs, ours = kind(str(tmp_path), **part), load_dataset(name, tmp_path).test
        paths = theirs._images if hasattr(theirs, "_images") else theirs._image_files
        labels = getattr(theirs, "_labels", None)
        pairs = list(zip(map(str, paths), labels, strict=True))
        wanted = [(str(file.path), int(label)) for file, label in zip(ours.images.files, ours.labels, strict=True)]
        assert sorted(pairs) == sorted(wanted), name
    eurosat = load_dataset("eurosat", tmp_path)
    ours = {
        (str(f.path), int(y))
        for s in (eurosat.private, eurosat.test)
        for f, y in zip(s.images.files, s.labels, strict=True)
    }
    assert ours == set(datasets.EuroSAT(str(tmp_path)).samples)


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("eurosat", "eurosat/2750/AnnualCrop"),
        ("oxford-pets", "oxford-iiit-pet/annotations"),
        ("flowers102", r"flowers-102/imagelabels\.mat"),
        ("food101", "food-101/meta"),
    ],
)
def test_folders_that_hold_something_else(name: str, marker: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"lacks {marker}: unpack .* as torchvision does"):
        load_dataset(name, tmp_path)
    with pytest.raises(DataError, match=f"'{name}' needs data.data_root"):
        load_dataset(name)
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(name, tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("oxford-pets", "oxford-iiit-pet/annotations/test.txt", "test.txt, line 1: 'garbage' is no image name"),
        ("flowers102", "flowers-102/setid.mat", "no readable imagelabels.mat and setid.mat"),
        ("food101", "food-101/meta/train.json", "train.json is no list of images by class"),
    ],
)
def test_damaged_lists(name: str, file: str, message: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    (tmp_path / file).write_text("garbage", encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_images_are_skipped_and_named(tmp_path: Path) -> None:
    write_food(tmp_path)
    (tmp_path / "food-101" / "images" / "apple_pie" / "1001.jpg").unlink()
    data = load_dataset("food101", tmp_path)
    assert sizes(data) == [5, 0, 2]
    (skipped,) = data.skipped
    assert (skipped.reason, skipped.count) == ("cannot be read: No such file or directory", 1)
    assert skipped.names == ("images/apple_pie/1001.jpg",)


@pytest.mark.parametrize(
    ("name", "file", "raw", "message"),
    [
        ("oxford-pets", "oxford-iiit-pet/annotations/test.txt", "a 1".encode("utf-16"), "it is UTF-16 text"),
        ("oxford-pets", "oxford-iiit-pet/annotations/test.txt", "a_1 ²".encode(), "is no image name and class number"),
        ("oxford-pets", "oxford-iiit-pet/annotations/test.txt", b"a_1 " + b"9" * 5000, "is no image name and class"),
        ("food101", "food-101/meta/test.json", b'{"a": ["x"], "a": []}', "key 'a' occurs 2 times"),
        ("food101", "food-101/meta/test.json", b'{"a": "xyz"}', "is no list of images by class"),
        ("food101", "food-101/meta/test.json", b'{"a": [1]}', "is no list of images by class"),
        ("food101", "food-101/meta/test.json", b"[" * 100_000, "nested deeper than 64 levels"),
    ],
)
def test_hostile_lists(name: str, file: str, raw: bytes, message: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    (tmp_path / file).write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(name, tmp_path)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("file", ["oxford-iiit-pet/annotations/test.txt", "flowers-102/setid.mat"])
def test_pipes_in_the_place_of_lists_are_not_waited_for(file: str, tmp_path: Path) -> None:
    name = "oxford-pets" if "pet" in file else "flowers102"
    WRITERS[name](tmp_path)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(DataError, match="it is no regular file"):
        load_dataset(name, tmp_path)


def test_lists_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_pets(tmp_path)
    path = tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert names(load_dataset("oxford-pets", tmp_path).test)[0] == "images/Abyssinian_4.jpg"
