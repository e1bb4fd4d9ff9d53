"""The commands of README.md's federation, as they stand there, run in a folder as a person would run them."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from flower_loopback import ROOT, free_port, kill_marked, marked

_BLOCK = re.compile(r"<!-- command: federation (\w+) -->\n```sh\n(.*?)\n```", re.DOTALL)
_MARK = "FLORA_SECURE_README"
SERVER, NODES = 8000, 9100  # the server's port, and the first of the three nodes'


def commands() -> dict[str, str]:
    """The blocks of README.md by name."""
    return dict(_BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")))


def _ports() -> tuple[int, int]:
    """README's ports where they are free, else others that are: the server's, and the first of the nodes'."""
    server, nodes = SERVER, NODES
    while not all(map(_free, (server, nodes, nodes + 1, nodes + 2))):
        server, nodes = free_port(), free_port()
    return server, nodes


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Person:
    """Somebody who types README's commands in `folder`. A context; every program that was started ends with it.

    Ports are README's where they are free, and others where they are taken; `server` is that of Flower's server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks = commands()
        self._started: list[subprocess.Popen[bytes]] = []
        programs = folder / "bin"
        programs.mkdir()
        tool = programs / "flora-secure"  # where the package is tested from its sources
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m flora_cli.main "$@"\n')
        tool.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in (".", "protocols", "cli")),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",  # Flower's programs look for work more often
            _MARK: str(folder),
        }
        self.server, self._nodes = _ports()

    def __enter__(self) -> "Person":
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + 30
        while left := marked(f"{_MARK}={self.folder}"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {left} stay")
            kill_marked(left)
            for process in self._started:
                process.poll()
            time.sleep(0.05)

    def text(self, name: str) -> str:
        """A block with its environment, in one shell."""
        block = f"{self._blocks['environment']}\n{self._blocks[name]}"
        for before in ("127.0.0.1:", "--port "):
            block = block.replace(f"{before}{SERVER}", f"{before}{self.server}")
        return block.replace("--port 910$site", f"--port $(({self._nodes} + $site))")

    def start(self, name: str) -> None:
        """Type a block in a terminal of its own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started.append(
                subprocess.Popen(
                    ["bash", "-euo", "pipefail", "-c", self.text(name)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    cwd=self.folder,
                    start_new_session=True,
                )
            )

    def do(self, name: str, patience: float) -> str:
        """Type a block and wait for it to end well; gives what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.text(name)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd=self.folder,
            timeout=patience,
        )
        said = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise RuntimeError(f"{name} ended with {done.returncode}:\n{said}\n{self.logs()}")
        return said

    def until(self, name: str, text: str, count: int, patience: float) -> None:
        """Wait until the log of a started block has `text` so many times."""
        deadline = time.monotonic() + patience
        while self.log(name).count(text) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} took longer than {patience} s:\n{self.logs()}")
            time.sleep(0.1)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in self.folder.glob("*.log"))
