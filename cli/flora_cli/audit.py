"""`flora-secure audit`: derive a run's claims again from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flora_cli.options import at_home, told
from flora_cli.output import emit, emit_json, fail, log, table, working

EXAMPLES = """\
Examples:

flora-secure audit runs/mine

flora-secure audit runs/mine --quiet

flora-secure audit runs/mine --no-opacus --json"""


def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that flora-secure simulate wrote.")],
    opacus: Annotated[
        bool, typer.Option("--opacus/--no-opacus", help="Ask opacus' accountant too, if installed; it takes seconds.")
    ] = True,
    attacks: Annotated[
        Path | None,
        typer.Option(
            callback=at_home,
            metavar="FILE",
            help="What flora-secure attack found, to include; RUN/local/attacks/attacks.json where it is.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the verdict, and what is not as it should be.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on stdout.")] = False,
) -> None:
    """Derive every client's ε again from a run's log, and set it beside what the run claims.

    Exits 1 if a claim is wrong.
    """
    import flora_secure
    from flora_secure.errors import InputError

    try:
        with working("deriving every figure again"):
            found = flora_secure.audit(run, opacus=opacus, attacks=attacks)
    except InputError as error:
        fail(told(error))
    if json:
        emit_json(found.to_json())
    else:
        emit(*table(found.rows(quiet=quiet), f"flora-secure audit {run}"))
    for name, why in found.left_out.items():
        log(f"{name} was left out: {why}")
    if not found.passed:
        raise typer.Exit(1)
