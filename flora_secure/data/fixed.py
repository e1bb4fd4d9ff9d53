"""Data sets whose images, classes and splits are fixed: clothes, digits, Fashion-MNIST, CIFAR."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flora_secure.data.class_names import CIFAR_TEMPLATES, TEMPLATES
from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.embedded.packed import read_pack
from flora_secure.data.files.cifar import cifar_names, read_cifar
from flora_secure.data.files.idx import read_idx
from flora_secure.data.folders.listing import require_folder
from flora_secure.errors import DataError

CLOTHES_FOLDER = Path(__file__).parent.parent / "assets" / "fashion_mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PRIVATE_IMAGES = 50_000  # of Fashion-MNIST's 60,000 training images; the rest is public
_LAYOUTS = (".", "FashionMNIST/raw", "fashion-mnist", "raw")

FASHION_CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def _fixed(name: str, root: Path | None) -> Dataset:
    if name.startswith("cifar"):
        return _cifar(name, require_folder(root, name))
    if name == "fashion-mnist":
        return _fashion_mnist(root)
    return _digits() if name == "digits" else _clothes(CLOTHES_FOLDER)


def fashion_mnist_folder(root: Path | None) -> Path:
    """The folder with the four IDX files: `root`, torchvision's layout under it, or Debian's when `root` is None."""
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    places = [DEBIAN_FOLDER] if root is None else [root / layout for layout in _LAYOUTS]
    for place in places:
        if all(_file(place, stem) for stem in stems):
            return place
    if root is None:
        raise DataError(
            f"fashion-mnist is not in {DEBIAN_FOLDER}: install Debian's dataset-fashion-mnist, "
            "or name a folder that holds its four files by `data.data_root`"
        )
    if not root.is_dir():
        raise DataError(f"`data.data_root` {str(root)!r} is no folder: name one that holds the Fashion-MNIST files")
    found = [place for place in places if any(_file(place, stem) for stem in stems)]
    missing = next(stem for stem in stems if not _file(found[0] if found else root, stem))
    raise DataError(
        f"`data.data_root` {str(root)!r} lacks {missing}-idx{3 if 'images' in missing else 1}-ubyte[.gz], there or in "
        "FashionMNIST/raw: put the four Fashion-MNIST files there"
    )


def _file(folder: Path, stem: str) -> Path | None:
    kind = "idx3" if stem.endswith("images") else "idx1"
    names = (f"{stem}-{kind}-ubyte", f"{stem}-{kind}-ubyte.gz", f"{stem}.{kind}-ubyte", f"{stem}.{kind}-ubyte.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_fashion_mnist(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 28, 28) and labels int64 (n,) of `part`, "train" or "t10k".

    Raises DataError where the files are missing or hold something else.
    """
    image_file, label_file = _file(folder, f"{part}-images"), _file(folder, f"{part}-labels")
    if image_file is None or label_file is None:
        raise DataError(f"folder {str(folder)!r} lacks the {part} images or labels of Fashion-MNIST")
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    expected = 60_000 if part == "train" else 10_000
    if images.shape != (expected, 28, 28) or labels.shape != (expected,):
        raise DataError(
            f"{folder} holds {part} images {images.shape} and {len(labels)} labels, not {expected} of 28 × 28"
        )
    if labels.max() >= len(FASHION_CLASSES):
        raise DataError(f"{label_file} holds label {labels.max()}, Fashion-MNIST ends at {len(FASHION_CLASSES) - 1}")
    return images, labels.astype(np.int64)


def _clothes(folder: Path) -> Dataset:
    pieces = {name: Split(p.images, p.labels, p.origin, p.indices) for name, p in read_pack(folder).items()}
    return Dataset("clothes", pieces["private"], pieces["public"], pieces["test"], FASHION_CLASSES, TEMPLATES, True)


def _fashion_mnist(root: Path | None) -> Dataset:
    folder = fashion_mnist_folder(root)
    images, labels = read_fashion_mnist(folder, "train")
    test_images, test_labels = read_fashion_mnist(folder, "t10k")
    private, public = np.arange(PRIVATE_IMAGES), np.arange(PRIVATE_IMAGES, len(images))
    return Dataset(
        "fashion-mnist",
        Split(images[:PRIVATE_IMAGES], labels[:PRIVATE_IMAGES], "train", private),
        Split(images[PRIVATE_IMAGES:], labels[PRIVATE_IMAGES:], "train", public),
        Split(test_images, test_labels, "t10k", np.arange(len(test_images))),
        FASHION_CLASSES,
        TEMPLATES,
        True,
    )


def _cifar(name: str, root: Path) -> Dataset:
    hundred = name == "cifar100"
    (images, labels), (test_images, test_labels) = read_cifar(root, hundred)
    private = len(images) * 4 // 5
    return Dataset(
        name,
        Split(images[:private], labels[:private], "train", np.arange(private)),
        Split(images[private:], labels[private:], "train", np.arange(private, len(images))),
        Split(test_images, test_labels, "test", np.arange(len(test_images))),
        cifar_names(root, hundred),
        CIFAR_TEMPLATES,
        True,
    )


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("data set 'digits' needs scikit-learn: pip install 'flora-secure[train]'") from None
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    # equal images, should a release hold any, must not end up on two sides of a split
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    order = np.random.default_rng(0).permutation(np.sort(first))
    sixth = len(order) // 6
    parts = [np.sort(part) for part in (order[2 * sixth :], order[:sixth], order[sixth : 2 * sixth])]
    private, public, test = (Split(images[part], labels[part], "digits", part) for part in parts)
    return Dataset("digits", private, public, test, tuple(f"digit {d}" for d in range(10)), TEMPLATES, False)
