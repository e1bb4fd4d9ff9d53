"""`state/` in a run folder: what the next round depends on, so that a run that was killed can go on.

A file holds the state after one round and the SHA-256 of that round's line in `rounds.jsonl` (of `config.toml`
before the first). It is on disk before the line is, and the one before it goes after that: the last whole line always
has its state. `announcement.json` is on disk before a client uploads anything. docs/run-folder.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flora_secure.boundary.foreign import json_of, read_bytes, read_text
from flora_secure.errors import CheckpointError, ForeignError, PlainError, first_line
from flora_secure.plain import from_plain
from flora_secure.planning.names import competitors
from flora_secure.records.durable import PRIVATE, remove_file, replace_file
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Choices
from flora_secure.rounds.optimiser import ServerState

SCHEMA = "flora-secure/state/3"
_CHOICES = "choices.json"
_DIGEST = 32
_MOST_STATE = 1 << 31  # bytes; two float64 for each trained value
_ARRAYS = tuple(field.name for field in dataclasses.fields(ServerState))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state between two rounds.

    Attributes:
        round: the last one that is over, 0 before the first.
        server: the trained values and the optimiser's momentum.
        clip_norm: of the next round.
        last_round: client → the last round that it took part in.
        session: of the run, 16 bytes as hexadecimal; clients take each round of it once.
        invitation_bytes: that were sent so far, all clients together.
        model_hash, data_hash: SHA-256, hex, of what the run trains and trains on.
        compare: the competitors that were asked for, of `flora_secure.planning.names.COMPETITORS`.
    """

    round: int
    server: ServerState
    clip_norm: float
    last_round: dict[int, int]
    session: str
    invitation_bytes: int
    model_hash: str
    data_hash: str
    compare: tuple[str, ...]

    def to_bytes(self, line_hash: str) -> bytes:
        """A NumPy .npz file and its SHA-256. `line_hash`: of the round's line."""
        facts = {
            "schema": SCHEMA,
            "round": self.round,
            "line_hash": line_hash,
            "clip_norm": self.clip_norm,
            "session": self.session,
            "invitation_bytes": self.invitation_bytes,
            "model_hash": self.model_hash,
            "data_hash": self.data_hash,
            "compare": self.compare,
        }
        stream = io.BytesIO()
        np.savez(
            stream,
            facts=np.array(json.dumps(facts, allow_nan=False)),
            **{name: getattr(self.server, name) for name in _ARRAYS},
            last_round=np.array(sorted(self.last_round.items()), np.int64).reshape(-1, 2),
        )
        raw = stream.getvalue()
        return raw + hashlib.sha256(raw).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Checkpoint, str]:
        """The inverse of `to_bytes`; nothing is unpickled. Raises `CheckpointError` for other bytes."""
        raw, digest = data[:-_DIGEST], data[-_DIGEST:]
        if hashlib.sha256(raw).digest() != digest:
            raise CheckpointError("is damaged: its SHA-256 is not that of its bytes")
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                if any(member.file_size != member.compress_size for member in archive.infolist()):
                    raise ValueError("it is packed, which a state is not")  # a few bytes may unpack to all memory
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                facts = json_of(str(arrays["facts"]))
                if facts.pop("schema") != SCHEMA:
                    raise ValueError(f"its schema is not {SCHEMA}")
                told = from_plain(_Facts, facts)
                values, last = {name: arrays[name] for name in _ARRAYS}, arrays["last_round"]
            if any(array.dtype != np.float64 for array in values.values()) or last.dtype != np.int64:
                raise ValueError("its arrays are not float64")
            shapes = {array.shape for array in values.values()}
            if len(shapes) > 1 or len(min(shapes)) != 1 or last.ndim != 2:
                raise ValueError(f"its arrays are of shapes {sorted(shapes)}, {last.shape}")
            pairs = dict(zip(last[:, 0].tolist(), last[:, 1].tolist(), strict=True))
            if not all(np.isfinite(array).all() for array in values.values()):
                raise ValueError("its arrays hold values that are no finite numbers")
            table = dataclasses.asdict(told)
            line_hash, table["compare"] = table.pop("line_hash"), competitors(told.compare)
            return cls(server=ServerState(**values), last_round=pairs, **table), line_hash
        except Exception as error:  # zip, numpy and JSON each raise their own kinds for bytes that are not theirs
            raise CheckpointError(f"is no state of a run: {first_line(error)}") from None


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What stands in a state beside its arrays."""

    round: int
    line_hash: str
    clip_norm: float
    session: str
    invitation_bytes: int
    model_hash: str
    data_hash: str
    compare: list[str]

    def __post_init__(self) -> None:
        if not (self.round >= 0 <= self.invitation_bytes and 0 < self.clip_norm < math.inf):
            raise PlainError("a number that no state has")
        if re.fullmatch("[0-9a-f]{32}", self.session) is None:
            raise PlainError("session must be 16 bytes in hexadecimal")


def write(folder: Path, checkpoint: Checkpoint, line_hash: str) -> None:
    """On disk when this returns; the states of other rounds stay. Raises `OSError`."""
    replace_file(_path(folder, checkpoint.round), checkpoint.to_bytes(line_hash), mode=PRIVATE)


def read(folder: Path, number: int, line_hash: str) -> Checkpoint:
    """The state after round `number`, whose line has this hash. Raises `CheckpointError`, also for another
    line's state."""
    path = _path(folder, number)
    try:
        checkpoint, told = Checkpoint.from_bytes(read_bytes(path, _MOST_STATE))
    except ForeignError as error:
        raise CheckpointError(f"{path} cannot be read, so the run cannot go on: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    if told != line_hash or checkpoint.round != number:
        what = f"line {number} of rounds.jsonl" if number else "this config.toml"
        raise CheckpointError(f"{path} does not belong to {what}, whose SHA-256 is {line_hash:.12}…, not {told:.12}…")
    return checkpoint


def write_choices(folder: Path, choices: Choices) -> None:
    """What public data decided before the first round, for the report; on disk when this returns. Raises `OSError`."""
    table = dataclasses.asdict(choices)
    replace_file(folder / _CHOICES, json.dumps(table, allow_nan=False).encode(), mode=PRIVATE)


def read_choices(folder: Path) -> Choices | None:
    """The inverse of `write_choices`; None where nothing was written. Raises `CheckpointError` for another file."""
    path = folder / _CHOICES
    if not os.path.lexists(path):
        return None
    try:
        return from_plain(Choices, json_of(read_text(path)))
    except ForeignError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    except PlainError as error:
        raise CheckpointError(f"{path} is not what a run wrote: {error}") from None


def keep_only(folder: Path, number: int) -> None:
    """Remove the states of all rounds but `number`. Raises `OSError`."""
    for path in folder.glob("round-*.npz"):
        if path != _path(folder, number):
            remove_file(path)


def announce(folder: Path, record: RoundRecord, previous: str) -> None:
    """Write down, before anybody uploads, what a round may release at the worst; `previous`: the last line's hash.
    Raises `OSError`."""
    table = {**record.to_dict(), "previous": previous}
    replace_file(folder / "announcement.json", json.dumps(table, allow_nan=False).encode(), mode=PRIVATE)


def announced(folder: Path, done: int, previous: str) -> RoundRecord | None:
    """The announced round after round `done`, if it began. Raises `CheckpointError` for one that cannot follow
    it: then the log lacks lines."""
    path = folder / "announcement.json"
    if not os.path.lexists(path):
        return None
    try:
        table = json_of(read_text(path))
        before = table.pop("previous", None) if isinstance(table, dict) else None
        record = RoundRecord.from_dict(table if isinstance(table, dict) else {})
    except ForeignError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    except PlainError as error:
        raise CheckpointError(f"{path} is not what a run wrote: {error}") from None
    if record.round <= done:
        return None  # over: its line is there
    if record.round != done + 1 or before != previous:
        raise CheckpointError(
            f"{path} announces round {record.round} after another line than the last of rounds.jsonl, round {done}: "
            "lines were cut off or edited"
        )
    return record


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:05d}.npz"
