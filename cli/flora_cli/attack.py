"""`flora-secure attack`: what a run's updates, masked uploads, sums and adapter give away of its clients' data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flora_cli.options import at_home, told, whole
from flora_cli.output import Work, emit, emit_json, fail, log, table

EXAMPLES = """\
Examples:

flora-secure attack runs/mine

flora-secure attack runs/mine --attacks reconstruction,sites --out found

flora-secure audit runs/mine     (includes what was found)"""


def attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that flora-secure simulate wrote.")],
    attacks: Annotated[
        str, typer.Option(metavar="NAMES", help="Which to make, separated by commas.")
    ] = "reconstruction,membership,sites",
    shadows: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="COUNT", help="Federations that membership trains, without noise and with it."
        ),
    ] = 64,
    seed: Annotated[int, typer.Option(parser=whole, metavar="NUMBER", help="Seed of the attacks' draws.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=at_home,
            metavar="FOLDER",
            help="Folder for attacks.json and pictures, which show private images; RUN/local/attacks.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
    ] = False,
) -> None:
    """Attack a run's federation, and say what updates, masked uploads, sums and the adapter give away.

    It loads the clients' images and trains federations anew; minutes. Exits 1 if more is found than the run promises.
    """
    import flora_secure
    from flora_secure.errors import InputError

    names = [name.strip() for name in attacks.split(",") if name.strip()]
    try:
        with Work(beats=True) as work:
            found = flora_secure.attack(run, attacks=names, shadows=shadows, seed=seed, out=out, log=work.log)
    except InputError as error:
        fail(told(error))
    if json:
        emit_json(found.to_json())
    else:
        emit(*table(found.rows(), f"flora-secure attack {run}"))
    log(f"wrote {run / 'local' / 'attacks' if out is None else out}, whose pictures show private images")
    if not found.passed:
        raise typer.Exit(1)
