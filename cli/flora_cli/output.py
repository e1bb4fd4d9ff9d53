"""What a person sees: results on stdout, progress and logs on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol

import typer


class Progress(Protocol):
    """Told of every finished round."""

    def __call__(self, done: int, line: str) -> None: ...


def emit(text: str) -> None:
    """Print a result on stdout. Exits 141 if the reader is gone (``| head``), 2 if the output cannot be written."""
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


@contextmanager
def progress(total: int, what: str) -> Iterator[Progress]:
    """A live bar on a terminal, a plain line a step otherwise."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, line: log(f"{what} {done}/{total}: {line}")
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, line: bar.update(task, completed=done, description=line)


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
