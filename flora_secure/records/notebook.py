"""Results as a notebook shows them: one small table of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def html_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A table of (what, figure), all text escaped; rows that are indented belong to the one above and stand back."""
    lines = [f"<table><caption>{escape(title)}</caption><tbody>"]
    for what, figure in rows:
        name, style = escape(what.strip()), "text-align:left;vertical-align:top"
        heading = f'<th style="{style}">{name}</th>'
        if what.startswith(" "):
            heading = f'<td style="{style};padding-left:2em;opacity:.7">{name}</td>'
        lines.append(f'<tr>{heading}<td style="{style}">{escape(figure)}</td></tr>')
    return "\n".join([*lines, "</tbody></table>"])
