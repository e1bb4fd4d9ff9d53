"""EuroSAT, Oxford-IIIT Pets, Flowers-102 and Food-101, each in the folder that torchvision's download leaves."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flora_secure.boundary.foreign import json_of, read_bytes, read_text
from flora_secure.data.class_names import (
    EUROSAT_CLASSES,
    EUROSAT_TEMPLATES,
    FLOWERS_CLASSES,
    FLOWERS_TEMPLATES,
    FOOD_TEMPLATES,
    PETS_TEMPLATES,
)
from flora_secure.data.files.samples import Naming, Sample
from flora_secure.data.folders.listing import list_folder
from flora_secure.data.images import EncodedFile
from flora_secure.data.labels import whole
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError, ForeignError, first_line


@dataclass(frozen=True)
class Photographs:
    """`listing`: from the data root to the images and their classes. A mirror image of any shows the same class."""

    listing: Callable[[Path, Notes], tuple[Sequence[Sample], Naming]]
    templates: tuple[str, ...]


def _below(root: Path, layout: str, marker: str, dataset: str) -> Path:
    """The folder that holds `marker`: `layout` below `root`, or `root` itself."""
    for folder in (root / layout, root):
        if (folder / marker).exists():
            return folder
    raise DataError(
        f"`data.data_root` {str(root)!r} lacks {layout}/{marker}: unpack {dataset} there, as torchvision does"
    )


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except ForeignError as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _eurosat(root: Path, notes: Notes) -> tuple[Sequence[Sample], Naming]:
    folder = _below(root, "eurosat/2750", "AnnualCrop", "EuroSAT")
    samples = list_folder(folder, layout="classes", notes=notes, least=0)
    return samples, Naming(tuple(EUROSAT_CLASSES), tuple(EUROSAT_CLASSES.values()))


def _pets(root: Path, notes: Notes) -> tuple[Sequence[Sample], Naming]:
    folder = _below(root, "oxford-iiit-pet", "annotations", "Oxford-IIIT Pets")
    samples, names = [], {}
    for file, split in (("trainval.txt", "private"), ("test.txt", "test")):
        path = folder / "annotations" / file
        for number, line in enumerate(_read(path).split("\n"), 1):
            if not line.strip() or line.startswith("#"):
                continue
            image, label, *_ = [*line.split(), ""]  # name, class from 1, species, breed
            label = whole(label) or "0"
            if label.startswith(("0", "-")) or len(label) > 6:
                raise DataError(f"{path}, line {number}: {line.strip()!r:.80} is no image name and class number")
            names[int(label)] = image.rpartition("_")[0].replace("_", " ").lower()
            name = f"images/{image}.jpg"
            samples.append(Sample(EncodedFile(name, folder / name), label, split=split))
    numbers = sorted(names)
    return samples, Naming(tuple(map(str, numbers)), tuple(names[number] for number in numbers))


def _flowers(root: Path, notes: Notes) -> tuple[Sequence[Sample], Naming]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError("data set 'flowers102' needs scipy: pip install 'flora-secure[train]'") from None
    folder = _below(root, "flowers-102", "imagelabels.mat", "Flowers-102")
    try:
        labels = loadmat(io.BytesIO(read_bytes(folder / "imagelabels.mat")))["labels"].ravel().astype(int)
        splits = loadmat(io.BytesIO(read_bytes(folder / "setid.mat")))
        chosen = {split: splits[key].ravel().astype(int) for key, split in
                  (("trnid", "private"), ("valid", "public"), ("tstid", "test"))}  # fmt: skip
    except Exception as error:  # scipy's reader fails in any way on damaged files
        raise DataError(f"{folder} holds no readable imagelabels.mat and setid.mat: {first_line(error)}") from None
    samples = []
    for split, numbers in chosen.items():
        for number in numbers.tolist():
            if not 1 <= number <= len(labels):
                raise DataError(f"{folder / 'setid.mat'} names image {number}, imagelabels.mat ends at {len(labels)}")
            name = f"jpg/image_{number:05d}.jpg"
            samples.append(Sample(EncodedFile(name, folder / name), str(labels[number - 1]), split=split))
    return samples, Naming(tuple(str(number) for number in range(1, 103)), FLOWERS_CLASSES)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _food(root: Path, notes: Notes) -> tuple[Sequence[Sample], Naming]:
    folder = _below(root, "food-101", "meta", "Food-101")
    samples, labels = [], set()
    for part, split in (("train", "private"), ("test", "test")):
        path = folder / "meta" / f"{part}.json"
        try:
            listed = json_of(_read(path))
        except ForeignError as error:
            raise DataError(f"{path} is no list of images by class: {error}") from None
        if not isinstance(listed, dict) or not all(_is_texts(images) for images in listed.values()):
            raise DataError(f"{path} is no list of images by class")
        for label, image in ((label, image) for label, images in listed.items() for image in images):
            labels.add(label)
            name = f"images/{image}.jpg"
            samples.append(Sample(EncodedFile(name, folder / name), label, split=split))
    order = tuple(sorted(labels))
    return samples, Naming(order, tuple(label.replace("_", " ") for label in order))


PHOTOGRAPHS = {
    "eurosat": Photographs(_eurosat, EUROSAT_TEMPLATES),
    "oxford-pets": Photographs(_pets, PETS_TEMPLATES),
    "flowers102": Photographs(_flowers, FLOWERS_TEMPLATES),
    "food101": Photographs(_food, FOOD_TEMPLATES),
}
