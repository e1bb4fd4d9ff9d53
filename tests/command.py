"""The command line as tests call it: in a fresh process, or in theirs where a fresh interpreter is not the point."""

import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

from flora_cli.main import run

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-c", "from flora_cli.main import run; run()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in (".", "protocols", "cli"))}


def flora(*arguments: object, cwd: Path, program: str = PROGRAM[-1], **options) -> subprocess.CompletedProcess[str]:
    """A fresh process: real pipes, real exit code, and all that an import or an exit may print. Seconds where torch is
    needed. `program`: what it runs in place of the console script."""
    command = [*PROGRAM[:-1], program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=300, **options)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on stderr without those that only say, on a slow machine, that the work goes on."""
    return [line for line in done.stderr.splitlines() if not re.search(r" … \d+ s$", line)]


def flora_here(
    *arguments: object, cwd: Path, stdout: TextIO | None = None, stderr: TextIO | None = None
) -> subprocess.CompletedProcess[str]:
    """The console script in this process: what it prints, and its exit code, without the seconds of importing torch.
    `stdout`, `stderr`: where it prints, for "" in the answer."""
    out, err = io.StringIO(), io.StringIO()
    command = ["flora-secure", *map(str, arguments)]
    code: object = None
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(stdout or out),
        contextlib.redirect_stderr(stderr or err),
        patch.object(sys, "argv", command),
        warnings.catch_warnings(),  # the script decides for its whole process which are shown
    ):
        try:
            run()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
