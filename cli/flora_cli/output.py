"""What a person sees: results on stdout, progress and logs on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def emit(text: str) -> None:
    """Print a result on stdout. Exits 141 if the reader is gone (`| head`), 2 if the output cannot be written."""
    if sys.stdout is None:  # closed by whoever started the program
        fail("the result cannot be printed: standard output is closed")
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        silence()
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(141) from None
        fail(f"the result cannot be printed: {error.strerror}")


def silence() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log(line: str) -> None:
    """One line on stderr; a run does not end because nobody can read about it."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on stderr, then exit."""
    log("flora-secure: " + " ".join(message.split()))
    raise typer.Exit(code)


class Rounds:
    """Tells of every finished round: a live bar on a terminal, which begins with the first; a plain line otherwise."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int, line: str) -> None:
        """Round `done` of `total` is over; `line` says how it went."""
        if sys.stderr is None or not sys.stderr.isatty():
            log(f"{self._what} {done}/{total}: {line}")
            return
        if self._bar is None:
            self._bar = _bar(self._what, total)
        self._bar.update(self._bar.task_ids[0], completed=done, description=line)

    def close(self) -> None:
        """Take the bar away; what comes next is printed below what came before."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar(what: str, total: int) -> Progress:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(escape(what)),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=total)
    bar.start()
    return bar


def table(rows: list[tuple[str, str]], title: str) -> str:
    """Two aligned columns as text, long figures folded to the terminal's width (at least 60 columns)."""
    import shutil
    import textwrap

    width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 120))
    label = max(len(what) for what, _ in rows) + 2
    lines = [title, "─" * len(title)]
    for what, figure in rows:
        folded = textwrap.wrap(figure, width - label) or [""]
        lines.append(f"{what:<{label}}{folded[0]}")
        lines += [" " * label + rest for rest in folded[1:]]
    return "\n".join(lines)
