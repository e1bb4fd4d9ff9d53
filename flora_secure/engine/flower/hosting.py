"""The server's run in a ServerApp, from the folders to the report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.serverapp import Grid

from flora_secure.boundary.foreign import read_bytes
from flora_secure.data.cache import ArrayCache
from flora_secure.engine.deployed.course import Host
from flora_secure.engine.deployed.folders import App, server_enrolment
from flora_secure.engine.deployed.keys.signing import server_signer
from flora_secure.engine.deployed.masked_rounds import Patience
from flora_secure.engine.flower.nodes import Nodes, public_key_of
from flora_secure.engine.flower.transport import GridTransport
from flora_secure.engine.run import Run
from flora_secure.errors import ConfigError, ForeignError, require
from flora_secure.planning.config import RunConfig
from flora_secure.records.record import RoundRecord
from flora_secure.records.report_table import rows
from flora_secure.rounds.enrolment import Enrolment

GRACE = 20.0
"""Seconds that the first round waits for the sites that are not connected, once enough are."""
_MOST_KEY = 1 << 16


def host(folder: Path, grid: Grid, settings: Mapping[str, object], log: Callable[[str], None]) -> Run:
    """Run the federation of the app in `folder`, or go on with it; its report is logged at the end.

    `settings`: `server`, the server's folder; `out`, the run's ("run" if it is left out); `patience` and
    `trip-patience`, seconds for what needs training and for all else. Raises as `course.Host.run`.
    """
    own = _server_folder(settings)
    out = own / str(settings.get("out") or "run")
    patience = Patience(training=_seconds(settings, "patience", 600.0), trip=_seconds(settings, "trip-patience", 60.0))
    enrolment, app = server_enrolment(own), App(folder)
    config = app.config(enrolment.clients)
    signer = server_signer(own, log)
    cache = ArrayCache(own / "state" / "features", log)
    data = app.load("test", own, config, cache)

    def progress(number: int, total: int, record: RoundRecord) -> None:
        log(f"round {number}/{total}: {record.line}")

    wanted = sorted(set(range(enrolment.clients)) - enrolment.revoked)
    nodes = Nodes(grid, wanted, log, node_keys(own, enrolment, log))
    if not os.path.lexists(out / "report.json"):
        nodes.find(least=_enough(config, len(wanted)), patience=patience.training, grace=GRACE)
    transport = GridTransport(grid, nodes, log)
    try:
        run = Host(config, data, enrolment, transport, patience, cache, progress, log, signer).run(out)
    finally:
        transport.close()
    for line in table_of(run):
        log(line)
    return run


def table_of(run: Run) -> list[str]:
    """The run's report in lines: accuracy, privacy and bytes."""
    found = rows(run.report)
    width = max(len(what) for what, _ in found) + 2
    return [f"report of {run.folder}", *(f"{what:<{width}}{figure}" for what, figure in found)]


def node_keys(own: Path, enrolment: Enrolment, log: Callable[[str], None]) -> dict[int, bytes]:
    """The public node keys of the sites, where the server has them: sites/siteN/node.key.pub in its folder or beside.

    `log` is told whose there is none of: such a site is the first node that says it is. Raises ConfigError for a file
    that is no key, and for two sites with one.
    """
    found: dict[int, bytes] = {}
    for client in sorted(set(range(enrolment.clients)) - enrolment.revoked):
        name = Path("sites") / f"site{client}" / "node.key.pub"
        path = next((place for place in (own / name, own.parent / name) if place.exists()), None)
        if path is None:
            continue
        try:
            key = public_key_of(read_bytes(path, _MOST_KEY), str(path))
        except ForeignError as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        for other, same in found.items():
            require(same != key, f"{path}: site{other} has the same node key; bring the site's own")
        found[client] = key
    if loose := [f"site{client}" for client in range(enrolment.clients) if client not in {*found, *enrolment.revoked}]:
        log(
            f"no node key of {', '.join(loose)} in {own / 'sites'} or {own.parent / 'sites'}: the first node that says "
            "it is that site is taken for it"
        )
    return found


def _server_folder(settings: Mapping[str, object]) -> Path:
    given = settings.get("server") or ""
    require(
        isinstance(given, str) and Path(given).is_absolute(),
        f"`server` of the run's configuration must be the absolute path of the server's folder, got {given!r}: set it "
        "in the app's pyproject.toml, [tool.flwr.app.config]",
    )
    own = Path(str(given))
    require(own.is_dir(), f"`server` {own} is no folder: make it, or name another one in the app's pyproject.toml")
    return own


def _seconds(settings: Mapping[str, object], name: str, otherwise: float) -> float:
    given = settings.get(name, otherwise)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ConfigError(f"`{name}` of the run's configuration must be seconds above 0, got {given!r}")
    return float(given)


def _enough(config: RunConfig, clients: int) -> int:
    """With how many sites the first round need not wait long for the others."""
    return max(2, clients - math.floor(config.dropout_tolerance * clients + 1e-9))
