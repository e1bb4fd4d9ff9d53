"""`flora-secure vectors` as a person meets it; and that what it compares with is in the wheel."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from command import ENVIRONMENT, PROGRAM, flora_here

from flora_cli.vectors import IN_A_CHECKOUT, IN_A_WHEEL

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "protocols/vectors"
NAMES = sorted(path.name for path in SHIPPED.iterdir())


def run(*arguments, environment=ENVIRONMENT):
    """In a fresh process."""
    command = [*PROGRAM, "vectors", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def copies(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    return tmp_path


def test_the_shipped_vectors_are_the_same():
    for arguments in ((), ("--check",)):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{len(NAMES)} of {len(NAMES)} vectors in {SHIPPED} are the same, byte for byte\n"


def test_written_vectors_are_the_shipped_ones(tmp_path):
    folder = tmp_path / "some" / "where"
    done = run("--write", folder, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"directory": str(folder), "written": NAMES}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: (SHIPPED / name).read_bytes() for name in NAMES
    }
    assert run("--dir", folder).returncode == 0


def test_differences_are_named(copies):
    """A changed byte, a file that is missing, one too many, another line ending: exit code 1."""
    changed = (copies / "good-harary.json").read_bytes().splitlines(keepends=True)
    changed[40] = changed[40].replace(b"6", b"7", 1)
    (copies / "good-harary.json").write_bytes(b"".join(changed))
    (copies / "good-complete.json").write_bytes((copies / "good-complete.json").read_bytes() + b"\n")
    lines = (copies / "primitives.json").read_bytes().replace(b"\n", b"\r\n")
    (copies / "primitives.json").write_bytes(lines)
    (copies / "bad-inbox.json").unlink()
    (copies / "more.json").write_text("{}")
    (copies / "notes.txt").write_text("not a vector")
    end = len((SHIPPED / "good-complete.json").read_bytes().splitlines()) + 1
    different = {
        "bad-inbox.json": "bad-inbox.json is missing",
        "good-complete.json": f"good-complete.json differs, first in line {end}",
        "good-harary.json": "good-harary.json differs, first in line 41",
        "more.json": "more.json is not one of the vectors",
        "primitives.json": "primitives.json differs, first in line 1",
    }
    done = run("--dir", copies)
    assert (done.returncode, done.stderr) == (1, "")
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{len(NAMES) - 4} of {len(NAMES) + 1} vectors in {copies} are the same")
    assert rest == list(different.values())
    done = flora_here("vectors", "--dir", copies, "--json", cwd=copies)
    assert done.returncode == 1
    same = [name for name in NAMES if name not in different]
    assert json.loads(done.stdout) == {"directory": str(copies), "same": same, "different": different}


def test_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, text in (
        (("--dir", tmp_path / "nowhere"), "nowhere cannot be read: No such file"),
        (("--write", tmp_path / "file"), "file cannot be written: File exists"),
        (("--write", tmp_path / "x", "--check"), "without --check"),
        (("--write", tmp_path / "x", "--dir", tmp_path), "without --check and --dir"),
        (("--wriet", tmp_path), "No such option"),
    ):
        done = flora_here("vectors", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_an_installed_package_finds_its_vectors(tmp_path):
    """The wheel puts the files where the command looks for them; here the same is done by hand."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel["force-include"] == {"protocols/vectors": f"flora_protocols/{IN_A_WHEEL}"}
    assert (ROOT / "protocols/flora_protocols" / IN_A_CHECKOUT).resolve() == SHIPPED
    package = tmp_path / "flora_protocols"
    package.mkdir()
    for path in (ROOT / "protocols/flora_protocols").iterdir():
        (package / path.name).symlink_to(path)
    (package / IN_A_WHEEL).symlink_to(SHIPPED)
    path = os.pathsep.join(map(str, (tmp_path, ROOT / "cli", ROOT)))
    done = run("--json", environment={**ENVIRONMENT, "PYTHONPATH": path})
    assert done.returncode == 0
    assert json.loads(done.stdout)["directory"] == str(package / IN_A_WHEEL)
