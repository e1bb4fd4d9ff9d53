"""A run and its folder together: every round is announced, run and written down, from the first or after a crash."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flora_secure.engine.simulation import Simulation
from flora_secure.records.record import PARTS, RoundRecord
from flora_secure.records.run_folder import Interrupted, RunFolder


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """A simulation whose rounds go to a folder.

    `line`: how it goes on, for a person; `earlier_seconds`: what the rounds before took.
    """

    simulation: Simulation
    folder: RunFolder
    compare_no_noise: bool
    line: str = ""
    earlier_seconds: float = 0.0

    def rounds(self) -> Iterator[RoundRecord]:
        """Run the rounds that are left; each is on disk, with the state after it, before it is yielded."""
        for record in self.simulation.rounds(self.folder.announce):
            self._write(record)
            yield record

    def _write(self, record: RoundRecord) -> None:
        self.folder.append_round(record, self.simulation.server.checkpoint(compare_no_noise=self.compare_no_noise))


def begin(simulation: Simulation, path: Path, compare_no_noise: bool = False) -> RecordedRun:
    """A new run in the new folder `path`. Raises `flora_secure.errors.ConfigError` if that cannot be made."""
    start = simulation.server.checkpoint(compare_no_noise=compare_no_noise)
    return RecordedRun(simulation, RunFolder(path, simulation.config, start), compare_no_noise)


def go_on(simulation: Simulation, interrupted: Interrupted) -> RecordedRun:
    """The same run after its last whole line, in a fresh `simulation` of its configuration.

    The round in flight when it was killed may have been released. Where its noise follows from the seed it runs again
    and releases the same sum, which costs nothing more. Noise from the operating system would differ: then the round is
    written down as lost, paid for, and the next one follows. Raises
    `flora_secure.errors.CheckpointError` if model or data are not those that the run began with.
    """
    folder, records, checkpoint = interrupted.folder, interrupted.records, interrupted.checkpoint
    simulation.server.restore(records, checkpoint)
    seconds = math.fsum(record.seconds.get(part, 0.0) for record in records for part in PARTS)
    line = f"going on after round {len(records)} of {simulation.config.training.rounds}"
    lost = None if interrupted.begun is None or simulation.server.repeats else simulation.server.lose(interrupted.begun)
    if lost is not None:
        line += f"; round {lost.round} was in flight and may have been released: it is lost and counts in the budget"
    run = RecordedRun(simulation, folder, checkpoint.compare_no_noise, line, seconds)
    if lost is not None:
        run._write(lost)
    return run
