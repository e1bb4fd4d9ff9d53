"""A server that dies at any write of its run's folder goes on in it, and counts what may have been released."""

import math
from pathlib import Path

import pytest
from crashing import Crash, FaultyOs
from given import Given, Wires

from flora_bench.federation import parties
from flora_secure.client.client import Client
from flora_secure.engine.recorded import begin, go_on
from flora_secure.records import durable
from flora_secure.records.run_folder import remove_unborn, reopen


def test_a_server_that_dies_at_any_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_vector", Client._vector)  # so that it is put back
    parties._keep_vectors(tmp_path / "vectors")
    given, crashes = Given(tmp_path, rounds=2), 0
    sites = [given.site(number) for number in range(given.sites)]

    def life(out: Path, wired: FaultyOs) -> list[int]:
        coordinator = given.coordinator(Wires(lambda client, message: sites[client].answer(message)))
        coordinator.check()
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", wired)
            remove_unborn(out)
            recorded = go_on(coordinator, reopen(out)) if (out / "config.toml").exists() else begin(coordinator, out)
            for _ in recorded.rounds():
                pass
        return coordinator.server.records

    for fatal in range(1, 100):
        out, wired = tmp_path / f"run{fatal}", FaultyOs(fatal)
        try:
            records = life(out, wired)
        except Crash:
            crashes += 1
            wired.fatal = math.inf
            for handle in _locks(out):
                handle()
            records = life(out, FaultyOs())
        assert [record.round for record in records] == [1, 2]
        assert sum(record.lost for record in records) <= 1
        if wired.calls < fatal:
            break
    assert crashes > 10
    assert all(right for _, right in given.sums)


def _locks(out: Path) -> list:
    """POSIX locks are of a process: opening and closing the file anew lets go of what the dead life holds."""
    path = out / "state" / "lock"
    return [lambda: path.open("rb").close()] if path.exists() else []
