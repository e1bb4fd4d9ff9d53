"""A whole run in its folder: data and model, every round, adapter and report. Imports torch when it runs.

What a program or a command asks for; a loop of one's own takes the parts: `flora_secure.engine.task`,
`flora_secure.engine.simulation`, `flora_secure.engine.recorded`.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset
from flora_secure.data.federation import load_federation
from flora_secure.data.notes import table_of
from flora_secure.engine.deployed.keys.signing import new_signer
from flora_secure.errors import InputError, RunFolderError, RunInterrupted, require
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.masking import settled
from flora_secure.planning.names import competitors
from flora_secure.records.reading import read_run
from flora_secure.records.receipts.head import Signer
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Report
from flora_secure.records.report_table import html_table, rows
from flora_secure.records.run_folder import Interrupted, claimed, reopen

if TYPE_CHECKING:
    from flora_secure.engine.ended import Engine, Simulated

Progress = Callable[[int, int, RoundRecord], None]
"""Told of every finished round: its number from 1, how many there are, and its record."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run that has ended. A notebook shows it as a table.

    Attributes:
        report: accuracy, privacy budget and communication, as in `report.json`.
        records: one for each round, as in `rounds.jsonl`.
        folder: where all of it is.
    """

    report: Report
    records: tuple[RoundRecord, ...]
    folder: Path

    @property
    def adapter(self) -> Path:
        """The folder of the trained adapter, in peft's format."""
        return self.folder / "adapter"

    def __repr__(self) -> str:
        spent = self.report.privacy.epsilon
        budget = "no noise" if spent is None else f"ε {spent:.3g}"
        return f"<Run {str(self.folder)!r}: accuracy {self.report.accuracy.final:.2%}, {budget}>"

    def _repr_html_(self) -> str:
        return html_table(f"Run {self.folder}", rows(self.report))


@dataclass(frozen=True)
class Surroundings:
    """What a run is given beside its description: `passed` data, a `cache` of features, whom to tell of its
    `progress` and, in lines for people, of what it found (`log`), and the `engine` that its clients are on, imported
    when the data have been read; None for this process. `signer`: what signs the receipt; None for a key of this run
    alone."""

    passed: Dataset | None = None
    cache: ArrayCache | None = None
    progress: Progress | None = None
    log: Callable[[str], None] | None = None
    engine: Callable[[], Engine] | None = None
    signer: Signer | None = None

    def say(self, line: str) -> None:
        """Tell the log, if anybody keeps one."""
        if self.log is not None:
            self.log(line)


def begin_run(config: RunConfig, out: Path | None, around: Surroundings, *, compare: Sequence[str] = ()) -> Run:
    """Train as `config` says, in the new folder `out`, or in one of `runs/`. `compare`: the competitors that the report
    is to have beside public labels alone, of `flora_secure.planning.names.COMPETITORS`.

    Raises an `flora_secure.errors.InputError` for bad input, whose `kept` says what is on disk then;
    `flora_secure.errors.RunInterrupted` at Ctrl-C; and
    `flora_secure.privacy.cross_check.CrossCheckError` where two accountants disagree: rounds and adapter are
    kept, and no report is written.
    """
    asked = competitors(compare)
    require(
        "no-noise" not in asked or config.privacy.epsilon < math.inf,
        "`compare` no-noise is a run without noise, which `privacy.epsilon` inf is by itself: leave it out",
    )
    _require_engine(config, around)
    with claimed(out) as folder:
        return _Course(config, folder, around).finish(asked, None)


def resume_run(folder: Path, around: Surroundings) -> Run:
    """Go on with the run in `folder` after its last whole round, or read it where it is complete. Raises as
    `begin_run`, and `flora_secure.errors.RunFolderError` for a folder that holds no run."""
    if not os.path.isdir(folder):
        raise RunFolderError(f"`resume` {folder}: there is no such run folder")
    if os.path.lexists(folder / "report.json"):
        found = read_run(folder)
        assert found.report is not None
        around.say(f"the run in {folder} is complete, nothing is left to do")
        return Run(found.report, tuple(found.records), folder)
    interrupted = reopen(folder)
    _require_engine(interrupted.config, around)
    return _Course(interrupted.config, folder, around).finish(interrupted.checkpoint.compare, interrupted)


def _require_engine(config: RunConfig, around: Surroundings) -> None:
    require(
        not config.evidence.canaries or around.engine is None,
        f"`evidence.canaries` {config.evidence.canaries} are of the engine in this process: leave out engine flower",
    )


