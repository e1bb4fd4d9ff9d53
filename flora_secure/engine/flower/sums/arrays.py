"""A model as Flower has it, named arrays, and the vector that is summed: its floating-point values in a row."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from flora_secure.boundary.foreign import printable
from flora_secure.errors import ConfigError, DivergedError, ForeignError, require

Arrays = Mapping[str, NDArray[Any]]
_LABEL = b"flora-secure arrays 1\0"
_WIDEST = 8  # bytes of a float that float64 holds


@dataclass(frozen=True)
class Summed:
    """Which arrays of a model are summed, in the model's order.

    Attributes:
        shapes: name → shape of each array that is summed.
        kept: names of those that are not, and stay as the server has them.
    """

    shapes: Mapping[str, tuple[int, ...]]
    kept: tuple[str, ...]

    @classmethod
    def of(cls, arrays: Arrays, keep: Sequence[str]) -> Summed:
        """Everything but what `keep` names, patterns such as "*.num_batches_tracked" among them.

        Raises ConfigError for arrays that are no floats and that nobody keeps, for a pattern that names nothing, and
        where nothing is left.
        """
        for pattern in keep:
            require(
                any(fnmatchcase(name, pattern) for name in arrays),
                f"keep {pattern!r} names no array of the model; its arrays are {_some(list(arrays))}",
            )
        kept = tuple(name for name in arrays if any(fnmatchcase(name, pattern) for pattern in keep))
        shapes = {name: array.shape for name, array in arrays.items() if name not in kept}
        for name in shapes:
            dtype = arrays[name].dtype
            require(
                dtype.kind == "f" and dtype.itemsize <= _WIDEST,
                f"array {name!r} is {dtype}, and sums are of floats; leave it as the server's with keep=({name!r},)",
            )
        require(sum(map(prod, shapes.values())) > 0, "the model has no array to sum; keep fewer of them")
        return cls(shapes, kept)

    @property
    def dimension(self) -> int:
        """How many values are summed."""
        return sum(map(prod, self.shapes.values()))

    def difference(self, after: Arrays, before: Arrays) -> NDArray[np.float64]:
        """What training has changed: float64 (dimension,). Raises ConfigError naming an array that is missing, or has
        another shape, `after` it."""
        found = []
        for name, shape in self.shapes.items():
            require(name in after, f"the app's reply lacks array {name!r}; return all arrays that it received")
            require(
                after[name].shape == shape,
                f"the app's array {name!r} has shape {after[name].shape}, and received it with {shape}",
            )
            found.append((after[name].astype(np.float64) - before[name].astype(np.float64)).reshape(-1))
        return np.concatenate(found)

    def moved(self, before: Arrays, step: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """The arrays after a step, float64 (dimension,), in their own precision. Raises DivergedError where that cannot
        hold them."""
        found, at = dict(before), 0
        for name, shape in self.shapes.items():
            size, dtype = prod(shape), before[name].dtype
            with np.errstate(over="ignore"):  # what it finds is said below
                new = (before[name].astype(np.float64) + step[at : at + size].reshape(shape)).astype(dtype)
            if not np.isfinite(new).all():
                raise DivergedError(f"array {name!r} left the range of {dtype}; send it as float32, or clip to less")
            found[name], at = new, at + size
        return found


def numpy_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """The arrays of a record, in its order. Raises ForeignError for one that numpy does not read: a record may come
    from another machine, and is never unpickled."""
    found = {}
    for name, array in record.items():
        try:
            found[name] = array.numpy()
        except Exception as error:  # numpy's reader of hostile bytes may break wherever it likes
            raise ForeignError(f"array {printable(name[:80])!r} cannot be read ({type(error).__name__})") from None
    return found


def record_of(arrays: Arrays) -> ArrayRecord:
    """The arrays as Flower has them, in their order."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def hash_of(arrays: Arrays) -> bytes:
    """32 bytes that bind names, order, types, shapes and values of a model."""
    digest = hashlib.sha256(_LABEL)
    for name, array in arrays.items():
        for part in (name.encode(), array.dtype.str.encode(), struct.pack(f"<{array.ndim}q", *array.shape)):
            digest.update(struct.pack("<I", len(part)) + part)
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def keep_of(value: object) -> tuple[str, ...]:
    """The `keep` of a caller: names or patterns. Raises ConfigError for one text, which Python would take letter by
    letter."""
    require(
        isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value),
        f"keep must be a tuple of names, got {value!r:.80}; write keep=(name,)",
    )
    assert isinstance(value, Sequence)
    return tuple(value)


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:6]))
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def require_readable(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """`numpy_of`, of arrays that a person gave. Raises ConfigError for one that is none of numpy's."""
    try:
        return numpy_of(record)
    except ForeignError as error:
        raise ConfigError(f"the model cannot be read: {error}; make it with ArrayRecord(...)") from None
