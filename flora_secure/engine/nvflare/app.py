"""The two objects of an NVFlare job: the server's, whose main function runs the federation, and a site's.

NVFlare stores them in the job by their arguments, and the job comes to a site through NVFlare's server. So a site's own
folder is no argument: it is in the environment of the site's process, `FLORA_SECURE_SITE`, where `{site}` stands for
the name by which NVFlare knows the site.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from nvflare.collab import collab

from flora_secure.boundary.foreign import printable
from flora_secure.engine.deployed.folders import App, open_site, server_enrolment
from flora_secure.engine.deployed.keys.signing import server_signer
from flora_secure.engine.deployed.site import Site
from flora_secure.engine.nvflare.transport import CollabTransport, clients_of
from flora_secure.errors import ConfigError, InputError, first_line

_OPENING = threading.Lock()
SITE, APP = "FLORA_SECURE_SITE", "FLORA_SECURE_APP"


class FederationServer:
    """The server's object of a job.

    Attributes:
        app: folder of config.toml and data.py.
        server: the server's own folder, with enrolment.toml and the test images; the run is in `run/` in it.
        training, trip: seconds that the sites are waited for, see `coordinator.Patience`.
    """

    def __init__(self, app: str, server: str, training: float = 600.0, trip: float = 60.0) -> None:
        self.app, self.server, self.training, self.trip = app, server, training, trip

    @collab.main  # type: ignore[untyped-decorator]
    def run(self) -> None:
        """Run the federation, or go on with it. Raises an `errors.InputError` for bad input."""
        from flora_secure.engine.deployed.course import Host
        from flora_secure.engine.deployed.masked_rounds import Patience
        from flora_secure.records.report_table import rows

        folder, app = Path(self.server), App(Path(self.app))
        enrolment = server_enrolment(folder)
        config = app.config(enrolment.clients)
        known = clients_of(list(collab.clients), enrolment.clients, self.trip, _say)
        host = Host(
            config=config,
            data=app.load("test", folder, config, None),
            enrolment=enrolment,
            transport=CollabTransport(known, _say),
            patience=Patience(self.training, self.trip),
            cache=None,
            progress=lambda number, rounds, record: _say(f"round {number}/{rounds}: {record.line}"),
            log=_say,
            signer=server_signer(folder, _say),
        )
        done = host.run(folder / "run")
        for what, figure in rows(done.report):
            _say(f"{what:<18} {figure}")


class FederationSite:
    """A site's object of a job. `app`: folder of config.toml and data.py, as it is at the site, unless the site's
    `FLORA_SECURE_APP` names another."""

    def __init__(self, app: str) -> None:
        self.app = app
        self._opened: Site | None = None

    def _site(self) -> Site:  # no property: the Collab API asks for every attribute, in no context
        with _OPENING:  # NVFlare answers on many threads, and a site has one turn
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Site:
        given = os.environ.get(SITE)
        if not given:
            raise ConfigError(f"{SITE} is not set: it says in which folder this site has its policy, key and images")
        # the name is NVFlare's and comes from the network; it names a folder beside others, and nothing else
        name = str(collab.site_name)
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError("NVFlare calls this site by a name that is no folder's")
        app = os.environ.get(APP) or self.app
        return open_site(App(Path(app)), Path(given.replace("{site}", name)), _say)

    @collab.publish  # type: ignore[untyped-decorator]
    def answer(self, message: bytes) -> bytes:
        """The answer to a message of the server, as `rounds.reply` writes it.

        Empty where the site cannot be opened, and for other sites, which NVFlare lets call this as well.
        """
        try:
            if not _by_server():
                return b""
            return self._site().answer(message)
        except InputError as error:
            _say(f"this site cannot take part: {error}")
        except Exception as error:  # NVFlare would send its text to the server
            _say(f"this site cannot take part: {type(error).__name__}: {first_line(error)}")
        return b""

    @collab.publish  # type: ignore[untyped-decorator]
    def number(self) -> int:
        """The site's number of the enrolment; -1 where it cannot be opened, and for other sites."""
        try:
            if not _by_server():
                return -1
            return self._site().number
        except InputError as error:
            _say(f"this site cannot take part: {error}")
        except Exception as error:  # as above
            _say(f"this site cannot take part: {type(error).__name__}: {first_line(error)}")
        return -1


def _by_server() -> bool:
    """Whether the server calls; a call of another site is said."""
    caller = str(collab.caller)
    if caller.partition(".")[0] == "server":  # its name in every NVFlare federation; objects in it follow a dot
        return True
    _say(f"{caller} is not the server, and has no answer")
    return False


def _say(line: str) -> None:
    """A line for the people of this process's machine, on stderr, which NVFlare keeps in its workspace."""
    with suppress(Exception):  # an error here would reach the server, with the text of the one that is told
        print(printable(line), file=sys.stderr, flush=True)
