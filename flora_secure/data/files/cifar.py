"""CIFAR-10 and CIFAR-100 as their author's "python version" lays them out (https://www.cs.toronto.edu/~kriz/cifar.html).

The files are pickles, and a pickle may run any code. Here one may build lists, dicts, numbers, strings and arrays of
bytes and whole numbers, by the few instructions that such files have; the names in it stand for functions of this
module, and NumPy's own, which take a pickle's word for where objects lie in memory, are not called.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flora_secure.boundary.foreign import printable, read_bytes
from flora_secure.errors import DataError, ForeignError, first_line

_MOST_BYTES = 256 << 20  # of a file; CIFAR-100's training images have 155 MB
_MOST_STEPS = 2_000_000  # CIFAR-100's have some 300,000
_KINDS = frozenset(f"{sign}{size}" for sign in "ui" for size in (1, 2, 4, 8)) | {"b1"}


_PLAIN = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1),
    *(pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.BINBYTES8, pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.LIST),
    *(pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
    *(pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
)


class _Name:
    """What stands for a name in a pickle: it may be called, and nothing of it may be changed."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it gives a name another meaning")


class _Kind:
    """The type of an array's numbers: bytes or whole numbers, and nothing that holds objects."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        text = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or text.lstrip("|<=>") not in _KINDS:
            raise pickle.UnpicklingError("it holds an array of other things than whole numbers")
        self.code, self.order = text.lstrip("|<=>"), "<"

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        text = order.decode("latin-1") if isinstance(order, bytes) else order
        if text not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it holds an array of other things than whole numbers")
        self.order = text


class _Array:
    """An array before its numbers are known."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("it holds an array that is none")
        _, shape, kind, columns_first, raw = state
        self.found = _array(raw, kind, shape, "F" if columns_first is True else "C")


def _array(raw: object, kind: object, shape: object, order: object = "C") -> np.ndarray:
    if isinstance(raw, str):  # as Python 2's bytes are, where they are not asked for as bytes
        raw = raw.encode("latin-1")
    if not isinstance(raw, bytes | bytearray) or not isinstance(kind, _Kind) or order not in ("C", "F"):
        raise pickle.UnpicklingError("it holds an array that is none")
    if not isinstance(shape, tuple) or len(shape) > 4 or not all(type(side) is int and side >= 0 for side in shape):
        raise pickle.UnpicklingError("it holds an array of no shape")
    dtype = np.dtype((">" if kind.order == ">" else "<") + kind.code)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise pickle.UnpicklingError(f"it holds an array of {len(raw):,} bytes, which are not those of its shape")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("it asks for another encoding than latin1")
    return text.encode("latin-1")


def _named(module: str, name: str) -> Any:
    """What a pickle of Python 2 or 3 gets for a name that it rebuilds arrays with; every other name is refused."""
    if module.removesuffix(".multiarray") in ("numpy.core", "numpy._core") and name == "_reconstruct":
        return _Name(lambda *_: _Array())
    if module.removesuffix(".numeric") in ("numpy.core", "numpy._core") and name == "_frombuffer":
        return _Name(_array)
    if (module, name) == ("numpy", "dtype"):
        return _Name(_Kind)
    if (module, name) == ("numpy", "ndarray"):
        return _Name(lambda *_: _Array())
    if (module, name) == ("_codecs", "encode"):
        return _Name(_encode)
    raise pickle.UnpicklingError(f"it asks for {printable(module)[:60]}.{printable(name)[:60]}")


def _put(target: object, pairs: list[Any]) -> None:
    if type(target) is not dict or not all(type(key) in (str, bytes) for key in pairs[::2]):
        raise pickle.UnpicklingError("it holds a dict whose keys are no strings")
    target.update(zip(pairs[::2], pairs[1::2], strict=True))


