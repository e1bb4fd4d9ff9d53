"""What a person sees: results on stdout, progress and logs on stderr.

All that is printed passes here, and nothing of it reaches a terminal unescaped: names, labels and error messages come
from files of others. A stream that cannot encode a character shows a question mark for it, and ends nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, NoReturn

import typer

from flora_secure.boundary.foreign import printable

if TYPE_CHECKING:
    from rich.progress import Progress

_SILENCE = 2.5  # seconds without a line, after which a run that still works says so; twice as many the next time


def any_encoding() -> None:
    """Let both streams take every text, whatever the locale says that the terminal can show."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def emit(*lines: str) -> None:
    """Print a result on stdout, each of the `lines` on one. Exits 141 if the reader is gone (`| head`), 2 if the output
    cannot be written."""
    _write("\n".join("\t".join(map(printable, line.split("\t"))) for line in lines))


def emit_json(text: str) -> None:
    """Print a JSON document on stdout. What a terminal would take for a command, or cannot show, is escaped as JSON
    escapes it. Exits as `emit`."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def shown(letter: str) -> str:
        plain = letter.isprintable() or letter == "\n"
        return letter if plain and letter.encode(encoding, "ignore") else json.dumps(letter)[1:-1]

    _write(text if text.isascii() and text.replace("\n", "").isprintable() else "".join(map(shown, text)))


def _write(text: str) -> None:
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
            print(printable(line), file=sys.stderr, flush=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on stderr, then exit."""
    log("flora-secure: " + " ".join(message.split()))
    raise typer.Exit(code)


class Work:
    """Tells of work that takes a while: lines, which stay, and whether it still goes on.

    On a terminal a bar below the lines shows what is being done and for how long. Elsewhere, where `beats` are wanted,
    a line says so after some seconds without one, and again after ever more of them. A line that ends in "…" names what
    is being done from then on.
    """

    def __init__(self, *, beats: bool = False) -> None:
        self._doing, self._since = "", time.monotonic()
        self._said, self._silence = self._since, _SILENCE
        self._bar: Progress | None = None
        self._lock, self._over = Lock(), Event()
        self._beating: Thread | None = None
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar = _bar()
        elif beats:
            self._beating = Thread(target=self._beat, daemon=True)
            self._beating.start()

    def log(self, line: str) -> None:
        """A line that stays, or what is done from now on: that is printed at once where it is the first word."""
        if not line.endswith(" …"):
            self.say(line, self._doing)
        else:
            self.say("" if self._doing else line, line.removesuffix(" …"))

    def round(self, done: int, total: int, line: str) -> None:
        """Round `done` of `total` is over; `line` says how it went."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        self.say(f"round {done}/{total}: {line}", f"round {min(done + 1, total)}/{total}")

    def say(self, line: str, doing: str) -> None:
        """Print `line`, unless it is empty; `doing` is what is done from now on."""
        with self._lock:
            now = time.monotonic()
            if line:
                self._said = now
            if line or doing != self._doing:
                self._silence = _SILENCE
            if doing != self._doing:
                self._doing, self._since = doing, now
            if self._bar is None:
                if line:
                    log(line)
                return
            from rich.text import Text  # whose letters are never taken for markup

            self._bar.update(self._bar.task_ids[0], description=printable(doing))
            if line:
                self._bar.console.print(Text(printable(line)))

    def _beat(self) -> None:
        while not self._over.wait(0.25):
            with self._lock:
                now = time.monotonic()
                if now - self._said >= self._silence:
                    self._said, self._silence = now, 2 * self._silence
                    log(f"{self._doing} … {now - self._since:.0f} s")

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away; what comes next is printed below what came before."""
        self._over.set()
        if self._beating is not None:
            self._beating.join()
            self._beating = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def working(doing: str) -> Iterator[None]:
    """On a terminal, show what is being done and for how long, and no trace of it afterwards."""
    with Work() as work:
        work.say("", doing)
        yield


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
    bar.add_task("", total=None)
    bar.start()
    return bar


def fields(*parts: str) -> str:
    """A line of fields with tabs between them, and in none of them."""
    return "\t".join(map(printable, parts))


def table(rows: list[tuple[str, str]], title: str) -> list[str]:
    """The lines of two aligned columns, long figures folded to the terminal's width (at least 60 columns). A label that
    would take more than a third of that has a line of its own, and its figure begins below."""
    import shutil
    import textwrap

    width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 120))
    rows = [(printable(what), printable(figure)) for what, figure in rows]
    label = max((len(what) for what, _ in rows if len(what) <= width // 3), default=2) + 2
    lines = [title, "─" * len(printable(title))]
    for what, figure in rows:
        folded = textwrap.wrap(figure, width - label) or [""]
        if len(what) + 2 > label:
            lines += [what, " " * label + folded[0]]
        else:
            lines.append(f"{what:<{label}}{folded[0]}")
        lines += [" " * label + rest for rest in folded[1:]]
    return lines
