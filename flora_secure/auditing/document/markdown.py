"""The document as Markdown (CommonMark with tables), and every text of others in it as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from flora_secure.auditing.document.registry import registry_text
from flora_secure.auditing.document.sections import Section, label_figures, label_rows, sections, title
from flora_secure.auditing.findings import Audit
from flora_secure.boundary.foreign import printable

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~!])")


def markdown(audit: Audit) -> str:
    """The whole document; UTF-8 text that ends in a newline."""
    figures = [(what, f"{figure}. {said}") for what, figure, said in label_figures(audit)]
    verdict, *rest = label_rows(audit)
    lines = [f"# {_text(title(audit))}", "", *_table(("", ""), [verdict, *figures, *rest], bold=True)]
    for section in sections(audit):
        lines += _section(section, 2)
    entry = registry_text(audit).replace("```", "'''")
    lines += ["", "## Registry entry", "", "```json", *entry.split("\n"), "```"]
    return "\n".join(lines) + "\n"


def _section(section: Section, level: int) -> Iterator[str]:
    yield from ("", f"{'#' * level} {_text(section.title)}")
    for paragraph in section.paragraphs:
        yield from ("", _text(paragraph))
    if section.points:
        yield ""
        yield from (f"- {_text(point)}" for point in section.points)
    if section.rows:
        yield from ("", *_table(section.head, section.rows))
    for inner in section.inner:
        yield from _section(inner, level + 1)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, bold: bool = False) -> Iterator[str]:
    yield f"| {' | '.join(map(_text, head))} |"
    yield f"|{'---|' * len(head)}"
    for first, *rest in rows:
        cells = [f"**{_text(first)}**" if bold else _text(first), *map(_text, rest)]
        yield f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """One line in which nothing of Markdown or HTML means anything."""
    return _SPECIAL.sub(r"\\\1", printable(text))
