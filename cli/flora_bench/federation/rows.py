"""`bench federation`: what a round of a deployed federation costs, and what goes over the line.

Contributions are given, so that engines are measured and no training. A section an engine: those that are not
installed are said and left out.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from threading import Thread

from flora_bench.federation.engine_rows import flower_rows
from flora_bench.federation.given import TERMS, GivenTraining, config_of, policy_of, task_of
from flora_bench.measure import Row, Scale
from flora_protocols import Kind, identity_public, round_bytes
from flora_secure.client.client import Client
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.store import MemoryStore
from flora_secure.engine.deployed.coordinator import Coordinator
from flora_secure.engine.deployed.keys.certificates import Authority, Pair
from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.engine.deployed.masked_rounds import Patience
from flora_secure.engine.tls.certificates import TlsFiles
from flora_secure.engine.tls.joining import Joiner, join, join_all
from flora_secure.engine.tls.server import TlsTransport
from flora_secure.errors import NetworkError
from flora_secure.planning.config import override
from flora_secure.records.durable import PRIVATE
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.reply import REPLY_BYTES, encode_reply
from flora_secure.server.server import Server

SECAGG_PLUS = 8.13  # bytes a value that a client of Flower's SecAgg+ sends up, as measured: docs/benchmarks.md
_HOST, _LONG = "127.0.0.1", 600.0
_INVITATION = 500  # bytes


def rows(scale: Scale) -> Iterator[Row]:
    """Yields every row of the subject as soon as it is measured."""
    yield from tls_rounds(scale)
    yield from upload_sizes(scale)
    yield from server_start()
    yield from flower_rows(scale)


def tls_rounds(scale: Scale) -> Iterator[Row]:
    """A round in a session that is set up, server and all clients on this machine, over TLS; and its invitations."""
    sizes = {Scale.QUICK: [(4, 100)], Scale.DEFAULT: [(100, 1_920)], Scale.FULL: [(100, 1_920), (1_000, 1_920)]}[scale]
    for clients, dimension in sizes:
        taken = _Prepared(clients, dimension, 2 if scale is Scale.QUICK else 6).run()
        setting = f"asyncio, n={clients:,} d={dimension:,}, one process"
        yield Row(
            figure="prepared round by the clock",
            setting=setting,
            ours=median(taken.wall[1:]),
            other=0.5 * max(1, clients // 100) * (1.2 if clients >= 1_000 else 1),
            against="the design",
            at_most=1.0,
            note=f"CPU of all parties {median(taken.cpu[1:]):.2f} s; the first, with its set-up, {taken.wall[0]:.1f} s",
        )
        yield Row(
            figure="invitation, first round",
            setting=f"n={clients:,}",
            ours=taken.invitations[0],
            other=_INVITATION,
            against="the design",
            unit="B",
            at_most=1.0,
            note=f"{taken.invitations[0]:.0f} bytes a client, and {taken.invitations[1]:.0f} in a later round",
        )


class _Prepared:
    """A federation in this process: one transport, and clients that keep their places in memory."""

    def __init__(self, clients: int, dimension: int, rounds: int) -> None:
        self._config = config_of(clients, rounds, 0.34 if clients < 20 else 0.1)
        self._identities = [secrets.token_bytes(32) for _ in range(clients)]
        self._enrolment = Enrolment(clients=clients, identities=tuple(map(identity_public, self._identities)))
        self._dimension = dimension
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.invitations: list[float] = []

    def run(self) -> _Prepared:
        """Run the rounds, measuring each."""
        clients = self._enrolment.clients
        with tempfile.TemporaryDirectory(prefix="flora-bench-") as scratch:
            folder, authority = Path(scratch), Authority.new()
            (folder / "ca.crt").write_bytes(authority.pair().public)
            transport = TlsTransport(
                _HOST, 0, _written(folder, "server", authority.server([])), clients, log=lambda line: None
            )
            joiners = [
                Joiner(_written(folder, f"client-{number}", authority.client(number)), self._answers(number))
                for number in range(clients)
            ]
            joined = Thread(target=_joined, args=(transport.port, joiners), daemon=True)
            with closing(transport):
                joined.start()
                transport.wait_for(range(clients), clients, _LONG)
                server = Server(self._config, task_of(self._dimension), self._enrolment)
                rounds = Coordinator(server, TERMS, transport, Patience(_LONG, _LONG), lambda line: None).rounds()
                for _ in range(self._config.training.rounds):
                    cpu, wall, sent = time.process_time(), time.perf_counter(), server.invitation_bytes
                    record = next(rounds)
                    self.cpu.append(time.process_time() - cpu)
                    self.wall.append(time.perf_counter() - wall)
                    self.invitations.append((server.invitation_bytes - sent) / clients)
                    if len(record.survivors) != clients:
                        raise RuntimeError(f"round {record.round}: {len(record.survivors)} of {clients} are in the sum")
                transport.dismiss()
            joined.join()
        return self

    def _answers(self, number: int) -> _Answers:
        return _Answers(
            Client(
                enrolment=self._enrolment,
                number=number,
                policy=policy_of(self._config),
                trainer=GivenTraining(self._dimension, number),
                ledger=ClientLedger(None),
                store=MemoryStore(),
                model_hash=bytes(32),
                identity=self._identities[number],
            )
        )


class _Answers:
    """A client's answers in the envelope of a site."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, message: bytes) -> bytes:
        return encode_reply(self._client.answer(message))


