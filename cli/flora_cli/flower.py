"""`flora-secure flower`: what a federation of real sites needs before its first round, keys first.

Each command is a function of this file or of `flora_cli.federation`, added to `app` with its examples; `flora_cli.main`
adds `app`. The same files
serve a federation without Flower.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flora_cli.federation import EXAMPLE, INIT, Folder, Json, example, init, print_document
from flora_cli.options import at_home, told, whole
from flora_cli.output import emit, fail, log, table, working

if TYPE_CHECKING:
    from flora_secure.engine.deployed.keys.credentials import Made
    from flora_secure.rounds.enrolment import Enrolment

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    help="A federation of real sites: its folder, keys, certificates and enrolment.",
)

app.command(epilog=INIT)(init)

CERTS = """\
Examples:

flora-secure flower certs pilot --clients 3

flora-secure flower certs federation --host fl.example.org"""


@app.command(epilog=CERTS)
def certs(
    directory: Folder,
    clients: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="COUNT",
            help="For a pilot: make sites, with all their secrets, until there are so many. Without it none is made.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="DNS name or IP address at which clients reach the server, beside localhost; may be repeated.",
            show_default=False,
        ),
    ] = None,
    again: Annotated[
        list[int] | None,
        typer.Option(
            parser=whole,
            metavar="CLIENT",
            help="Make the keys for TLS and Flower of this enrolled client anew, whose folder was moved away; may be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a certificate authority, the server's certificate and, for a pilot, all keys of all sites.

    Nothing is overwritten: what is there stays, and what is missing is made. With --clients whoever runs this knows the
    secrets of all sites, which is for trials on one machine; in a federation each site runs flower identity.
    """
    from flora_secure.engine.deployed.keys.credentials import make_federation
    from flora_secure.errors import InputError

    try:
        with working("making keys"):
            made = make_federation(directory, clients, host or (), again or ())
    except InputError as error:
        fail(told(error))
    if made.clients:
        log(
            "warning: a pilot: the new sites' identity keys are in this folder, and whoever made it could sign as "
            "every client; in a federation each site makes its own (flora-secure flower identity)"
        )
    log(f"{made.places.certificates / 'ca.key'} makes new certificates and nothing else: keep it offline until then")
    _tell_made(made, json)


IDENTITY = """\
Examples:

flora-secure flower identity my-site"""


@app.command(epilog=IDENTITY)
def identity(
    directory: Annotated[
        Path, typer.Argument(metavar="SITE_DIR", callback=at_home, help="The site's folder; made if it is missing.")
    ],
    json: Json = False,
) -> None:
    """Make a site's identity key, SITE_DIR/identity.key, and print the public key, which the coordinator enrols.

    The key never leaves the site. Tell the public key by a way on which nobody can change it.
    """
    from flora_secure.engine.deployed.keys.identity import NAME, make_identity
    from flora_secure.errors import InputError

    try:
        public = make_identity(directory).hex()
    except InputError as error:
        fail(told(error))
    path = directory / NAME
    log(f"{path} is secret and stays here; the line on stdout is public, for flora-secure flower enrol")
    if json:
        print_document({"schema": "flora-secure/public-identity/1", "file": str(path), "public_key": public})
    else:
        emit(public)


ENROL = """\
Examples:

flora-secure flower enrol federation PUBLICKEY PUBLICKEY PUBLICKEY"""


@app.command(epilog=ENROL)
def enrol(
    directory: Folder,
    public_keys: Annotated[
        list[str], typer.Argument(metavar="PUBLICKEY…", help="What flower identity printed, 64 hex digits each.")
    ],
    json: Json = False,
) -> None:
    """Enrol sites by their public identity keys and print their clients' numbers; the first time at least two.

    Where DIR has an authority (flower certs), each gets a folder DIR/sites/siteN with keys for TLS and Flower.
    """
    from flora_secure.engine.deployed.keys.credentials import enrol as add
    from flora_secure.errors import InputError

    try:
        with working("enrolling"):
            made = add(directory, public_keys)
    except InputError as error:
        fail(told(error))
    if made.authority is None:
        log(f"{made.places.certificates} has no authority, so that no keys for TLS and Flower were made")
    _tell_enrolment(made, json)


REVOKE = """\
Examples:

flora-secure flower revoke federation 2"""


@app.command(epilog=REVOKE)
def revoke(
    directory: Folder,
    client: Annotated[int, typer.Argument(parser=whole, metavar="CLIENT", help="Its number, from 0.")],
    json: Json = False,
) -> None:
    """Have a client not be invited any more: its place in the enrolment stays, marked.

    It takes effect wherever the new enrolment.toml is: hand it to everybody. With Flower, unregister its node as well.
    """
    from flora_secure.engine.deployed.keys.credentials import revoke as mark
    from flora_secure.engine.deployed.keys.places import Places
    from flora_secure.errors import InputError

    try:
        enrolment = mark(directory, client)
    except InputError as error:
        fail(told(error))
    path = Places(directory).enrolment
    if json:
        print_document({"schema": "flora-secure/enrolled/1", **_about(path, enrolment)})
    else:
        emit(*_lines(path, enrolment))


app.command(epilog=EXAMPLE)(example)


def _tell_made(made: Made, json: bool) -> None:
    if json:
        until = made.until.isoformat() if made.until else None
        server = {"hosts": list(made.hosts), "until": until, "new": made.server}
        about = {"directory": str(made.places.folder), "authority_sha256": made.authority, "server": server}
        print_document({"schema": "flora-secure/credentials/1", **about, "again": list(made.again), **_enrolled(made)})
        return
    rows = [("authority", f"SHA-256 {made.authority}")]
    ends = f", until {made.until:%Y-%m-%d}" if made.until else ""
    rows.append(("server", f"{', '.join(made.hosts)}{ends}{' (new)' if made.server else ''}"))
    new = [made.places.site(client).name for client in made.clients]
    rows.append(("new sites", _listed(new) if new else "none"))
    if made.again:
        rows.append(("made anew", _listed([made.places.site(client).name for client in made.again])))
    emit(*table(rows, f"flora-secure flower certs → {made.places.folder}"))
    if made.enrolment is not None:
        emit(*_lines(made.places.enrolment, made.enrolment))


def _tell_enrolment(made: Made, json: bool) -> None:
    assert made.enrolment is not None
    if json:
        print_document({"schema": "flora-secure/enrolled/1", **_enrolled(made)})
        return
    emit(*(f"client {client}" for client in made.clients), *_lines(made.places.enrolment, made.enrolment))


def _enrolled(made: Made) -> dict[str, Any]:
    folders = [made.places.site(client) for client in made.clients]
    new = [
        {"client": client, "folder": str(folder) if folder.is_dir() else None}
        for client, folder in zip(made.clients, folders, strict=True)
    ]
    about = None if made.enrolment is None else _about(made.places.enrolment, made.enrolment)
    return {"new": new, **(about or {"enrolment": None})}


def _about(path: Path, enrolment: Enrolment) -> dict[str, Any]:
    from flora_secure.engine.deployed.keys.enrolment_file import fingerprint

    return {
        "enrolment": str(path),
        "clients": enrolment.clients,
        "revoked": sorted(enrolment.revoked),
        "fingerprint": fingerprint(enrolment),
    }


def _lines(path: Path, enrolment: Enrolment) -> list[str]:
    about = _about(path, enrolment)
    revoked = f", revoked: {', '.join(map(str, about['revoked']))}" if about["revoked"] else ""
    return [f"{path}: {enrolment.clients} clients{revoked}", f"fingerprint {about['fingerprint']}"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} … {names[-1]} ({len(names)})"
