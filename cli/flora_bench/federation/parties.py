"""One process of the soak: its server or one of its sites, which may be told to die at a write, a message or a trip.

    python -m flora_bench.federation.parties '{"role": "site", …}'

It dies as by kill -9, inside the call: half a write is on disk, or a reply is made and not sent.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flora_bench.federation.given import TERMS, GivenTraining, config_of, policy_of, task_of
from flora_secure.client.client import Client
from flora_secure.engine.deployed.coordinator import Coordinator
from flora_secure.engine.deployed.keys.enrolment_file import read_enrolment
from flora_secure.engine.deployed.keys.identity import read_identity
from flora_secure.engine.deployed.masked_rounds import Patience
from flora_secure.engine.deployed.site import Site
from flora_secure.engine.recorded import begin, go_on
from flora_secure.engine.tls.certificates import TlsFiles
from flora_secure.engine.tls.connection import Timing
from flora_secure.engine.tls.joining import join
from flora_secure.engine.tls.server import TlsTransport
from flora_secure.records import durable
from flora_secure.records.run_folder import remove_unborn, reopen
from flora_secure.rounds.reply import encode_reply
from flora_secure.rounds.sum import Outcome
from flora_secure.server.server import Server

HOST, SITES, TOLERANCE = "127.0.0.1", 3, 0.34
TIMING = Timing(beat=1.0, silence=5.0, pause=0.05, most_pause=0.5)
DEAD = 77  # exit code of a process that ended itself
_TRIES = 20  # at finding enough sites that answer, before the rounds
_ALONE = 60.0  # seconds that a site looks for its server


@dataclass(frozen=True, kw_only=True)
class Life:
    """What one process is, and how it ends: a line of JSON.

    Attributes:
        role, number: "server", or "site" and which.
        folder: of the federation, as `keys.credentials.make_federation` leaves it.
        port, sites, rounds, dimension: of the run.
        training, trip: the server's patience, in seconds.
        write: the change of a file at which the process dies, counted from 1; 0 for none.
        message: of a site, the message at which it dies or does what `spoil` says; of a server, the exchange.
        spoil: what a site does at that message: "die before", "die after", "garbage", "flipped", "earlier", "slow".
    """

    role: str
    number: int
    folder: str
    port: int
    rounds: int
    dimension: int
    training: float
    trip: float
    sites: int = SITES
    write: int = 0
    message: int = 0
    spoil: str = ""


class _MortalOs:
    """`os` as `records.durable` uses it; the process ends at one of the calls that change a file or a name."""

    def __init__(self, fatal: int) -> None:
        self._left = fatal

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("write", "replace", "rename", "unlink"):
            return real

        def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                _die()
            return real(*arguments)

        return call


def _die() -> None:
    os._exit(DEAD)  # nothing is flushed or closed, as where the system ends a process


def _log(line: str) -> None:
    print(line, flush=True)


def _files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(folder / "ca.crt", folder / f"{name}.pem", folder / f"{name}.key")


def site(life: Life) -> None:
    """Be a site until the federation is over. Raises NetworkError where the server does not come back."""
    root = Path(life.folder)
    folder = root / "sites" / f"site{life.number}"
    config = config_of(life.sites, life.rounds, TOLERANCE)
    _keep_vectors(root / "vectors")
    own = Site(
        folder,
        config,
        read_enrolment(root / "enrolment.toml"),
        read_identity(folder / "identity.key"),
        policy_of(config),
        lambda: GivenTraining(life.dimension, life.number),
        _log,
    )
    join(
        HOST, life.port, _files(folder, "client"), _mischief(life, own.answer), patience=_ALONE, timing=TIMING, log=_log
    )


def _keep_vectors(folder: Path) -> None:
    """Have every upload, before it is masked, written down for the server's check. Once more where it is made anew:
    an upload that was made and not kept has not left."""
    given = Client._vector

    def vector(self: Client, invitation: Any, adapter: bytes) -> Any:
        made = given(self, invitation, adapter)
        path = folder / f"{invitation.round}-{self.number}.npy"
        np.save(path.with_suffix(".tmp.npy"), made)
        os.replace(path.with_suffix(".tmp.npy"), path)
        return made

    Client._vector = vector  # type: ignore[method-assign]


def _mischief(life: Life, answer: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """`answer`, which does something else at one message."""
    seen, earlier = 0, b""

    def answered(message: bytes) -> bytes:
        nonlocal seen, earlier
        seen += 1
        what = life.spoil if seen == life.message else ""
        if what == "die before":
            _die()
        reply = answer(message)
        if what == "die after":
            _die()
        if what == "slow":
            time.sleep(1.2 * max(life.training, life.trip))
        dice = random.Random(life.message)  # noqa: S311  (what it spoils is no secret)
        spoiled = {
            "garbage": lambda: encode_reply(dice.randbytes(1000)),
            "flipped": lambda: reply[:-5] + bytes([reply[-5] ^ 1]) + reply[-4:] if len(reply) > 5 else b"\0",
            "earlier": lambda: earlier,
        }.get(what, lambda: reply)()
        earlier = reply
        return spoiled

    return answered


def server(life: Life) -> None:
    """Run the rounds that are left, and say good-bye. Each round's memory and every sum's check go to files."""
    root = Path(life.folder)
    out, enrolment, config = (
        root / "run",
        read_enrolment(root / "enrolment.toml"),
        config_of(life.sites, life.rounds, TOLERANCE),
    )
    _check_sums(root)
    transport = _Mortal(
        HOST, life.port, _files(root / "certs", "server"), life.sites, timing=TIMING, absence=life.trip, log=_log
    )
    transport.life = life
    with closing(transport):
        transport.wait_for(range(life.sites), 2, _ALONE)
        running = Server(config, task_of(life.dimension), enrolment)
        coordinator = Coordinator(running, TERMS, transport, Patience(life.training, life.trip), _log)
        for _ in range(_TRIES):
            if len(coordinator.check()) >= running.plan.survivors_minimum:
                break
        remove_unborn(out)
        there = (out / "config.toml").exists()
        recorded = go_on(coordinator, reopen(out)) if there else begin(coordinator, out)
        since = time.monotonic()
        for record in recorded.rounds():
            now = time.monotonic()
            _note(root / "rounds", {"round": record.round, "seconds": now - since, "memory": _memory()})
            since = now
            _log(f"round {record.round}: {record.line}")
        coordinator.farewell()
        transport.dismiss()


class _Mortal(TlsTransport):
    """The transport of a process that dies inside its n-th exchange, when one site has answered."""

    life: Life
    _exchanges = 0

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        """As `TlsTransport.exchange`."""
        self._exchanges += 1
        for reply in super().exchange(outbox, patience):
            if self._exchanges == self.life.message:
                _die()
            yield reply


def _check_sums(root: Path) -> None:
    """Have every sum compared with the vectors of its survivors, before anything is made of it."""
    finish = Server.finish

    def finished(self: Server, invitation: Any, outcome: Outcome) -> Any:
        if (found := outcome.sum) is not None:
            rows = [np.load(root / "vectors" / f"{invitation.round}-{client}.npy") for client in found.survivors]
            expected = np.sum(rows, axis=0, dtype=np.uint32) & np.uint32((1 << invitation.plan.bits) - 1)
            right = bool(np.array_equal(expected, found.total))
            _note(root / "sums", {"round": invitation.round, "survivors": list(found.survivors), "right": right})
        return finish(self, invitation, outcome)

    Server.finish = finished  # type: ignore[method-assign]


def _note(path: Path, table: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(table) + "\n")


def _memory() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Live the life that the command line tells."""
    life = Life(**json.loads(sys.argv[1]))
    if life.write:
        durable.__dict__["os"] = _MortalOs(life.write)
    with suppress(KeyboardInterrupt):
        (server if life.role == "server" else site)(life)


if __name__ == "__main__":
    main()