def _joined(port: int, joiners: list[Joiner]) -> None:
    join_all(_HOST, port, joiners, threads=1, log=lambda line: None)


def _written(folder: Path, name: str, pair: Pair) -> TlsFiles:
    files = TlsFiles(folder / "ca.crt", folder / f"{name}.pem", folder / f"{name}.key")
    files.certificate.write_bytes(pair.public)
    files.key.touch(PRIVATE)
    files.key.write_bytes(pair.secret)
    return files


def upload_sizes(scale: Scale) -> Iterator[Row]:
    """Bytes of an upload, envelope included, beside those of Flower's SecAgg+."""
    dimension = 1_000 if scale is Scale.QUICK else 100_000
    for clients in (3, 100):
        tolerance = 0.34 if clients < 20 else 0.1
        identities = tuple(identity_public(bytes([1, client]) * 16) for client in range(clients))
        enrolment = Enrolment(clients=clients, identities=identities)
        config = config_of(clients, 20, tolerance)
        if scale is not Scale.QUICK:  # where short updates need more
            config = override(config, {"privacy.bits": 8})
        server = Server(config, task_of(dimension), enrolment)
        params = server.invite().params
        assert params is not None
        padded = f"; the rotation pads to {params.dimension:,} values" if params.dimension > dimension else ""
        yield Row(
            figure="upload of a client",
            setting=f"n={clients} d={dimension:,} {params.bits} bits",
            ours=round_bytes(params)[Kind.UPLOAD] + REPLY_BYTES,
            other=SECAGG_PLUS * dimension,
            against="Flower's SecAgg+",
            unit="B",
            at_least=7.0,
            note=f"{SECAGG_PLUS} bytes a value, measured: docs/benchmarks.md{padded}",
        )


_SERVE = """\
import os, sys, time
from pathlib import Path
import flora_cli.main
from flora_secure.engine.deployed.folders import App
from flora_secure.engine.deployed.over_tls import serve
folder = Path(sys.argv[1])
def log(line):
    if line.startswith("listens"):
        print(line.rpartition(" ")[2], flush=True)
    if "is connected" in line:
        print(time.process_time(), flush=True)
        os._exit(0)
serve(App(folder), folder, host="127.0.0.1", port=0, certificates=folder / "certs", out=folder / "run",
      patience=60, trip_patience=60, wait=60, progress=None, log=log)
"""
_DATA = """\
import numpy as np
from flora_secure import PartyData
def server_images(folder):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    return PartyData(["a", "b"], [(image, i % 2) for i, image in enumerate(images)])
"""


def server_start() -> Iterator[Row]:
    """CPU of `flora-secure serve` up to the first site that is connected, interpreter and test images included."""
    with tempfile.TemporaryDirectory(prefix="flora-bench-") as scratch:
        folder = Path(scratch)
        make_federation(folder, 3)
        (folder / "config.toml").write_text(config_of(3, 3, 0.34).to_toml(), encoding="utf-8")
        (folder / "data.py").write_text(_DATA, encoding="utf-8")
        taken = [_start_once(folder) for _ in range(3)]
    yield Row(
        figure="server, before its first byte to a site",
        setting="asyncio, n=3",
        ours=median(taken),
        other=1.0,
        against="the design",
        at_most=1.0,
        note="torch, the model and the accountants come after",
    )


def _start_once(folder: Path) -> float:
    command = [sys.executable, "-c", _SERVE, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    assert process.stdout is not None
    try:
        port, site = int(process.stdout.readline()), folder / "sites" / "site0"
        files = TlsFiles(site / "ca.crt", site / "client.pem", site / "client.key")
        with suppress(NetworkError):
            join(_HOST, port, files, lambda message: b"", patience=0.2, log=lambda line: None)
        return float(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
