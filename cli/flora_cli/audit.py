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

flora-secure audit runs/mine --no-opacus --json

flora-secure audit runs/mine --receipt site2/receipts/FILE --server-key HEX

flora-secure audit runs/mine --accuracy --document audit.html --document audit.md

flora-secure audit opacus.json

flora-secure audit flower.json --as-log > log.json"""


def audit(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a run, or a file: a client's receipt, or the log of another system."
        ),
    ],
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
    canaries: Annotated[
        Path | None,
        typer.Option(
            "--canaries",
            metavar="FILE",
            callback=at_home,
            help="The file of the run's canaries; RUN.canaries.json where left out.",
        ),
    ] = None,
    accuracy: Annotated[
        bool,
        typer.Option(
            "--accuracy/--no-accuracy",
            help="Measure the adapter of every round again; takes the run's model and test images.",
        ),
    ] = False,
    receipts: Annotated[
        list[Path] | None,
        typer.Option("--receipt", metavar="FILE", help="A receipt that a client kept; may be given again."),
    ] = None,
    server_key: Annotated[
        str | None,
        typer.Option(
            "--server-key", metavar="HEX", help="The public key that the run must be signed by (signing.pub)."
        ),
    ] = None,
    document: Annotated[
        list[Path] | None,
        typer.Option(
            "--document",
            metavar="FILE",
            help="Write what an auditor signs: .md, .html, or .json for a registry's entry; several times for several.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the verdict, and what is not as it should be.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on stdout.")] = False,
    as_log: Annotated[
        bool, typer.Option("--as-log", help="Of another system's file: print the log that it becomes, to complete it.")
    ] = False,
) -> None:
    """Derive a run's claims again from its folder, and set them beside what the run says.

    Exits 1 if a claim is wrong. Of a file of Flower, Opacus or NVFlare, or a flora-secure/foreign-log/1: what is
    claimed, what follows for server, outsider and single upload, and what cannot be known.
    """
    import flora_secure
    from flora_secure.auditing.document.written import require_format
    from flora_secure.auditing.foreign.opening import as_log as log_of
    from flora_secure.errors import InputError

    files = document or []
    try:
        for path in files:
            require_format(path)
        if as_log:
            emit_json(log_of(run))
            return
        with working("deriving every figure again"):
            found = flora_secure.audit(
                run,
                opacus=opacus,
                accuracy=accuracy,
                receipts=receipts or (),
                server_key=server_key,
                canaries=canaries,
                attacks=attacks,
            )
        for path in files:
            flora_secure.document(found, path)
    except InputError as error:
        fail(told(error))
    if json:
        emit_json(found.to_json())
    else:
        emit(*table(found.rows(quiet=quiet), f"flora-secure audit {run}"))
    # who asks for more learns where it was of no use, also where only faults are shown
    named = {"canaries": canaries, "attacks": attacks}
    for block in found.blocks:
        if block.left_out is not None and named.get(block.name) is not None:
            log(f"{named[block.name]} was not used: {block.name}: {block.left_out}")
    for flag, asked in {**named, "accuracy": accuracy or None}.items():
        if asked is not None and not run.is_dir():
            log(f"--{flag} was not used: {run} is no run folder")
    for name, why in found.left_out.items():
        log(f"{name} was left out: {why}")
    for path in files:
        log(f"wrote {path}")
    if not found.passed:
        raise typer.Exit(1)
