"""A real federation's run in its folder, at the server: it begins or goes on, every round is written down, and the
report and the adapter are those of a simulation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from flora_secure.data.cache import ArrayCache
from flora_secure.data.dataset import Dataset
from flora_secure.data.federation import Federation
from flora_secure.data.notes import table_of
from flora_secure.engine.deployed.coordinator import Coordinator
from flora_secure.engine.deployed.deployable import deployable
from flora_secure.engine.deployed.masked_rounds import Patience, name_of
from flora_secure.engine.deployed.training import terms_of
from flora_secure.engine.deployed.transport import Transport
from flora_secure.engine.ended import Ended
from flora_secure.engine.recorded import RecordedRun, begin, go_on
from flora_secure.engine.run import Progress, Run
from flora_secure.engine.summary import summarise
from flora_secure.engine.task import prepare
from flora_secure.errors import RunFolderError, RunInterrupted, require
from flora_secure.planning.config import RunConfig, override
from flora_secure.privacy.cross_check import CrossCheckError
from flora_secure.records.reading import read_run
from flora_secure.records.receipts.head import Signer
from flora_secure.records.receipts.receipt import Receipt, client_receipts
from flora_secure.records.run_folder import Interrupted, RunFolder, claimed, remove_unborn, reopen
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.server.server import Server


@dataclass(frozen=True, eq=False)
class Host:
    """What a server runs a federation with.

    Attributes:
        config: of the federation; see `deployable`.
        data: the server's: test images, and the public ones.
        enrolment: who takes part.
        transport: the way to them.
        patience: how long they are waited for.
        cache: of features, where there is one.
        progress: told of every round.
        log: told, in lines for people, what happens.
        signer: the server's key, for receipts.
    """

    config: RunConfig
    data: Dataset
    enrolment: Enrolment
    transport: Transport = field(repr=False)
    patience: Patience
    cache: ArrayCache | None
    progress: Progress | None
    log: Callable[[str], None] = field(repr=False)
    signer: Signer

    def run(self, out: Path) -> Run:
        """Run the federation in the folder `out`: from the beginning where it is not there, else on from its last whole
        round. The round in flight when the server was killed is counted as lost and charged.

        Raises an `errors.InputError` for bad input, `errors.RunInterrupted` at Ctrl-C, and
        `privacy.cross_check.CrossCheckError` where two accountants disagree.
        """
        if os.path.lexists(out / "report.json"):
            found = read_run(out)
            assert found.report is not None
            self.log(f"the run in {out} is complete, nothing is left to do")
            return Run(found.report, tuple(found.records), out)
        config = deployable(self.config, self.enrolment.clients)
        remove_unborn(out)
        with ExitStack() as stack:
            interrupted = None
            if os.path.lexists(out / "config.toml"):
                interrupted = reopen(out)
                if config.training.warm_start is None:  # as the server decided it when the run began
                    config = override(config, {"training.warm_start": interrupted.config.training.warm_start})
                if interrupted.config != config:
                    raise RunFolderError(
                        f"{out} holds a run of another configuration: choose a new folder, or go on with its own "
                        f"({out / 'config.toml'})"
                    )
            else:
                stack.enter_context(claimed(out))
            return self._run(config, out, interrupted)

    def _run(self, config: RunConfig, out: Path, interrupted: Interrupted | None) -> Run:
        started = time.perf_counter()
        for line in self.data.warnings:
            self.log(f"warning: {line}")
        task = prepare(config, Federation(self.data, [], "natural"), self.cache)
        if interrupted is not None:
            task = task.chosen(interrupted.choices)
        config = task.settled(config)
        for line in task.made.choices.lines:
            self.log(line)
        server = Server(config, task.for_server(config.data.total_images or 0), self.enrolment)
        terms = terms_of(config, self.data, task.made, self.enrolment)
        coordinator = Coordinator(server, terms, self.transport, self.patience, self.log)
        over = interrupted is not None and len(interrupted.records) == config.training.rounds
        # where only the report is left, no site is needed for it
        fitting = coordinator.check() if not over else range(server.plan.survivors_minimum)
        require(
            len(fitting) >= server.plan.survivors_minimum,
            f"{len(fitting)} of {self.enrolment.clients} sites fit and answer, and the noise needs "
            f"{server.plan.survivors_minimum}: mend what the lines above say, or wait for the others",
        )
        choices = task.made.choices
        recorded = begin(coordinator, out, choices=choices) if interrupted is None else go_on(coordinator, interrupted)
        if recorded.line:
            self.log(recorded.line)
        if task.federation.dataset.skipped:
            recorded.folder.write_local("skipped.tsv", table_of(task.federation.dataset.skipped))
        try:
            for record in recorded.rounds():
                if self.progress is not None:
                    self.progress(record.round, config.training.rounds, record)
            return self._finish(Ended(config, task, server), recorded, coordinator, out, started)
        except KeyboardInterrupt:
            done = len(server.records)
            raise RunInterrupted(
                f"interrupted; rounds 1 to {done} are kept in {out}" if done else "interrupted before a round was over",
                out,
                resumable=True,
            ) from None

    def _finish(self, ended: Ended, recorded: RecordedRun, coordinator: Coordinator, out: Path, started: float) -> Run:
        folder = recorded.folder
        adapter_hash = folder.write_adapter(ended.save_adapter)
        try:
            report = summarise(
                ended,
                total_seconds=recorded.earlier_seconds + time.perf_counter() - started,
                rounds_hash=folder.last_hash,
                adapter_hash=adapter_hash,
            )
        except CrossCheckError as error:
            raise CrossCheckError(f"{error}; rounds and adapter are kept in {out}, no report was written") from None
        receipt = recorded.close(report, adapter_hash, self.signer)  # before the sites, of which one may take its time
        for line in report.warnings[len(self.data.warnings) :]:
            self.log(f"warning: {line}")
        kept = coordinator.farewell()
        self.log(f"the adapter is in {out / 'adapter'}, and at {len(kept)} sites")
        if missing := sorted(set(range(self.enrolment.clients)) - self.enrolment.revoked - set(kept)):
            self.log(f"not sent to {', '.join(map(name_of, missing))}: give them {out / 'adapter'}")
        self._hand_out(receipt, ended, coordinator, folder)
        return Run(report, tuple(ended.records), out)

    def _hand_out(self, receipt: Receipt, ended: Ended, coordinator: Coordinator, folder: RunFolder) -> None:
        """Each site its receipt; those of sites that do not take theirs are written down, for other ways."""
        everybody = range(self.enrolment.clients)
        receipts = client_receipts(receipt, [record.participants for record in ended.records], everybody)
        right = coordinator.hand_out({n: text for n, text in receipts.items() if n not in self.enrolment.revoked})
        self.log(f"{len(right)} sites have their receipts, signed by {receipt.head.key}")
        if left := {client: text for client, text in receipts.items() if client not in right}:
            place = folder.write_client_receipts(left)
            self.log(f"receipts of {', '.join(map(name_of, left))} are in {place}: give each its own")
