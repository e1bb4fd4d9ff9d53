"""A federation of Flower's own programs on loopback: TLS, authenticated nodes, any process killed at any time.

Flower starts programs that start programs, some in sessions of their own. So every program of a federation carries a
mark in its environment, and what carries the mark is ended, however it came to be.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flower_keys import certificates, node_key

ROOT = Path(__file__).parents[2]
_MARK = "FLORA_SECURE_LOOPBACK"
_PROGRAMS = Path(sys.executable).parent
_CONNECTED = "SuperNode ID:"  # what a node logs then
_PROJECT = """
[project]
name = "loopback-app"
version = "1.0.0"
description = "An app of the tests"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "{name}:server"
clientapp = "{name}:client"

[tool.flwr.app.config]
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Federation:
    """Flower's server and nodes, as processes: `server`, `site0`, `site1`, …; a context that ends all of them.

    Attributes:
        folder: keys, Flower's home and the logs, one a process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._keys: dict[int, Path] = {}
        certificates(folder)
        home = folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "loop"\n\n[superlink.loop]\naddress = "127.0.0.1:{self._port}"\n'
            f'root-certificates = "{folder / "ca.crt"}"\n'
        )

    def __enter__(self) -> "Federation":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start_server(self) -> None:
        """Start `server`, and wait until it listens."""
        self.start(
            "server",
            *("flower-superlink", "--host", "127.0.0.1", "--port", str(self._port), "--enable-supernode-auth"),
            *("--ssl-certfile", self.folder / "server.pem", "--ssl-keyfile", self.folder / "server.key"),
            *("--ssl-ca-certfile", self.folder / "ca.crt", "--disable-runtime-dependency-installation"),
        )
        self._until("server", self._listens, 60)

    def enrol(self, site: int) -> None:
        """Make a key for `site` and register it at the server."""
        self._keys[site], public = self.node_key(site)
        name = f"register{site}"
        self.start(name, "flwr", "supernode", "register", public, "loop")
        if self._processes[name].wait(60) != 0:
            raise RuntimeError(f"{name} failed:\n{self.log(name)}")

    def node_key(self, site: int) -> tuple[Path, Path]:
        """The private and the public half of the node key of `site`."""
        return node_key(self.folder, f"site{site}.key")

    def node_config(self, site: int) -> str:
        """What its node is told of `site` where it is started."""
        return f"partition-id={site}"

    def node_options(self, site: int) -> tuple[object, ...]:
        """What else the node of `site` is started with."""
        return ()

    def start_site(self, site: int) -> None:
        """Start the process `siteN` of an enrolled `site`, with its number as partition-id; see `connected`."""
        self.start(
            f"site{site}",
            *("flower-supernode", "--superlink", f"127.0.0.1:{self._port}", "--port", str(free_port())),
            *("--root-certificates", self.folder / "ca.crt", "--auth-supernode-private-key", self._keys[site]),
            *("--node-config", self.node_config(site)),
            *self.node_options(site),
        )

    def connected(self, site: int) -> None:
        """Wait until the server has accepted the node of `site`."""
        self.until_logged(f"site{site}", _CONNECTED, 60)

    def restart_site(self, site: int, patience: float) -> None:
        """Start a site that was killed, again and again until Flower takes it: it refuses a node as long as the
        heartbeats of its earlier process may still come, a minute at most."""
        name, deadline = f"site{site}", time.monotonic() + patience
        before = self.log(name).count(_CONNECTED)
        while self.log(name).count(_CONNECTED) == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} was not taken again in {patience} s:\n{self.log(name)}")
            if name in self._processes and self._processes[name].poll() is not None:
                self.kill(name)  # what it has started
            if name not in self._processes:
                self.start_site(site)
            time.sleep(0.5)

    def start_run(self, module: Path, config: Mapping[str, str] | None = None) -> None:
        """Start `run`: an app of this one module, whose `server` and `client` are its parts, with this run config."""
        app = self.folder / "app"
        app.mkdir()
        shutil.copy(module, app)
        lines = (f'{key} = "{value}"\n' for key, value in (config or {}).items())
        (app / "pyproject.toml").write_text(_PROJECT.format(name=module.stem) + "".join(lines))
        self.start("run", "flwr", "run", app, "loop", "--stream")

    def finish_run(self, patience: float) -> str:
        """Wait for `run` to end, and give what it streamed; raises `TimeoutExpired` after `patience` seconds."""
        if self._processes["run"].wait(patience) != 0:
            raise RuntimeError(f"the run failed:\n{self.log('run')}")
        return self.log("run")

    def log(self, name: str) -> str:
        """All that the process of this name has written, over its starts."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until_logged(self, name: str, text: str, patience: float) -> None:
        """Wait until the process of this name has written `text`."""
        self._until(name, lambda: text in self.log(name), patience)

    def until_count(self, name: str, text: str, count: int, patience: float) -> None:
        """Wait until the process of this name has written `text` so many times, over its starts."""
        self._until(name, lambda: self.log(name).count(text) >= count, patience)

    def listed(self) -> str:
        """What `flwr ls` says of the runs, in JSON."""
        self.start("list", "flwr", "ls", "loop", "--format", "json")
        self._processes["list"].wait(60)
        return self.log("list")

    def kill(self, name: str) -> None:
        """End a process and all that it has started, as a power cut would; it can be started again."""
        for pid in self._marked(name):
            _kill(pid)
        self._processes.pop(name).wait(30)

    def kill_answering(self, site: int) -> int:
        """End the processes in which `site` answers messages, and leave its node alone; gives how many there were."""
        return self._kill_programs(f"site{site}", b"flwr-clientapp")

    def kill_hosting(self) -> int:
        """End the processes in which the server's half of the app runs; gives how many there were."""
        return self._kill_programs("server", b"flwr-serverapp")

    def _kill_programs(self, name: str, program: bytes) -> int:
        found = [pid for pid in self._marked(name) if program in _command(pid)]
        for pid in found:
            _kill(pid)
        return len(found)

    def end(self) -> None:
        """End every process of the federation; raises `RuntimeError` for one that stays."""
        deadline = time.monotonic() + 30
        while left := self._marked():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {left} of the federation stay")
            for pid in left:
                _kill(pid)
            for process in self._processes.values():
                process.poll()  # collects what has ended
            time.sleep(0.05)

    def start(self, name: str, program: str, *arguments: object) -> None:
        """Start one of Flower's programs as the process `name`."""
        environment = {
            **os.environ,
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
            "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in (".", "protocols", "cli")),
            "PYTHONUNBUFFERED": "1",
            _MARK: f"{self.folder}:{name}:",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [_PROGRAMS / program, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def _until(self, name: str, condition: Callable[[], bool], patience: float) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            for other, process in self._processes.items():
                if process.poll() not in (None, 0):
                    raise RuntimeError(f"{other} failed:\n{self.log(other)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} took longer than {patience} s:\n{self.log(name)}")
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _marked(self, name: str = "") -> list[int]:
        """Processes of this federation that live, or those of one name."""
        return marked(f"{_MARK}={self.folder}:{name + ':' if name else ''}")


def marked(beginning: str) -> list[int]:
    """Processes, other than this one, of whose environment a line begins so."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or is another user's
                continue
            if any(line.startswith(beginning.encode()) for line in environment):
                found.append(int(entry.name))
    return found


def kill_marked(pids: list[int]) -> None:
    """End processes that `marked` found."""
    for pid in pids:
        _kill(pid)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
