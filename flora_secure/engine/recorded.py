"""A run and its folder together: every round is announced, run and written down, from the first or after a crash."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flora_secure.records.evidence.sums import bytes_of_adapter
from flora_secure.records.receipts.head import Signer
from flora_secure.records.receipts.receipt import Receipt, signed
from flora_secure.records.record import PARTS, RoundRecord
from flora_secure.records.report import Choices, Report
from flora_secure.records.run_folder import Interrupted, RunFolder, report_bytes
from flora_secure.records.transcript.writing import Transcript
from flora_secure.server.server import Announce, Server


class Running(Protocol):
    """What runs the rounds of a server: a simulation, or the coordinator of a real federation."""

    @property
    def server(self) -> Server:
        """Whose rounds they are."""
        ...

    @property
    def repeats(self) -> bool:
        """Whether a round that is run again releases the same sum, or none that a budget protects."""
        ...

    def rounds(self, announce: Announce | None = None, transcript: Transcript | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends. `announce`: see `Server.invite`; `transcript`: where
        their messages are kept, if they are."""
        ...


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """A run whose rounds go to a folder.

    `line`: how it goes on, for a person; `earlier_seconds`: what the rounds before took.
    """

    running: Running
    folder: RunFolder
    compare: tuple[str, ...]
    line: str = ""
    earlier_seconds: float = 0.0

    def rounds(self) -> Iterator[RoundRecord]:
        """Run the rounds that are left; each is on disk, with the state after it, before it is yielded."""
        transcript = self.folder.transcript(self.running.server.config)
        for record in self.running.rounds(self.folder.announce, transcript):
            self._write(record)
            yield record

    def close(self, report: Report, adapter_hash: str, signer: Signer) -> Receipt:
        """Sign the run, and then write its report: after a crash in between it goes on, and does both again."""
        folder = self.folder
        session = self.running.server.session
        receipt = signed(folder.path, report_bytes(report), adapter_hash, session, signer)
        folder.write_receipt(receipt.to_json())
        folder.write_report(report)
        return receipt

    def _write(self, record: RoundRecord) -> None:
        server = self.running.server
        self.folder.append_round(record, server.checkpoint(compare=self.compare), server.kept_sum)


def begin(running: Running, path: Path, compare: tuple[str, ...] = (), choices: Choices | None = None) -> RecordedRun:
    """A new run in the new folder `path`, to be compared with those competitors, which keeps the task's `choices` for
    whoever goes on with it. Raises `flora_secure.errors.ConfigError` if that cannot be made."""
    server = running.server
    first = bytes_of_adapter(server.broadcast) if server.keeps_sums else None
    folder = RunFolder(path, server.config, server.checkpoint(compare=compare), choices, first)
    return RecordedRun(running, folder, compare)


def go_on(running: Running, interrupted: Interrupted) -> RecordedRun:
    """The same run after its last whole line, by a fresh `running` of its configuration.

    The round in flight when it was killed may have been released. Where its noise follows from the seed it runs again
    and releases the same sum, which costs nothing more. Noise from the operating system would differ: then the round is
    written down as lost, paid for, and the next one follows. Raises
    `flora_secure.errors.CheckpointError` if model or data are not those that the run began with.
    """
    folder, records, checkpoint = interrupted.folder, interrupted.records, interrupted.checkpoint
    running.server.restore(records, checkpoint)
    seconds = math.fsum(record.seconds.get(part, 0.0) for record in records for part in PARTS)
    line = f"going on after round {len(records)} of {running.server.config.training.rounds}"
    lost = None if interrupted.begun is None or running.repeats else running.server.lose(interrupted.begun)
    if lost is not None:
        line += f"; round {lost.round} was in flight and may have been released: it is lost and counts in the budget"
    run = RecordedRun(running, folder, checkpoint.compare, line, seconds)
    if lost is not None:
        run._write(lost)
    return run
