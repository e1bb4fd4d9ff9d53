"""CIFAR-10 and CIFAR-100 as their author's "python version" lays them out (https://www.cs.toronto.edu/~kriz/cifar.html).

The files are pickles, and a pickle may run any code; here one may build lists, dicts, numbers, strings and NumPy arrays
of bytes, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from flora_secure.errors import DataError

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
