"""Output that cannot be written: one line where there is somebody to read it, and never a run that ends for its log."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command import ENVIRONMENT, PROGRAM

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
    warned = "P plan --delta 0.1"  # warns that δ is large
    assert "warning" in shell(warned).stderr
    done = shell(f"{warned} {redirect}")
    assert done.returncode == 0
    assert done.stdout.startswith("flora-secure plan\n")
    assert "warning" not in done.stdout
    assert shell(f"P plan --epsilon 0 {redirect}").returncode == 2
