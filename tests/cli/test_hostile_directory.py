"""What lies in the working directory is data: no module is taken from there, by any command or any process of one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import ENVIRONMENT, ROOT
from PIL import Image

from flora_secure.boundary import processes
from flora_secure.data.files import decoding
from flora_secure.engine.workers import Workers

WORDS = (
    "numpy PIL torch json flora_secure flora_protocols flora_bench typing struct pickle multiprocessing concurrent "
    "cryptography safetensors scipy sklearn rich typer re random hashlib signal sitecustomize usercustomize"
)
NAMES = WORDS.split()
# the console script of an installation: its own folder is on the path, not the working directory
SCRIPT = """
import sys
from contextlib import suppress
from unittest.mock import patch
from flora_cli.main import run
for line in open(sys.argv[1]).read().splitlines():
    with patch.object(sys, "argv", ["flora-secure", *line.split()]):
        try:
            run()
        except SystemExit as end:
            assert end.code == 0, (line, end.code)
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    """A working directory whose modules leave a mark when they are imported."""
    folder, marks = tmp_path / "hostile", tmp_path / "marks"
    folder.mkdir()
    marks.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()\n")
    yield folder
    assert not [mark.name for mark in marks.iterdir()]


def test_no_command_takes_a_module_from_there(hostile: Path, tmp_path: Path) -> None:
    """In the C locale, where none may print what that cannot show, or read a file as if it was of that."""
    images = tmp_path / "images"
    for number in range(140):  # more than are decoded in one process
        place = images / ("train" if number < 120 else "test") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (28, 28, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    commands = (
        "simulate --dataset digits --clients 40 --rounds 1 --out ../masked --no-feature-cache",  # worker processes
        f"simulate --dataset folder --data-root {images} --clients 4 --partition iid --rounds 1 --out ../own "
        "--no-feature-cache --epsilon inf",
        "plan --json",
        "audit ../masked",
        f"predict ../own {images / 'test'}",
        "export ../own ../exported",
        "vectors",
        "bench --help",
        "simulate --resume ../masked",
    )
    script, lines = tmp_path / "bin" / "flora-secure", tmp_path / "commands"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    lines.write_text("\n".join(commands))
    environment = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, script, lines], cwd=hostile, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"accuracy" in done.stdout
    assert done.stdout.isascii()


def test_the_module_takes_none_from_there_either(hostile: Path) -> None:
    for module in NAMES:
        if module.startswith("flora_") or module.endswith("customize"):  # which Python itself takes first
            (hostile / f"{module}.py").unlink()
    command = [sys.executable, "-m", "flora_cli.main", "plan", "--json"]
    done = subprocess.run(command, cwd=hostile, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"schema"' in done.stdout


def test_a_process_of_a_program_whose_path_has_the_directory_takes_none(hostile: Path, monkeypatch) -> None:
    """As a notebook's has."""
    monkeypatch.chdir(hostile)
    monkeypatch.setattr(sys, "path", ["", str(hostile), *sys.path])
    workers = Workers(1)
    worker = workers._workers[0]
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(60) == 0  # it has imported all that it needs, and ended with its requests
    workers.close()
    monkeypatch.setattr(decoding, "_FEW", 1)
    with decoding.mapper(40) as over:
        assert list(over(abs, iter(range(-40, 0)))) == list(range(40, 0, -1))
    assert sys.path[:2] == ["", str(hostile)]
    assert "PYTHONSAFEPATH" not in os.environ


def test_the_path_of_a_fresh_interpreter(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), str(ROOT)])
    monkeypatch.chdir(tmp_path)
    assert processes.module_path() == [str(ROOT)]
    monkeypatch.chdir(ROOT)  # whose modules are the ones that run
    assert processes.module_path() == [str(tmp_path), str(ROOT)]
