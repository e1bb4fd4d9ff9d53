"""What a command says when its run has ended: the table, or the report alone as JSON; then the page for a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flora_cli.options import flagged
from flora_cli.output import emit, emit_json, log, table

if TYPE_CHECKING:
    import flora_secure


def tell(run: flora_secure.Run, command: str, as_json: bool) -> None:
    """Print what became of the run of `command`, and write its page."""
    try:
        _show(run, command, as_json)
    except BaseException:
        _write_page(run, said=None)  # it is written where nobody can read the table, too
        raise
    _write_page(run, log)


def _show(run: flora_secure.Run, command: str, as_json: bool) -> None:
    from flora_secure.records.report_table import rows

    if as_json:
        emit_json(run.report.to_json())
    else:
        found = [(what, flagged(figure)) for what, figure in rows(run.report)]
        emit(*table(found, f"flora-secure {command} → {run.folder}"))


def _write_page(run: flora_secure.Run, said: Callable[[str], None] | None) -> None:
    import flora_secure
    from flora_secure.errors import InputError

    try:
        line = f"wrote {flora_secure.report(run.folder)}"
    except InputError as error:
        line = f"report.html was left out: {error}"
    if said is not None:
        said(line)