def _instructions() -> dict[int, Callable[[Any], None]]:
    """What the unpickler does on each of its instructions, of those that CIFAR's files have."""
    known: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch

    def set_one(unpickler: Any) -> None:
        value, key = unpickler.stack.pop(), unpickler.stack.pop()
        _put(unpickler.stack[-1], [key, value])

    def set_all(unpickler: Any) -> None:
        pairs = unpickler.pop_mark()
        _put(unpickler.stack[-1], pairs)

    def make(unpickler: Any) -> None:
        pairs, made = unpickler.pop_mark(), dict[Any, Any]()
        _put(made, pairs)
        unpickler.append(made)

    def take(unpickler: Any) -> None:  # Python's own first makes as many zeros as it is told
        (size,) = struct.unpack("<Q", unpickler.read(8))
        unpickler.append(unpickler.read(size))

    own = {pickle.SETITEM: set_one, pickle.SETITEMS: set_all, pickle.DICT: make, pickle.BYTEARRAY8: take}
    found = {code: known[code] for code in b"".join(_PLAIN)} | {code[0]: does for code, does in own.items()}
    return {code: _counted(does) for code, does in found.items()}


def _counted(does: Callable[[Any], None]) -> Callable[[Any], None]:
    """A byte of a pickle may put a hundred bytes on stack or memo."""

    def step(unpickler: Any) -> None:
        unpickler.steps += 1
        if unpickler.steps > _MOST_STEPS:
            raise pickle.UnpicklingError(f"it has more than {_MOST_STEPS:,} instructions")
        does(unpickler)

    return step


class _Unpickler(pickle._Unpickler):
    """Python's own in Python: that in C takes memory for as many memos as a pickle says that it has."""

    dispatch = _instructions()
    steps = 0

    def find_class(self, module: str, name: str) -> Any:
        return _named(module, name)


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dict in a CIFAR file; DataError for a file that cannot be read or asks for anything but plain data."""
    try:
        found = _Unpickler(io.BytesIO(read_bytes(path, _MOST_BYTES)), encoding="bytes").load()
    except ForeignError as error:
        raise DataError(f"cannot read {path}: {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        raise DataError(f"{path} is no CIFAR file: {printable(first_line(error))[:200]}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is no CIFAR file: it holds a {type(found).__name__}")
    return {
        key if isinstance(key, bytes) else str(key).encode("utf-8", "replace"): value.found
        if isinstance(value, _Array)
        else value
        for key, value in found.items()
    }


def _batch(path: Path, key: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    found = read_pickle(path)
    images, given = found.get(b"data"), found.get(key)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        raise DataError(f"{path} is no CIFAR file: it holds no images of 3 × 32 × 32 bytes")
    labels = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(labels, list) or len(labels) != len(images) or any(type(label) is not int for label in labels):
        count = len(labels) if isinstance(labels, list) else 0
        raise DataError(
            f"{path} holds {len(images):,} images and {count:,} labels, or labels that are no whole numbers"
        )
    if labels and not 0 <= min(labels) <= max(labels) < classes:
        raise DataError(
            f"{path} holds labels {min(labels)!s:.20} to {max(labels)!s:.20}, the {classes} classes end at "
            f"{classes - 1}"
        )
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


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
    names = read_pickle(path).get(key)
    if not isinstance(names, list) or not all(type(name) in (bytes, str) for name in names):
        raise DataError(f"{path} holds no list of class names")
    if len(names) != classes:
        raise DataError(f"{path} names {len(names)} classes, not {classes}")
    try:
        texts = [name.decode() if isinstance(name, bytes) else name for name in names]
    except UnicodeDecodeError:
        raise DataError(f"{path} holds class names that are no UTF-8") from None
    return tuple(text.replace("_", " ") for text in texts)


def _folder(root: Path, hundred: bool) -> Path:
    inner, last = ("cifar-100-python", "test") if hundred else ("cifar-10-batches-py", "test_batch")
    for folder in (root / inner, root):
        if (folder / last).is_file():
            return folder
    raise DataError(f"`data.data_root` {str(root)!r} lacks {inner}/{last}: unpack the python version of CIFAR there")
