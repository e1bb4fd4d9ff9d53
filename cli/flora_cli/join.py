"""`flora-secure join`: a site of a federation over TLS, without a framework."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from flora_cli.options import at_home, flagged, number, told
from flora_cli.output import Work, emit, emit_json, fail
from flora_cli.serve import App

EXAMPLES = """\
Example:

flora-secure join federation --site my-site fl.example.org:8443"""


def _place(text: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        fail(f"{text[:80]!r} is no place to connect to: write HOST:PORT, such as fl.example.org:8443")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join(
    app: App,
    server: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the server listens.")],
    site: Annotated[
        Path,
        typer.Option(
            "--site",
            metavar="DIR",
            callback=at_home,
            help="The site's folder: policy.toml, enrolment.toml, identity.key, ca.crt, client.pem and .key, images.",
        ),
    ],
    patience: Annotated[
        float,
        typer.Option("--patience", parser=number, metavar="S", help="Seconds without a server until it gives up."),
    ] = 600.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout when it is over.")] = False,
) -> None:
    """Take part in a federation as a site, under its own policy, until the server says that it is over.

    It connects out and opens no port. The same command again goes on after an interruption.
    """
    from flora_secure.engine.deployed.folders import App as Folder
    from flora_secure.engine.deployed.over_tls import join as take_part
    from flora_secure.errors import InputError

    if not patience > 0:
        fail(f"--patience {patience:g}: must be above 0; give seconds")
    try:
        with Work() as work:
            adapter, epsilon, rounds = take_part(
                Folder(app), site, *_place(server), patience=patience, log=lambda line: work.log(flagged(line))
            )
    except InputError as error:
        fail(told(error, file=app / "config.toml"))
    except KeyboardInterrupt:
        fail("interrupted; take part again with the same command", code=130)
    if json:
        document = {
            "schema": "flora-secure/joined/1",
            "adapter": None if adapter is None else str(adapter),
            "epsilon": epsilon,
            "rounds": rounds,
        }
        emit_json(json_format.dumps(document, indent=2))
        return
    emit(
        f"adapter {adapter}" if adapter is not None else "no adapter was sent: ask the coordinator for it",
        f"own ledger ε {epsilon:.4g} in {rounds} rounds",
    )
