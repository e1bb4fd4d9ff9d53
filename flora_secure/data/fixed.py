"""CIFAR-10 and CIFAR-100 as their author's "python version" lays them out (https://www.cs.toronto.edu/~kriz/cifar.html).

The files are pickles, and a pickle may run any code; here one may build lists, dicts, numbers, strings and NumPy arrays
of bytes, and nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import math
import pickle
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flora_secure.data.class_names import CIFAR_TEMPLATES, TEMPLATES
from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.listings import require_folder
from flora_secure.errors import DataError

EMBEDDED_FOLDER = Path(__file__).parent.parent / "assets" / "fashion_mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PRIVATE_IMAGES = 50_000  # of Fashion-MNIST's 60,000 training images; the rest is public
_LAYOUTS = (".", "FashionMNIST/raw", "fashion-mnist", "raw")

FASHION_CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

# what pickles of Python 2 and 3 name to rebuild an array of bytes; every other name is refused
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dict in a CIFAR file; DataError for a file that cannot be read or asks for anything but plain data."""
    try:
        found = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        raise DataError(f"{path} is no CIFAR file: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is no CIFAR file: it holds a {type(found).__name__}")
    return {key if isinstance(key, bytes) else str(key).encode(): value for key, value in found.items()}


def _batch(path: Path, key: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    found = read_pickle(path)
    images, labels = found.get(b"data"), np.asarray(found.get(key, ()))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        raise DataError(f"{path} is no CIFAR file: it holds no images of 3 × 32 × 32 bytes")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path} holds {len(images):,} images and {labels.size:,} labels")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"{path} holds labels {labels.min()} to {labels.max()}, the {classes} classes end at {classes - 1}"
        )
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


def read_cifar(root: Path, hundred: bool) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """((train images, labels), (test images, labels)): uint8 (n, 32, 32, 3) and int64 (n,).

    `root` holds the batches, or torchvision's folder of them. Raises DataError for files that are missing or damaged.
    """
    folder = _folder(root, hundred)
    key, classes = (b"fine_labels", 100) if hundred else (b"labels", 10)
    train = ["train"] if hundred else [f"data_batch_{number}" for number in range(1, 6)]
    parts = [_batch(folder / name, key, classes) for name in train]
    images = np.ascontiguousarray(np.concatenate([part[0] for part in parts]))
    test_images, test_labels = _batch(folder / ("test" if hundred else "test_batch"), key, classes)
    return (images, np.concatenate([part[1] for part in parts])), (np.ascontiguousarray(test_images), test_labels)


def cifar_names(root: Path, hundred: bool) -> tuple[str, ...]:
    """The class names that the files give, in the order of the labels."""
    folder = _folder(root, hundred)
    path, key, classes = (
        (folder / "meta", b"fine_label_names", 100) if hundred else (folder / "batches.meta", b"label_names", 10)
    )
    names = read_pickle(path).get(key, ())
    if len(names) != classes:
        raise DataError(f"{path} names {len(names)} classes, not {classes}")
    return tuple((name.decode() if isinstance(name, bytes) else str(name)).replace("_", " ") for name in names)


def _folder(root: Path, hundred: bool) -> Path:
    inner, last = ("cifar-100-python", "test") if hundred else ("cifar-10-batches-py", "test_batch")
    for folder in (root / inner, root):
        if (folder / last).is_file():
            return folder
    raise DataError(f"`data.data_root` {str(root)!r} lacks {inner}/{last}: unpack the python version of CIFAR there")


_UINT8 = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array stored in `path`, plain or gzip-compressed (told by its first bytes, not by its name).

    Raises DataError when the file cannot be read, is no IDX file of unsigned bytes with that many dimensions, or its
    length is not what the header promises.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    header = 4 + 4 * dimensions
    if len(raw) < header:
        raise DataError(f"{path} is cut short: {len(raw)} bytes, the IDX header alone takes {header}")
    magic = struct.unpack(">I", raw[:4])[0]
    if magic != (_UINT8 << 8 | dimensions):
        wanted = _UINT8 << 8 | dimensions
        raise DataError(
            f"{path} is no IDX file of {dimensions}-dimensional bytes: magic {magic:#010x}, not {wanted:#010x}"
        )
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise DataError(
            f"{path} holds {len(raw) - header} bytes of data, its header promises {math.prod(shape)} {shape}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


MANIFEST = "manifest.json"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


@dataclass(frozen=True, eq=False)
class Piece:
    """Images uint8 (n, H, W), labels int64 (n,) and their positions, int64 (n,), in the original file `origin`."""

    images: np.ndarray
    labels: np.ndarray
    origin: str
    indices: np.ndarray


def pack_piece(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The bytes of a piece's file; equal input gives equal bytes with the same liblzma."""
    plain = images.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()
    return lzma.compress(plain, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_FILTERS)


def read_pack(folder: Path) -> dict[str, Piece]:
    """All pieces of the pack in `folder`, by name.

    Raises DataError when the manifest or a piece is missing, or a file's SHA-256 is not the manifest's.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / MANIFEST}: {error}; reinstall flora-secure") from None
    entries = manifest["pieces"]
    with ThreadPoolExecutor() as pool:  # hashing and LZMA let other threads run
        return dict(zip(entries, pool.map(lambda entry: _read_piece(folder, entry), entries.values()), strict=True))


def _read_piece(folder: Path, entry: dict[str, Any]) -> Piece:
    path = folder / entry["file"]
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; reinstall flora-secure") from None
    if hashlib.sha256(packed).hexdigest() != entry["sha256"]:
        raise DataError(f"{path} is damaged: its SHA-256 is not the manifest's; reinstall flora-secure")
    start, stop = entry["range"]
    count, (height, width) = stop - start, entry["shape"]
    plain = np.frombuffer(lzma.decompress(packed), np.uint8)
    images = plain[: count * height * width].reshape(count, height, width)
    labels = plain[count * height * width :].astype(np.int64)
    return Piece(images, labels, entry["origin"], np.arange(start, stop))


def _fixed(name: str, root: Path | None) -> Dataset:
    if name.startswith("cifar"):
        return _cifar(name, require_folder(root, name))
    if name == "fashion-mnist":
        return _fashion_mnist(root)
    return _digits() if name == "digits" else _embedded(EMBEDDED_FOLDER)


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
