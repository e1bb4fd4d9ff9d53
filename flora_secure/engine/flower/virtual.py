"""A simulation on Flower's own engine: every client is a virtual node, on the cores of this machine or a Ray cluster's.

The same `Client` as at a real site answers, and the same `Coordinator` asks; what is simulated is that all data lie in
one place. So a run is that of `engine.simulation`: under simulation noise its adapter differs by rounding alone, for
clients train one by one here and there as a batch.

The nodes' processes come and go, so what a client keeps between two messages lies in `clients/` of a folder that all of
them must see: a temporary one of this machine, or a shared one where `TMPDIR` says so on a cluster.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from flora_protocols import identity_public
from flora_secure.boundary.foreign import json_of, read_text
from flora_secure.client.client import Client
from flora_secure.client.contribution import Trainer
from flora_secure.client.ledger import ClientLedger
from flora_secure.client.policy import Policy
from flora_secure.client.store import FileStore
from flora_secure.data.cache import ArrayCache
from flora_secure.data.federation import load_federation
from flora_secure.engine.deployed.coordinator import Coordinator
from flora_secure.engine.deployed.envelope import enveloped
from flora_secure.engine.deployed.masked_rounds import Patience
from flora_secure.engine.ended import Simulated
from flora_secure.engine.flower.nodes import Nodes
from flora_secure.engine.flower.site_app import register
from flora_secure.engine.flower.transport import GridTransport
from flora_secure.engine.simulation import headline, noise_key, simulated_policy
from flora_secure.engine.task import Task, prepare
from flora_secure.errors import WorkerError, require
from flora_secure.planning.config import RunConfig, from_toml
from flora_secure.planning.names import PASSED
from flora_secure.planning.participation import vanishing_of
from flora_secure.records.durable import PRIVATE, replace_file
from flora_secure.records.record import RoundRecord
from flora_secure.records.transcript.writing import Transcript
from flora_secure.rounds.enrolment import Enrolment
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.opening import is_request
from flora_secure.rounds.terms import Terms
from flora_secure.server.server import Announce, Server

_MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of mode 0700 is made in it)
_START = 300.0  # seconds until Ray has to have the nodes up
_RUN = "run.json"


class VirtualFederation(Simulated):
    """One run over a prepared task, as `engine.simulation.Simulation`, with its clients on Flower's nodes."""

    def __init__(self, config: RunConfig, task: Task, features: ArrayCache | None, log: Callable[[str], None]) -> None:
        """Set up the server. Raises ConfigError for what this engine cannot do: data that a program passed, no masks,
        or masks that are counted."""
        how = config.aggregation
        require(
            how.masks == "run", f"engine flower carries messages that mask, and masking is {how.masks}: leave it out"
        )
        require(
            not config.data.dataset.startswith(PASSED),
            "engine flower loads the data in every process; data that a program passes are in none but this",
        )
        self._features, self._log = features, log
        signs = how.secagg == "malicious-server"
        self._secrets = tuple(os.urandom(32) for _ in range(config.clients * signs))
        self.enrolment = Enrolment(clients=config.clients, identities=tuple(map(identity_public, self._secrets)))
        super().__init__(config, task, Server(config, task.for_server(), self.enrolment))

    @property
    def headline(self) -> str:
        """What is about to run, in a line."""
        return f"{headline(self.server, self.task)}, clients on Flower's nodes"

    def rounds(self, announce: Announce | None = None, transcript: Transcript | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends. `announce`: see `Server.invite`; `transcript`: where
        their messages are kept, if they are.

        Raises WorkerError where Flower's engine does not start or ends.
        """
        # in memory, where the system has such a place: two flushes a message are what a simulation needs least
        where = _MEMORY if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="flora-secure-", dir=where) as folder:
            self._write(Path(folder))
            with VirtualNodes(partial(_answering, folder), self.config.clients) as grid:
                nodes = Nodes(grid, range(self.config.clients), self._log)
                nodes.find(least=self.config.clients, patience=_START, grace=0.0)
                if nodes.missing:
                    raise WorkerError(
                        f"{len(nodes.missing)} of {self.config.clients} nodes of Flower's engine are silent"
                    )
                vanishing = _Vanishing(
                    self.config, self.config.seed if self.repeats else None, GridTransport(grid, nodes, self._log)
                )
                coordinator = Coordinator(self.server, Terms({}), vanishing, Patience(), self._log)
                yield from coordinator.rounds(vanishing.told(announce), transcript)

    def _write(self, folder: Path) -> None:
        """What a node's process needs to know of the run; a secret, since it holds the clients' identity keys."""
        table = {
            "config": self.task.settled(self.config).to_toml(),
            "policy": asdict(simulated_policy(self.server)),
            "identities": [secret.hex() for secret in self._secrets],
            "features": None if self._features is None else str(self._features.folder),
        }
        replace_file(folder / _RUN, json.dumps(table).encode(), mode=PRIVATE)


class _Vanishing:
    """A transport over which some clients vanish before they upload, as in `engine.simulation`."""

    def __init__(self, config: RunConfig, seed: int | None, transport: GridTransport) -> None:
        self._config, self._seed, self._transport = config, seed, transport
        self._gone = set[int]()

    def told(self, announce: Announce | None) -> Announce:
        """`announce`, which says beside whom the round that begins invites."""

        def announced(record: RoundRecord) -> None:
            self._gone = vanishing_of(self._seed, record.round, record.participants, self._config.aggregation.dropout)
            if announce is not None:
                announce(record)

        return announced

    def exchange(self, outbox: Mapping[int, bytes], patience: float) -> Iterator[tuple[int, bytes]]:
        """Deliver to all but those that have vanished, see `Transport`."""
        left = {client: one for client, one in outbox.items() if client not in self._gone or not is_request(one)}
        return self._transport.exchange(left, patience)

    def close(self) -> None:
        """Let go of the network."""
        self._transport.close()


class VirtualNodes:
    """Flower's engine with so many virtual nodes, in a thread of its own; entered, it gives the ServerApp's grid."""

    def __init__(self, answering: Callable[[Context], Callable[[bytes], bytes]], count: int) -> None:
        """Nodes 0 to `count` - 1, whose answers `answering` makes; it goes to other processes, and must be picklable.

        Entered, it raises WorkerError where Flower's engine does not start.
        """
        self._answering, self._count = answering, count
        self._grids: queue.Queue[Grid | BaseException] = queue.Queue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="flower simulation")

    def __enter__(self) -> Grid:
        self._thread.start()
        try:
            found = self._grids.get(timeout=_START)
        except queue.Empty:
            raise WorkerError("Flower's simulation engine did not start") from None
        if isinstance(found, BaseException):
            raise WorkerError(f"Flower's simulation engine did not start: {type(found).__name__}: {found}") from found
        return found

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _run(self) -> None:
        app, server = ClientApp(), ServerApp()
        register(app, self._answering, _number, _say)

        def main(grid: Grid, context: Context) -> None:
            self._grids.put(grid)
            self._over.wait()

        server.main()(main)
        logging.getLogger("flwr").setLevel(logging.ERROR)  # what it says of itself is of no use to a simulation
        try:
            run_simulation(
                server, app, self._count, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
            )
        except BaseException as error:
            self._grids.put(error)


def _say(line: str) -> None:
    """A line of a virtual client's, on stderr of its process, where Ray collects it."""
    print(line, file=sys.stderr)


def _number(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _answering(folder: str, context: Context) -> Callable[[bytes], bytes]:
    """The answers of a virtual node's client, in a process that serves many of them, one after another."""
    return partial(_answer, folder, _number(context))


def _answer(folder: str, number: int, message: bytes) -> bytes:
    common = _common(folder)
    own = Path(folder) / "clients" / str(number)
    store = FileStore(own)
    try:
        client = Client(
            enrolment=common.enrolment,
            number=number,
            policy=common.policy,
            trainer=common.trainer,
            ledger=ClientLedger(own / "ledger.jsonl"),
            store=store,
            model_hash=common.model_hash,
            identity=common.identities[number] if common.identities else None,
            noise_key=common.noise_key,
        )
        return enveloped(client.answer, message, _say)
    finally:
        store.close()


class _Common:
    """What all clients of one process share: the run, its data, and the trainer of them all."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        table: dict[str, Any] = json_of(read_text(folder / _RUN))
        self.config = from_toml(table["config"])
        policy = table["policy"]
        self.policy = Policy(**{**policy, "placements": tuple(policy["placements"])})
        self.identities = tuple(map(bytes.fromhex, table["identities"]))
        self.enrolment = Enrolment(clients=self.config.clients, identities=tuple(map(identity_public, self.identities)))
        kept = None if table["features"] is None else ArrayCache(Path(table["features"]), _say)
        # the settled configuration says how the images are dealt, and by the seed they are dealt alike everywhere
        task = prepare(self.config, load_federation(self.config.data, self.config.seed, kept), kept)
        self.trainer: Trainer = task.trainer(self.config)
        self.model_hash = bytes.fromhex(task.clip.model_hash)

    def noise_key(self, invitation: Invitation, number: int) -> bytes | None:
        return noise_key(self.config, invitation.round, number)


@cache
def _common(folder: str) -> _Common:
    return _Common(Path(folder))
