"""The page itself: templates filled with what the other modules have found, everything in them escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flora_secure.boundary.foreign import printable
from flora_secure.errors import PlotError, RunFolderError
from flora_secure.records.durable import replace_file
from flora_secure.records.html import charts, facts, verdict
from flora_secure.records.html.shown import Shown, Table
from flora_secure.records.html.svg import drawing


def write(runs: Sequence[Shown], path: Path) -> None:
    """Make the page of these runs, and put it in `path`, which is replaced where it is a page.

    Raises `RunFolderError` for figures that no run can have, and `PlotError` where nothing can be written.
    """
    try:
        text = page(runs)
    except (ValueError, ArithmeticError, LookupError) as error:  # files are checked for their form, not for their sense
        names = ", ".join(run.name for run in runs)
        raise RunFolderError(
            f"{names}: figures that no run can have ({printable(str(error)):.80}): flora-secure audit names them"
        ) from None
    if path.exists() and path.suffix.lower() not in (".html", ".htm"):
        raise PlotError(f"{path} exists already and is no page by its name: choose another file, it was left as it is")
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise PlotError(f"{path} cannot be written: {error.strerror or error}; choose another file") from None


def page(runs: Sequence[Shown]) -> str:
    """One run by itself, or several: side by side first, then each."""
    environment = Environment(
        loader=PackageLoader("flora_secure.records.html", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with drawing():
        found = [_parts(run, f"run-{number}") for number, run in enumerate(runs, 1)]
        together = charts.over_rounds(runs, "all") if len(runs) > 1 else None
    return environment.get_template("page.html").render(
        runs=found,
        together=together,
        comparison=facts.comparison(runs) if len(runs) > 1 else None,
        differences=facts.differences(runs),
    )


def _parts(run: Shown, name: str) -> dict[str, Any]:
    drawn = {
        "over_rounds": charts.over_rounds([run], f"{name}-rounds"),
        "ways": charts.ways(run, f"{name}-ways"),
        "wire": charts.wire(run, f"{name}-wire"),
        "classes": charts.classes(run, f"{name}-classes"),
        "noise": charts.noise(run, f"{name}-noise"),
    }
    return {
        "id": name,
        "name": run.name,
        "title": facts.title(run),
        "summary": facts.summary(run),
        "label": facts.label(run),
        "warnings": run.warnings,
        "skew": facts.skew(run),
        "before": facts.before(run),
        "charts": drawn,
        "statement": [_lead(paragraph) for paragraph in run.report.privacy.statement.split("\n\n")],
        "checks": facts.checks(run),
        "verdict": verdict.what_would_change(run),
        "masked": run.masked,
        "again": facts.again(run),
        "hashes": facts.hashes(run),
        "versions": facts.versions(run),
        "figures": Table("All figures", ("", ""), run.rows),
    }


def _lead(paragraph: str) -> tuple[str, str]:
    """The word or two that a paragraph of the statement begins with, and the rest."""
    head, stop, rest = paragraph.partition(". ")
    return (head + ".", rest) if stop and len(head) < 30 else ("", paragraph)


def _printable(value: object) -> object:
    """Texts of others may hold what turns a line around or ends it."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
