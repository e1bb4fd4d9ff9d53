"""The durable count of a server that sums: which rounds were announced, and what became of each.

    {"schema": …, "session": …, "seed": …, "terms": {…}}      once
    {"round": 3, "event": "announced"}                        before anybody is asked for an upload
    {"round": 3, "event": "ended", "survivors": [0, 1], …}    when it is known how it ended

A round that was announced and never ended was in flight when the process was killed. It counts as released with the
fewest survivors. A last line that was cut off goes: of an announcement nothing had been sent, and a round whose end is
cut off counts as in flight.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flora_secure.boundary.foreign import json_of, read_bytes, text_of
from flora_secure.errors import ForeignError, PlainError, RunFolderError
from flora_secure.plain import from_plain
from flora_secure.records.durable import PRIVATE, PRIVATE_FOLDER, append, replace_file, sync_folder
from flora_secure.records.lock import lock
from flora_secure.rounds.invitation import SESSION

SCHEMA = "flora-secure/sums/1"
NAME = "sums.jsonl"
_MOST = 1 << 28  # bytes; a line has some hundred
_ANNOUNCED, _ENDED = "announced", "ended"


@dataclass(frozen=True, kw_only=True)
class SumRecord:
    """How one round ended: a line of the log.

    Attributes:
        round: its number, from 1.
        survivors: clients whose uploads are in the sum, or who had been told that they are; empty where nothing was
            released, or it is not known.
        summed: whether the server has the sum.
        exposed: whether uploads were sent, and no sum was released.
        lost: whether it was in flight when the server was killed.
        aborted: why there is no sum; None where there is one.
        upload, download: bytes of all messages of the round, over all clients, as far as they are known.
    """

    round: int
    survivors: list[int]
    summed: bool
    exposed: bool
    lost: bool
    aborted: str | None
    upload: int
    download: int

    @property
    def released(self) -> bool:
        """Whether the round counts as released."""
        return self.lost or bool(self.survivors)


@dataclass(frozen=True, kw_only=True)
class _Head:
    schema: str
    session: str
    seed: int
    terms: dict[str, str]


class SumLog:
    """The log of one budget, in a folder that one process at a time may hold.

    Attributes:
        session: 16 bytes, by which clients know the budget's rounds.
        seed: of the public rotation.
        records: the rounds so far, in order.
    """

    def __init__(self, folder: Path, terms: Mapping[str, str]) -> None:
        """Begin a log in `folder`, or go on with the one that is there, which must have been begun on the same `terms`.

        Raises RunFolderError where another process holds the folder, the log there is of other terms, or damaged; and
        OSError where it cannot be written.
        """
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._path = folder / NAME
        try:
            self._handle: int | None = lock(folder / "lock")
        except BlockingIOError:
            raise RunFolderError(f"{folder} is in use by another process: one server counts in it") from None
        self.records: list[SumRecord] = []
        self._open: int | None = None
        try:
            self._read(terms) if os.path.lexists(self._path) else self._begin(terms)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"SumLog({self._path}, rounds={len(self.records)})"

    @property
    def in_flight(self) -> int | None:
        """The number of the round that was announced and has not ended; None where there is none."""
        return self._open

    def announce(self, number: int) -> None:
        """Round `number` is about to begin; it is on disk when this returns. Raises OSError."""
        self._append({"round": number, "event": _ANNOUNCED})
        self._open = number

    def end(self, record: SumRecord) -> None:
        """Write down how the announced round ended. Raises OSError."""
        self._append({"event": _ENDED, **asdict(record)})
        self.records.append(record)
        self._open = None

    def close(self) -> None:
        """Let go of the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _append(self, line: dict[str, Any]) -> None:
        append(self._path, json.dumps(line, allow_nan=False).encode() + b"\n", mode=PRIVATE)

    def _begin(self, terms: Mapping[str, str]) -> None:
        self.session, self.seed = os.urandom(SESSION), int.from_bytes(os.urandom(7), "big")
        head = _Head(schema=SCHEMA, session=self.session.hex(), seed=self.seed, terms=dict(terms))
        replace_file(self._path, json.dumps(asdict(head)).encode() + b"\n", mode=PRIVATE)
        sync_folder(self._path.parent)

    def _read(self, terms: Mapping[str, str]) -> None:
        try:
            raw = read_bytes(self._path, _MOST)
            *lines, rest = raw.split(b"\n")
            if rest:
                replace_file(self._path, b"".join(line + b"\n" for line in lines), mode=PRIVATE)
            head = from_plain(_Head, json_of(text_of(lines[0] if lines else b"")))
            if head.schema != SCHEMA:
                raise PlainError(f"its schema is not {SCHEMA}")
            self.session, self.seed = bytes.fromhex(head.session), head.seed
            for line in lines[1:]:
                self._take(json_of(text_of(line)))
        except (ForeignError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunFolderError(f"{self._path} is not what a server wrote: {error}; bring back a copy") from None
        for name in sorted(terms.keys() | head.terms.keys()):
            before, now = head.terms.get(name, "nothing"), terms.get(name, "nothing")
            if before != now:
                raise RunFolderError(
                    f"the budget in {self._path.parent} was begun with {name} {before:.60}, and this is {now:.60}: go "
                    "on as it began, or choose a new folder, with a budget of its own"
                )

    def _take(self, table: dict[str, Any]) -> None:
        event, number = table.pop("event"), table["round"]
        expected = len(self.records) + 1
        if event == _ANNOUNCED and number == expected and self._open is None:
            self._open = number
        elif event == _ENDED and number == expected and self._open == number:
            self.records.append(from_plain(SumRecord, table))
            self._open = None
        else:
            raise PlainError(f"round {number!r} is out of order")

    def lose(self, upload: int = 0, download: int = 0) -> SumRecord:
        """Count the round in flight as released, and give its record. Raises RunFolderError where there is none."""
        if self._open is None:
            raise RunFolderError(f"no round of {self._path} is in flight")
        record = replace(_LOST, round=self._open, upload=upload, download=download)
        self.end(record)
        return record


_LOST = SumRecord(
    round=1,
    survivors=[],
    summed=False,
    exposed=False,
    lost=True,
    aborted="the server was stopped while it was in flight",
    upload=0,
    download=0,
)
