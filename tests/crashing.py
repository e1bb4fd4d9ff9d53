"""Runs that are killed at one of their writes and go on, and what must be the same afterwards."""

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from federations import small

from flora_secure.engine.recorded import RecordedRun, go_on
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.summary import summarise
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig
from flora_secure.records import durable
from flora_secure.records.reading import read_run
from flora_secure.records.report import Report
from flora_secure.records.run_folder import reopen


def open_small(**changes: object) -> RunConfig:
    """Small, and without masking."""
    return small(**{"aggregation__secagg": "off", **changes})


class Crash(BaseException):
    """The process ends here."""


class FaultyOs:
    """`os`, whose `fatal`-th call that changes a file or a name does half of what it should, or nothing, and ends
    all. To a killed process a flush makes no difference; flushes have a test of their own.
    """

    COUNTED = ("write", "replace", "rename", "unlink")

    def __init__(self, fatal: float = math.inf) -> None:
        self.calls, self.fatal = 0, fatal

    def __getattr__(self, name: str) -> object:
        if name == "fsync":
            return lambda handle: None
        real = getattr(os, name)
        if name not in self.COUNTED:
            return real

        def call(*arguments):
            self.calls += 1
            if self.calls < self.fatal:
                return real(*arguments)
            if name == "write" and self.calls == self.fatal:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise Crash

        return call


def secret(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, simulation_noise=False))


def complete(run: RecordedRun) -> Report:
    for _ in run.rounds():
        pass
    adapter = run.folder.write_adapter(run.running.save_adapter)
    report = summarise(run.running, total_seconds=1.0, rounds_hash=run.folder.last_hash, adapter_hash=adapter)
    run.folder.write_report(report)
    return report


def resumed(path: Path, config: RunConfig, task: Task) -> RecordedRun:
    found = reopen(path)
    assert found.config == config
    return go_on(Simulation(config, task), found)


def timeless(path: Path) -> tuple[list[dict], dict, dict[str, bytes]]:
    """Records, report and adapter files of a finished run, without what a clock has measured, and without what carries
    the updates: a server that starts again sends full states and long invitations, and sets up another session."""
    _, records, report = read_run(path)  # the chain holds
    assert report is not None
    masked = report.aggregation.profile != "off"
    lines = [_updates_of({**record.to_dict(), "seconds": None}, masked=masked) for record in records]
    told = json.loads(report.to_json())
    told["timing"] = told["aggregation"]["seconds"] = told["provenance"]["rounds_hash"] = None
    told["communication"] = _updates_of(told["communication"], masked=masked)
    return lines, told, {file.name: file.read_bytes() for file in (path / "adapter").iterdir()}


def _updates_of(figures: dict, *, masked: bool) -> dict:
    """With the payload's updates alone. Rounded, since means of the report are sums that were divided."""
    carriage = {"download_bytes", "broadcast_bytes", "payload_bytes", "masking_bytes", "invitation_bytes", "reduction"}
    carriage |= {"upload_bytes", "reduction_upload"} if masked else set()
    left = {name: value for name, value in figures.items() if name not in carriage}
    return left | {"updates": round(figures["payload_bytes"] - figures["broadcast_bytes"], 6)}


def crashed(monkeypatch, fatal: int, action: Callable[[], object]) -> bool:
    """Did the action end in a crash at this call?"""
    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", FaultyOs(fatal))
        try:
            action()
        except Crash:
            return True
    return False