def _import_beside(*modules: str) -> None:
    """Import `modules`, in their order, beside what this thread does. Who needs one waits, or is told what is wrong."""

    def load() -> None:
        with suppress(ImportError):
            for module in modules:
                importlib.import_module(module)

    Thread(target=load, daemon=True).start()


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """While torch and its like are imported: hundreds of thousands of objects that stay, looked through again and
    again, are a third of the time. Afterwards they are not looked at any more."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Course:
    """How far a run has come, for what is said where it ends early."""

    def __init__(self, config: RunConfig, folder: Path, around: Surroundings) -> None:
        self.config, self.folder, self.around = config, folder, around
        self.started = self._last = time.perf_counter()
        self._seconds = dict.fromkeys(("loading", "features", "rounds", "comparison", "report"), 0.0)
        self.begun, self.done = False, 0

    def finish(self, compare: tuple[str, ...], interrupted: Interrupted | None) -> Run:
        if interrupted is not None:
            self.begun, self.done = True, len(interrupted.records)
        try:
            return self._finish(compare, interrupted)
        except InputError as error:
            if self.done:
                error.kept = self._kept
            raise
        except KeyboardInterrupt:
            where = f"in round {self.done + 1}"
            if self.done == self.config.training.rounds:
                where = "after the last round"
            kept = self._kept if self.done else "no round was complete"
            raise RunInterrupted(f"interrupted {where}; {kept}", self.folder, resumable=self.begun) from None

    def _over(self, part: str) -> None:
        """The time since the last such call was `part`'s."""
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def _timed(self, report: Report, earlier: float) -> Report:
        """The report with all seconds of the run in one part or another; `earlier` are those of the rounds before it
        was resumed."""
        total = earlier + self._last - self.started
        parts = {name: self._seconds[name] for name in ("loading", "features", "comparison", "report")}
        told = dataclasses.replace(report.timing.seconds, total=total, other=0.0, **parts)
        known = sum(dataclasses.asdict(told).values()) - total
        told = dataclasses.replace(told, other=max(0.0, total - known))
        return dataclasses.replace(report, timing=dataclasses.replace(report.timing, seconds=told))

    @property
    def _kept(self) -> str:
        return f"rounds 1 to {self.done} are kept in {self.folder}"

    def _finish(self, compare: tuple[str, ...], interrupted: Interrupted | None) -> Run:
        config, around = self.config, self.around
        if config.training.device != "cpu":  # bad devices are told at once; every machine has the other one
            from flora_secure.model.devices import device_named

            device_named(config.training.device)
        around.say("loading model and data …")
        # bad data is told at once; unpacking it leaves the interpreter time for torch
        with _collector_at_rest():
            _import_beside("torch", "open_clip")
            federation = load_federation(self.config.data, self.config.seed, around.cache, around.passed)
            config = self.config = settled(federation.settled(self.config))
            for line in federation.lines:
                around.say(line)

            from flora_secure.engine.competitors import competitors_of, require_possible
            from flora_secure.engine.evidence.canaries import coins_of, keep
            from flora_secure.engine.recorded import begin, go_on
            from flora_secure.engine.simulation import Simulation, without_noise
            from flora_secure.engine.summary import summarise
            from flora_secure.engine.task import prepare
            from flora_secure.privacy.cross_check import PRV_MODULE, CrossCheckError

        require_possible(compare, config, federation)
        self._over("loading")
        around.say("embedding images …")
        task = prepare(config, federation, around.cache)
        if interrupted is not None:
            task = task.chosen(interrupted.choices)
        config = self.config = task.settled(config)
        self._over("features")
        for cut in task.federation.dataset.skipped[len(federation.dataset.skipped) :]:
            around.say(cut.line)
        for line in task.warnings[len(federation.dataset.warnings) :]:
            around.say(f"warning: {line}")
        canaries = coins_of(config, self.folder, task.trained.upload_size, new=interrupted is None)
        if canaries is not None:
            if interrupted is None and config.evidence.canary_commitment is not None:
                around.say("the configuration is of a run with coins of its own; this one draws others")
            config = self.config = override(config, {"evidence.canary_commitment": canaries.commitment})
        if around.engine is None:
            simulation: Simulated = Simulation(config, task, canaries)
        else:
            simulation = around.engine()(config, task)
        if canaries is not None and interrupted is None:
            around.say(f"the canaries' coins are in {keep(canaries, self.folder)}, for auditors and for nobody else")
        if interrupted is None:
            run = begin(simulation, self.folder, compare, task.made.choices)
        else:
            run = go_on(simulation, interrupted)
            around.say(run.line)
        self.begun, self.done = True, len(simulation.records)
        if skipped := task.federation.dataset.skipped:
            run.folder.write_local("skipped.tsv", table_of(skipped))
        for line in task.made.choices.lines:
            around.say(line)
        around.say(simulation.headline)
        around.say(f"round {self.done + 1} of {config.training.rounds} …")
        if simulation.server.plan.noisy:
            _import_beside(PRV_MODULE, "peft")  # which report and adapter need; rounds wait for their clients meanwhile
        for record in run.rounds():
            self.done = record.round
            if around.progress is not None:
                around.progress(record.round, config.training.rounds, record)
        self._over("rounds")
        # the adapter first: whatever goes wrong from here on, what was trained is kept
        around.say("writing the adapter …")
        adapter_hash = run.folder.write_adapter(simulation.save_adapter)
        self._over("report")
        around.say(f"competitors: {', '.join(dict.fromkeys(('public', *compare)))} …")
        no_noise = without_noise(config, task) if "no-noise" in compare else None
        beside = competitors_of(simulation, compare, no_noise)
        self._over("comparison")
        around.say("asking the accountants, writing the report …")
        try:
            report = summarise(
                simulation,
                total_seconds=0.0,  # which ends with the report
                competitors=beside,
                rounds_hash=run.folder.last_hash,
                adapter_hash=adapter_hash,
            )
        except CrossCheckError as error:
            raise CrossCheckError(
                f"{error}; rounds and adapter are kept in {self.folder}, no report was written"
            ) from None
        self._over("report")
        report = self._timed(report, run.earlier_seconds)
        run.close(report, adapter_hash, around.signer or new_signer())
        for line in report.warnings[len(task.warnings) :]:
            around.say(f"warning: {line}")
        return Run(report, tuple(simulation.records), self.folder)
