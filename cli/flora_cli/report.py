"""`flora-secure report`: a run as a page for a browser, or several side by side."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from flora_cli.options import at_home, told
from flora_cli.output import emit, emit_json, fail, log, working

EXAMPLES = """\
Examples:

flora-secure report runs/mine

flora-secure report runs/mine runs/other --out both.html"""


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders that flora-secure simulate wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            callback=at_home,
            metavar="FILE",
            help="File to write, replaced if it exists; RUN/report.html for a single run.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
    ] = False,
) -> None:
    """Write one HTML file that shows a run, or several side by side; it opens without a network.

    Of several, a run that cannot be shown is named on stderr, and the others are shown; exits 2 if none can.
    """
    import flora_secure
    from flora_secure.errors import InputError

    if len(runs) > 1 and out is None:
        fail("several runs are shown in one file: give its name with --out")
    said: list[str] = []
    try:
        with working("drawing the page"):
            written = flora_secure.report(*runs, out=out, log=said.append)
    except InputError as error:
        for line in said:
            if str(error) not in line:  # which is said last
                log(line)
        fail(told(error))
    for line in said:
        log(line)
    if json:
        table = {"schema": "flora-secure/page/1", "file": str(written), "runs": len(runs) - len(said), "left_out": said}
        emit_json(json_format.dumps(table, indent=2, ensure_ascii=False))
    else:
        emit(str(written))
