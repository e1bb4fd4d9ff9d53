"""Rows of `bench federation` of engines that others make: Flower's simulation engine on Ray."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from functools import partial
from statistics import median

from flora_bench.measure import Row, Scale

_PATIENCE = 600.0


def flower_rows(scale: Scale) -> Iterator[Row]:
    """A warm round of virtual clients on Flower's simulation engine, training included, beside an echo of as many bytes
    in as many trips. By the clock: the work is in other processes."""
    figure, clients = "warm round by the clock", 10 if scale is Scale.QUICK else 100
    setting, against = f"Flower's engine, n={clients}, training included", "echo of the same bytes"
    if importlib.util.find_spec("flwr") is None or importlib.util.find_spec("ray") is None:
        missing = "left out: not installed (flora-secure[flower])"
        yield Row(figure=figure, setting=setting, ours=None, against=against, at_most=2.0, note=missing)
        return
    ours, up, down, trips = _rounds(clients)
    yield Row(
        figure=figure,
        setting=setting,
        ours=median(ours[1:]),
        other=median(_echoes(clients, up // trips, down // trips, trips)[1:]),
        against=against,
        at_most=2.0,
        note=f"{trips} trips; the first round, with start and set-up, {ours[0]:.0f} s",
    )


def _rounds(clients: int) -> tuple[list[float], int, int, int]:
    """Seconds of each round, bytes up and down of a client in a warm one, and its trips."""
    from flora_secure.data.cache import ArrayCache, default_folder
    from flora_secure.data.federation import load_federation
    from flora_secure.engine.flower.virtual import VirtualFederation
    from flora_secure.engine.task import prepare
    from flora_secure.planning.config import RunConfig, override
    from flora_secure.planning.masking import settled

    given = {"data.dataset": "clothes", "data.clients": clients, "training.rounds": 6}
    config = override(RunConfig(), {"privacy.epsilon": 50.0, "aggregation.secagg": "malicious-server", **given})
    cache = ArrayCache(default_folder(), lambda line: None)
    federation = load_federation(config.data, config.seed, cache)
    config = settled(federation.settled(config))
    run = VirtualFederation(config, prepare(config, federation, cache), cache, lambda line: None)
    seconds, before = [], time.perf_counter()
    for _ in run.rounds():
        seconds.append(time.perf_counter() - before)
        before = time.perf_counter()
    last = run.records[-1]
    return seconds, last.upload_bytes // clients, last.download_bytes // clients, 3


def _echoes(clients: int, up: int, down: int, trips: int) -> list[float]:
    """Seconds of so many trips whose messages have `down` bytes, and the replies `up`."""
    from flora_secure.engine.flower.nodes import Nodes
    from flora_secure.engine.flower.transport import GridTransport
    from flora_secure.engine.flower.virtual import VirtualNodes

    def log(line: str) -> None:
        """Nothing is said."""

    seconds = []
    with VirtualNodes(partial(_echoing, up), clients) as grid:
        nodes = Nodes(grid, range(clients), log)
        nodes.find(least=clients, patience=_PATIENCE, grace=0.0)
        transport = GridTransport(grid, nodes, log)
        for _ in range(6):
            before = time.perf_counter()
            for _ in range(trips):
                if len(list(transport.exchange(dict.fromkeys(range(clients), bytes(down)), _PATIENCE))) != clients:
                    raise RuntimeError("an echo was lost")
            seconds.append(time.perf_counter() - before)
    return seconds


def _echoing(size: int, context: object) -> partial[bytes]:
    return partial(_echo, size)


def _echo(size: int, message: bytes) -> bytes:
    return bytes(size)
