"""The two halves of a federation's app, as Flower starts them: `client_app` at a site, `server_app` at the server.

The folder of the app comes through Flower's server. What is a party's own does not: a site's folder is named where its
SuperNode is started (`--node-config 'site="/its/folder"'`), and the server's in the run's configuration.

A ClientApp has a process for each message, and most need no training: this module loads neither torch nor scipy.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flora_secure.boundary.foreign import printable
from flora_secure.engine.deployed.folders import App, open_site
from flora_secure.engine.deployed.site import Site
from flora_secure.engine.flower.site_app import Answer, register
from flora_secure.errors import InputError, RunInterrupted, require

FLOWER_LOG = "flwr"  # the name of Flower's logger


class Stopped(Exception):  # noqa: N818 - nothing went wrong in the program
    """The run ends here; its text is for the people at the server, and needs no traceback."""


def client_app(folder: Path) -> ClientApp:
    """The app of a site, for the app's `folder` with config.toml and data.py.

    What happens is told on stderr, which is the SuperNode's log, in lines that begin with the site's folder's name.
    """
    app = ClientApp()

    def answering(context: Context) -> Answer:
        return _site(folder, context).answer

    register(app, answering, lambda context: _site(folder, context).number, _teller("site"))
    return app


def server_app(folder: Path) -> ServerApp:
    """The app of the server, for the app's `folder` with config.toml and data.py.

    The run's configuration says `server`, the folder of the server, and `out`, that of the run, in the server's folder
    unless it is absolute. A run that was broken off goes on. Bad input ends Flower's run as failed, with one line.
    """
    app = ServerApp()

    def main(grid: Grid, context: Context) -> None:
        from flora_secure.engine.flower.hosting import host
        from flora_secure.privacy.cross_check import CrossCheckError

        logging.getLogger(FLOWER_LOG).addFilter(_without_traceback)
        try:
            host(folder, grid, context.run_config, _teller(""))
        except (InputError, RunInterrupted, CrossCheckError) as error:
            raise Stopped(f"flora-secure: {printable(' '.join(str(error).split()))}") from None

    app.main()(main)
    return app


def _site(folder: Path, context: Context) -> Site:
    """The site that this process belongs to. Raises an `errors.InputError` for what is missing or cannot be read."""
    given = context.node_config.get("site", "")
    require(
        isinstance(given, str) and Path(given).is_absolute(),
        f"this SuperNode knows no site: start it with --node-config 'site=\"/folder/of/the/site\"', got {given!r}",
    )
    own = Path(str(given))
    return open_site(App(folder), own, _teller(own.name))


def _teller(name: str) -> Callable[[str], None]:
    """A log on stderr whose lines begin with `name`."""
    begin = f"{name}: " if name else ""

    def tell(line: str) -> None:
        print(printable(begin + line), file=sys.stderr, flush=True)

    return tell


def _without_traceback(record: logging.LogRecord) -> bool:
    """Have Flower log how a run was stopped by its line alone."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, Stopped):
        record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
    return True
