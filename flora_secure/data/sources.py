"""The data sets by name, each split into the clients' images, a public slice and test images that never overlap.

| name | private | public | test |
|---|---|---|---|
| embedded | Fashion-MNIST train[0:20000] | train[50000:60000] | t10k[0:4000] |
| fashion-mnist | train[0:50000] | train[50000:60000] | all of t10k |
| digits | scikit-learn's, two thirds | a sixth | a sixth |
| cifar10, cifar100 | train[0:40000] | train[40000:50000] | test |

The others are files, listed by `photographs`, `folders`, `tables` and `webdataset`; docs/data.md has their layouts.

The public slice is what pretraining, the choice of hyper-parameters, the warm start and the control variate may see.
Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from flora_secure.data.cache import ArrayCache
from flora_secure.data.cifar import cifar_names, read_cifar
from flora_secure.data.class_names import CIFAR_TEMPLATES, TEMPLATES, read_lines, read_templates
from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.errors import DataError
from flora_secure.data.folders import list_folder, require_folder
from flora_secure.data.idx import read_idx
from flora_secure.data.pack import read_pack
from flora_secure.data.photographs import PHOTOGRAPHS
from flora_secure.data.samples import Naming, Sample, assemble, assemble_captioned
from flora_secure.data.skipped import SkipList
from flora_secure.data.tables import list_table
from flora_secure.data.webdataset import list_shards

EMBEDDED_FOLDER = Path(__file__).parent.parent / "assets" / "fashion_mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PRIVATE_IMAGES = 50_000  # of Fashion-MNIST's 60,000 training images; the rest is public
CLASS_FILE, TEMPLATE_FILE = "classnames.txt", "zeroshot_classification_templates.txt"  # as CLIP_benchmark has them
_LAYOUTS = (".", "FashionMNIST/raw", "fashion-mnist", "raw")


FASHION_CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


FIXED = ("embedded", "fashion-mnist", "digits", "cifar10", "cifar100")
GENERIC = ("folder", "table", "webdataset")


def load_dataset(
    name: str = "embedded",
    data_root: str | Path | None = None,
    *,
    natural: bool = False,
    class_names: str | Path | None = None,
    templates: str | Path | None = None,
    cache: ArrayCache | None = None,
) -> Dataset:
    """The data set called `name`; `data_root` is where it lies ("embedded" and "digits" need none).

    `natural`: the folders above the classes of data set "folder" are clients. `class_names` and `templates` are files
    of one a line that take the place of the data set's own. `cache` remembers which image files are damaged. Raises
    DataError for an unknown name, a missing folder or files, files that are not what they should be, and class names or
    templates for captions, which need neither.
    """
    root = None if data_root is None else Path(data_root)
    lines = None if class_names is None else read_lines(Path(class_names), "class name file")
    prompts = None if templates is None else read_templates(Path(templates))
    if name in FIXED:
        dataset = _fixed(name, root)
        if lines is not None:
            _require_as_many(lines, len(dataset.class_names), name)
            dataset = replace(dataset, class_names=lines)
        return dataset if prompts is None else replace(dataset, templates=prompts)
    skips = SkipList()
    if name in PHOTOGRAPHS:
        kind = PHOTOGRAPHS[name]
        samples, naming = kind.listing(require_folder(root, name), skips)
        if lines is not None:
            assert naming.labels is not None
            _require_as_many(lines, len(naming.labels), name)
            naming = Naming(naming.labels, lines)
        return assemble(name, samples, naming, prompts or kind.templates, mirror=True, cache=cache, skips=skips)
    if name not in GENERIC:
        raise DataError(f"unknown data set {name!r}: use one of {', '.join((*FIXED, *PHOTOGRAPHS, *GENERIC))}")
    folder = require_folder(root, name)
    beside = folder if folder.is_dir() else folder.parent
    asked = [
        option for option, file in (("--class-names", class_names), ("--templates", templates)) if file is not None
    ]
    if lines is None and (beside / CLASS_FILE).is_file():
        lines = read_lines(beside / CLASS_FILE, "class name file")
    if prompts is None and (beside / TEMPLATE_FILE).is_file():
        prompts = read_templates(beside / TEMPLATE_FILE)
    if name == "folder":
        listing = list(list_folder(folder, natural=natural, skips=skips))
    elif name == "table":
        listing = list(list_table(folder, skips=skips))
    else:
        listing = list_shards(folder, lines, skips=skips)
    if any(sample.caption for sample in listing):
        if asked:
            raise DataError(
                f"data set {name!r} has captions, which are used as they are: leave out {' and '.join(asked)}"
            )
        return assemble_captioned(name, listing, cache=cache, skips=skips)
    naming, listing = _naming(lines, listing)
    return assemble(name, listing, naming, prompts or TEMPLATES, mirror=False, cache=cache, skips=skips)


def _fixed(name: str, root: Path | None) -> Dataset:
    if name.startswith("cifar"):
        return _cifar(name, require_folder(root, name))
    if name == "fashion-mnist":
        return _fashion_mnist(root)
    return _digits() if name == "digits" else _embedded(EMBEDDED_FOLDER)


def _require_as_many(lines: tuple[str, ...], classes: int, name: str) -> None:
    if len(lines) != classes:
        raise DataError(f"the class name file has {len(lines)} lines, data set {name!r} has {classes} classes")


def _naming(lines: tuple[str, ...] | None, samples: list[Sample]) -> tuple[Naming, list[Sample]]:
    """How a list of class names reads the labels that occur: as names, as numbers from 0, or in their order."""
    if lines is None:
        return Naming(), samples
    found = {sample.label for sample in samples}
    if found & set(lines):
        return Naming(lines), samples
    if all(label.isascii() and label.isdigit() for label in found):
        plain = [replace(sample, label=str(int(sample.label))) for sample in samples]
        return Naming(tuple(str(number) for number in range(len(lines))), lines), plain
    if len(found) == len(lines):
        return Naming(tuple(sorted(found)), lines), samples
    raise DataError(
        f"none of the {len(found)} labels, such as {min(found)!r}, is among the {len(lines)} class names, such as "
        f"{lines[0]!r}: list the labels, or a name for each in their order"
    )


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
            "or name a folder that holds its four files with --data-root"
        )
    if not root.is_dir():
        raise DataError(f"data root {str(root)!r} is no folder: name one that holds the Fashion-MNIST files")
    found = [place for place in places if any(_file(place, stem) for stem in stems)]
    missing = next(stem for stem in stems if not _file(found[0] if found else root, stem))
    raise DataError(
        f"data root {str(root)!r} lacks {missing}-idx{3 if 'images' in missing else 1}-ubyte[.gz], there or in "
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


def _embedded(folder: Path) -> Dataset:
    pieces = {name: Split(p.images, p.labels, p.origin, p.indices) for name, p in read_pack(folder).items()}
    return Dataset("embedded", pieces["private"], pieces["public"], pieces["test"], FASHION_CLASSES, TEMPLATES, True)


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
