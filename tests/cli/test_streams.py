"""Output that cannot be written: one line where there is somebody to read it, and never a run that ends for its log."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from command import ENVIRONMENT, PROGRAM, flora_here

from flora_cli.output import Work, emit, emit_json, fail, fields, log, table

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """The program, called P in `command`, in a shell that can close and redirect its streams."""
    line = command.replace("P", '"$0" "$1" "$2"', 1)
    return subprocess.run(["sh", "-c", line, *PROGRAM], env=ENVIRONMENT, capture_output=True, text=True)


@FULL
@pytest.mark.parametrize("what", ["--version", "--help", "plan --help", "plan"])
def test_a_full_disk_behind_whatever_is_printed(what: str) -> None:
    done = shell(f"P {what} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("flora-secure: the ")
    assert done.stderr.endswith(": No space left on device\n")
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_stdout_is_one_line() -> None:
    done = shell("P plan >&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flora-secure: the result cannot be printed: standard output is closed\n"


@FULL
@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_what_cannot_be_logged_ends_nothing(redirect: str) -> None:
    assert "warning" in flora_here("plan", "--delta", "0.1", cwd=Path.cwd()).stderr  # that δ is large
    done = shell(f"P plan --delta 0.1 {redirect}")
    assert done.returncode == 0
    assert done.stdout.startswith("flora-secure plan\n")
    assert "warning" not in done.stdout
    assert shell(f"P plan --epsilon 0 {redirect}").returncode == 2


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("what", ["--help", "simulate --help", "plan", "plan --json", "plan --delta 0.1", "vectors"])
def test_what_a_terminal_cannot_show_ends_nothing(encoding: str, what: str, tmp_path: Path) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    done = flora_here(*what.split(), cwd=tmp_path, stdout=streams[0], stderr=streams[1])
    text, errors = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    assert done.returncode == 0, errors
    assert "Traceback" not in errors
    assert text
    if "--json" in what:
        assert json.loads(text)["schema"] == "flora-secure/plan/1"


def test_a_whole_process_writes_what_its_streams_can_hold() -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*PROGRAM, "plan", "--delta", "0.1"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"warning: delta 0.1 is not below 1/clients" in done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert b"?" in done.stdout  # in the place of a Greek letter


def shown(print_all: Callable[[], None]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as stream, contextlib.redirect_stderr(stream):
        print_all()
    return stream.getvalue()


HOSTILE = "\x1b[2J\x9b31m\u202e\r\n\tresult PASSED [red]x[/red] \udcff"


def _print_hostile() -> None:
    emit(*table([("what" + HOSTILE, "figure" + HOSTILE)], "title" + HOSTILE))
    emit("line" + HOSTILE, fields("name" + HOSTILE, "other"))
    emit_json(json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False, indent=2))
    log("log" + HOSTILE)
    with Work() as work:
        work.log("line" + HOSTILE)
        work.round(1, 2, HOSTILE)
    with pytest.raises(typer.Exit):
        fail("message" + HOSTILE)


def test_nothing_that_is_printed_is_a_command_to_the_terminal() -> None:
    text = shown(_print_hostile)
    assert all(letter.isprintable() or letter in "\n\t" for letter in text)
    assert not any(line.startswith("result PASSED") for line in text.splitlines())
    assert text.count("[red]x[/red]") == 11


def test_json_stays_what_it_says() -> None:
    document = {"a": HOSTILE, "b": "ε 🜁"}
    assert json.loads(shown(lambda: emit_json(json.dumps(document, ensure_ascii=False)))) == document
