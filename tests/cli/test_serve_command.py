"""`serve` and `join` as commands: what they refuse in a line, and the federation of four processes in the README."""

import re
import shlex
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from command import ENVIRONMENT, PROGRAM, flora_here, said
from pilots import Pilot

import flora_secure

ROOT = Path(__file__).parents[2]


def commands(block: str) -> str:
    """A block of the README's pilot."""
    found = re.search(
        rf"<!-- command: pilot {block} -->\n```sh\n(.*?)```",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert found
    return found[1]


BAD = {
    "no such place": (["join", "app", "--site", "sites/site0", "server"], "HOST:PORT"),
    "no such port": (["join", "app", "--site", "sites/site0", "server:70000"], "HOST:PORT"),
    "no such site": (["join", "app", "--site", "nowhere", "127.0.0.1:1"], "nowhere is no folder"),
    "no patience": (["join", "app", "--site", "sites/site0", "127.0.0.1:1", "--patience", "0"], "--patience 0"),
    "no server": (["join", "app", "--site", "sites/site0", "127.0.0.1:1", "--patience", "0.1"], "no server for 0.1 s"),
    "no certificates": (["serve", "app", "--server", "sites/site0"], "flora-secure flower certs"),
    "no wait": (["serve", "app", "--server", ".", "--wait", "nan"], "--wait nan"),
    "no app": (["serve", "sites", "--server", "."], "config.toml"),
    "too few": (
        ["serve", "app", "--server", ".", "--port", "0", "--host", "127.0.0.1", "--wait", "0.1"],
        "0 of 3 sites",
    ),
}


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Pilot:
    return Pilot(tmp_path_factory.mktemp("pilots") / "pilot")


@pytest.mark.parametrize(("words", "line"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line(pilot: Pilot, words: list[str], line: str) -> None:
    done = flora_here(*words, cwd=pilot.server)
    assert done.returncode == 2
    assert done.stdout == ""
    last = said(done)[-1]
    assert last.startswith("flora-secure: ")
    assert line in last
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_readme_s_federation_runs_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    tool = shlex.join(PROGRAM)
    prepare = f'flora-secure() {{ {tool} "$@"; }}\n{commands("prepare")}'
    subprocess.run(["bash", "-euc", prepare], cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=120)
    lines = [shlex.split(line.replace("8443", port))[1:] for line in commands("run").splitlines()]
    served = next(words for words in lines if words[0] == "serve")
    joining = [
        subprocess.Popen([*PROGRAM, *words], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        for words in lines if words[0] == "join"
    ]  # fmt: skip
    assert len(joining) == 3
    first = subprocess.Popen([*PROGRAM, *served], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(200, first.kill)
    timer.start()
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("round 1/3"):
            first.send_signal(signal.SIGINT)
            break
    rest = first.stderr.read()
    timer.cancel()
    assert first.wait(60) == 130
    assert "go on with the same command" in rest
    again = subprocess.run(
        [*PROGRAM, *served, "--json"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("{")
    for process in joining:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out.startswith("adapter pilot/sites/site")
    assert flora_secure.audit(tmp_path / "pilot/server/run").passed
