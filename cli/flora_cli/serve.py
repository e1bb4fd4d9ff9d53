"""`flora-secure serve`: the server of a federation of real sites over TLS, without a framework."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flora_cli.ended import tell
from flora_cli.options import at_home, flagged, number, told, whole
from flora_cli.output import Work, fail

EXAMPLES = """\
Example:

flora-secure serve pilot/app/federation --server pilot/server --port 8443"""

App = Annotated[
    Path,
    typer.Argument(
        metavar="APP", callback=at_home, help="Folder with config.toml and data.py, the same at all parties."
    ),
]


def serve(
    app: App,
    server: Annotated[
        Path,
        typer.Option("--server", metavar="DIR", callback=at_home, help="The server's folder, with enrolment.toml."),
    ],
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="Name or address to listen at.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option("--port", parser=whole, metavar="PORT", help="Port to listen at.")] = 8443,
    certs: Annotated[
        Path | None,
        typer.Option(
            "--certs",
            metavar="DIR",
            callback=at_home,
            help="Folder with ca.crt, server.pem and server.key; without it certs in the server's folder or beside.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", callback=at_home, help="The run's folder; without it run/ in the server's folder."
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option("--patience", parser=number, metavar="S", help="Seconds for a site to train.")
    ] = 600.0,
    trip_patience: Annotated[
        float,
        typer.Option(
            "--trip-patience", parser=number, metavar="S", help="Seconds for all else, and for a site that is away."
        ),
    ] = 60.0,
    wait: Annotated[
        float, typer.Option("--wait", parser=number, metavar="S", help="Seconds to wait for enough sites to begin.")
    ] = 600.0,
    json: Annotated[bool, typer.Option("--json", help="Print the report alone as JSON on stdout.")] = False,
) -> None:
    """Run a federation of real sites over TLS, each of which runs flora-secure join; report as simulate does.

    The same command again goes on after an interruption, in the same folder.
    """
    import flora_secure
    from flora_secure.engine.deployed.folders import App as Folder
    from flora_secure.engine.deployed.over_tls import serve as run_server
    from flora_secure.errors import InputError

    for flag, seconds in (("--patience", patience), ("--trip-patience", trip_patience), ("--wait", wait)):
        if not seconds > 0:
            fail(f"{flag} {seconds:g}: must be above 0; give seconds")
    if certs is None:
        certs = next((place for place in (server / "certs", server.parent / "certs") if place.is_dir()), None)
        if certs is None:
            fail(
                f"no folder certs in {server} or beside it: flora-secure flower certs makes one, or name it by --certs"
            )
    try:
        with Work(beats=True) as work:
            run = run_server(
                Folder(app),
                server,
                host=host,
                port=port,
                certificates=certs,
                out=server / "run" if out is None else out,
                patience=patience,
                trip_patience=trip_patience,
                wait=wait,
                progress=lambda number, total, record: work.round(number, total, record.line),
                log=lambda line: work.log(flagged(line)),
            )
    except InputError as error:
        fail(told(error, file=app / "config.toml"))
    except flora_secure.RunInterrupted as interrupt:
        fail(f"{interrupt}; go on with the same command, which the sites wait for", code=130)
    except KeyboardInterrupt:
        fail("interrupted before the first round; begin again with the same command", code=130)
    except RuntimeError as error:
        from flora_secure.privacy.cross_check import CrossCheckError

        if not isinstance(error, CrossCheckError):
            raise
        fail(str(error), code=1)
    tell(run, "serve", json)
