"""What is seen of work that takes a while: lines that stay, and that it still goes on."""

from __future__ import annotations

import io
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from command import flora_here

from flora_cli import output
from flora_cli.output import Work

pty = pytest.importorskip("pty")


def terminal(*arguments: str, cwd: Path) -> tuple[str, int]:
    """What a terminal is sent on stderr, and the exit code."""
    ours, theirs = pty.openpty()
    sent = b""

    def listen() -> None:
        nonlocal sent
        with suppress(OSError):  # nobody holds the other end any more
            while piece := os.read(ours, 1 << 16):
                sent += piece

    listener = Thread(target=listen)
    listener.start()
    with os.fdopen(theirs, "w") as stream:
        done = flora_here(*arguments, cwd=cwd, stderr=stream)
    listener.join(60)
    os.close(ours)
    return sent.decode(), done.returncode


def test_a_run_on_a_terminal_keeps_its_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    flags = ["simulate", "--dataset", "digits", "--clients", "4", "--rounds", "3", "--epsilon", "inf"]
    sent, code = terminal(*flags, "--no-feature-cache", cwd=tmp_path)  # embedding takes as long as it can be seen
    assert code == 0, sent
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip("\r").rpartition("\r")[2] for line in sent.split("\n")]
    for number in (1, 2, 3):
        assert [line for line in lines if line.startswith(f"round {number}/3: accuracy")]
    assert "embedding images" in sent


def test_silence_is_broken_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(output, "_SILENCE", 0.3)
    with Work(beats=True) as work:
        work.log("loading …")
        work.log("embedding images …")
        time.sleep(0.9)
        work.round(1, 2, "done")
    first, *beats, last = stream.getvalue().splitlines()
    assert first == "loading …"
    assert beats
    assert all(re.fullmatch(r"embedding images … \d s", beat) for beat in beats)
    assert last == "round 1/2: done"


def test_it_is_said_ever_more_seldom_that_the_same_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 1, 2, 4 … silences: a file of an hour's loading has a dozen lines of it, and not 1,440."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(output, "_SILENCE", 0.25)
    with Work(beats=True) as work:
        work.log("loading …")
        time.sleep(2.4)
        assert 1 <= len(stream.getvalue().splitlines()) - 1 <= 3
        work.log("embedding images …")  # something else: that it goes on is said as soon as at first
        time.sleep(0.9)
    assert re.search(r"\nembedding images … \d s\n", stream.getvalue())
