"""A federation of sites that train nothing: in this process over wires, or each a process of its own over TLS."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from command import ENVIRONMENT

from flora_bench.federation.given import TERMS, GivenTraining, config_of, policy_of, task_of
from flora_bench.federation.parties import HOST, TIMING, TOLERANCE, Life
from flora_secure.engine.deployed.coordinator import Coordinator
from flora_secure.engine.deployed.keys.credentials import make_federation
from flora_secure.engine.deployed.keys.enrolment_file import read_enrolment
from flora_secure.engine.deployed.keys.identity import read_identity
from flora_secure.engine.deployed.masked_rounds import Patience
from flora_secure.engine.deployed.site import Site
from flora_secure.engine.deployed.transport import Transport
from flora_secure.engine.tls.certificates import TlsFiles
from flora_secure.engine.tls.server import TlsTransport
from flora_secure.rounds.sum import Outcome
from flora_secure.server.server import Server

DIMENSION = 100


class Given:
    """The federation in `folder`. `sums`: of every round with one, who is in it and whether it is theirs."""

    def __init__(self, folder: Path, sites: int = 3, rounds: int = 1) -> None:
        make_federation(folder, sites)
        (folder / "vectors").mkdir()
        self.folder, self.sites, self.config = folder, sites, config_of(sites, rounds, TOLERANCE)
        self.enrolment = read_enrolment(folder / "enrolment.toml")
        self.told: list[str] = []
        self.sums: list[tuple[list[int], bool]] = []
        self.lives: dict[int, subprocess.Popen] = {}

    def place(self, number: int) -> Path:
        return self.folder / "sites" / f"site{number}"

    def site(self, number: int) -> Site:
        """The site in this process, opened anew."""
        return Site(
            self.place(number), self.config, self.enrolment, read_identity(self.place(number) / "identity.key"),
            policy_of(self.config), lambda: GivenTraining(DIMENSION, number), self.told.append,
        )  # fmt: skip

    def coordinator(self, transport: Transport, patience: Patience | None = None) -> Coordinator:
        server = _Checked(self.config, task_of(DIMENSION), self.enrolment)
        server.given = self
        return Coordinator(server, TERMS, transport, patience or Patience(20.0, 20.0), self.told.append)

    def right(self, invitation, outcome: Outcome) -> None:
        if outcome.sum is not None:
            names = [f"{invitation.round}-{client}.npy" for client in outcome.sum.survivors]
            expected = np.sum([np.load(self.folder / "vectors" / name) for name in names], axis=0, dtype=np.uint32)
            expected &= np.uint32((1 << invitation.plan.bits) - 1)
            self.sums.append((list(outcome.sum.survivors), bool(np.array_equal(expected, outcome.sum.total))))

    @contextmanager
    def listening(self, absence: float = 0.5) -> Iterator[TlsTransport]:
        """The server's end, on loopback; processes that were started with `start` end with it."""
        places = [self.folder / "certs" / name for name in ("ca.crt", "server.pem", "server.key")]
        transport = TlsTransport(
            HOST, 0, TlsFiles(*places), self.sites, timing=TIMING, absence=absence, log=self.told.append
        )
        try:
            yield transport
        finally:
            transport.close()
            for process in self.lives.values():
                process.kill()
                process.wait()

    def start(self, number: int, port: int, **ends: object) -> None:
        """Start a site's process; `ends`: see `parties.Life`."""
        life = Life(
            role="site", number=number, folder=str(self.folder), port=port, rounds=self.config.training.rounds,
            dimension=DIMENSION, training=20.0, trip=20.0, sites=self.sites, **ends,
        )  # fmt: skip
        command = [sys.executable, "-m", "flora_bench.federation.parties", json.dumps(asdict(life))]
        with (self.folder / f"site{number}.log").open("a") as log:
            self.lives[number] = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)


class _Checked(Server):
    given: Given

    def finish(self, invitation, outcome: Outcome):
        self.given.right(invitation, outcome)
        return super().finish(invitation, outcome)


class Wires:
    """Straight to `answer(client, message)`, which gives None for no reply."""

    def __init__(self, answer: Callable[[int, bytes], bytes | None]) -> None:
        self._answer = answer

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        for client, message in outbox.items():
            if (reply := self._answer(client, message)) is not None:
                yield client, reply

    def close(self) -> None:
        pass
