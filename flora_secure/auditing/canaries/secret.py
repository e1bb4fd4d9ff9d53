"""The secret of a run's canaries: who of them is in, and in which directions, kept outside of the run folder.

The last `count` clients of a run are canaries. A coin decides once for each whether it is in; one that is in gives, in
every round of its, a vector that is `LENGTH` times as long as the clip norm, one that is out gives zeros, which is what
zero-out neighbours differ by. All follows from 32 secret bytes of the operating system; config.toml has the file's
SHA-256 before round 1, so that coins and directions cannot be chosen once the sums are known.

Directions are orthonormal among each other, and fresh in each round: what else is in a sum falls on them by chance, and
what a model learns in one round says nothing about those of the next. They are rows of a Hadamard matrix with secret
signs, on secret coordinates, so that making and reading them takes O(d log d).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flora_secure.boundary.foreign import json_of, read_text
from flora_secure.errors import ForeignError, InputError, PlainError, RunFolderError, require
from flora_secure.plain import from_plain
from flora_secure.privacy.rotation import SMALLEST, hadamard_transform

SCHEMA = "flora-secure/canaries/1"
LENGTH = 16.0  # times the clip norm: where clients do not clip, canaries stand out of their updates
_SECRET = 32
_LARGEST = 1 << 28  # clients, and values of an update
_MOST = 1 << 16  # bytes of a file; ours have some two hundred


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """The canaries of a run.

    Attributes:
        count: how many there are.
        first: number of the first of them; clients below it are real ones.
        values: d, coordinates of an update.
        secret: 32 bytes, hex.
    """

    count: int
    first: int
    values: int
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        most = largest_order(max(self.values, 1))
        require(
            self.count <= most,
            f"`evidence.canaries` {self.count} need so many orthogonal directions, and in updates of {self.values:,} "
            f"values there are {most:,}: take at most so many, or a larger `model.rank`",
        )

    @classmethod
    def drawn(cls, count: int, first: int, values: int) -> Canaries:
        """Fresh ones, from the operating system. Raises ConfigError for more than updates have room for."""
        return cls(count=count, first=first, values=values, secret=os.urandom(_SECRET).hex())

    @property
    def inside(self) -> NDArray[np.bool_]:
        """The coins, (count,): which canaries are in."""
        bits = np.frombuffer(self._stream("coins", -(-self.count // 8)), np.uint8)
        return np.unpackbits(bits, count=self.count).astype(bool)

    def directions(self, number: int) -> Directions:
        """The directions of round `number`."""
        order = largest_order(self.values)
        words = np.frombuffer(self._stream(f"coordinates {number}", 8 * self.values), "<u8")
        coordinates = np.sort(np.argsort(words, kind="stable")[:order])
        words = np.frombuffer(self._stream(f"rows {number}", 8 * order), "<u8")
        rows = np.argsort(words, kind="stable")[: self.count]
        bits = np.unpackbits(np.frombuffer(self._stream(f"signs {number}", -(-order // 8)), np.uint8), count=order)
        signs = (1.0 - 2.0 * bits.astype(np.float64)) / math.sqrt(order)
        return Directions(self.values, coordinates, rows, signs)

    def to_bytes(self) -> bytes:
        """The file that keeps them."""
        return (json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n").encode()

    @property
    def commitment(self) -> str:
        """SHA-256, hex, of that file; the secret in it is the salt."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def _stream(self, what: str, octets: int) -> bytes:
        return hashlib.shake_256(f"{SCHEMA} {what} {self.secret}".encode()).digest(octets)


@dataclass(frozen=True, eq=False)
class Directions:
    """Orthonormal directions of one round, in the space of updates before any rotation.

    Attributes:
        values: d of an update.
        coordinates: (k,), of an update, that they live on.
        rows: (count,), of the Hadamard matrix of order k.
        signs: (k,), ±1/√k.
    """

    values: int
    coordinates: NDArray[np.int64] = field(repr=False)
    rows: NDArray[np.int64] = field(repr=False)
    signs: NDArray[np.float64] = field(repr=False)

    def vectors(self, which: NDArray[np.int64]) -> NDArray[np.float64]:
        """The directions of the canaries `which`, (m,): float64 (m, d), rows of length 1."""
        units = np.zeros((len(which), len(self.signs)))
        units[np.arange(len(which)), self.rows[which]] = 1.0
        found = np.zeros((len(which), self.values))
        found[:, self.coordinates] = hadamard_transform(units, transpose=True) * self.signs
        return found

    def along(self, update: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far a vector, float64 (d,), goes along each: (count,)."""
        mixed: NDArray[np.float64] = hadamard_transform(update[self.coordinates] * self.signs)[self.rows]
        return mixed


def largest_order(values: int) -> int:
    """The largest order of a Hadamard matrix at hand that is at most `values` >= 1."""
    return max(m << (values // m).bit_length() - 1 for m in SMALLEST if m <= values)


def beside(folder: Path) -> Path:
    """Where the canaries of the run in `folder` are kept: a file beside it, which does not go where the folder goes."""
    whole = folder.resolve()
    return whole.with_name(f"{whole.name}.canaries.json")


def read_canaries(path: Path) -> Canaries:
    """The canaries in a file. Raises `flora_secure.errors.RunFolderError` for what cannot be read, or is none."""
    try:
        table: Any = json_of(read_text(path, _MOST))
        if not isinstance(table, dict) or table.pop("schema", None) != SCHEMA:
            raise PlainError(f"its schema is not {SCHEMA}")
        found = from_plain(Canaries, table)
        if not (1 <= found.count <= found.values <= _LARGEST and 0 <= found.first <= _LARGEST):
            raise PlainError("its numbers are none of a run")
        return found
    except (ForeignError, InputError) as error:
        raise RunFolderError(f"{path} holds no canaries: {error}") from None
