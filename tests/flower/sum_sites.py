"""Sites of a secure sum in one process: ClientApps around a training that adds numbers of each site's own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from grids import Clock, FakeGrid

from flora_protocols import identity_public
from flora_secure.client import client
from flora_secure.client.upload import upload
from flora_secure.engine.deployed.keys.enrolment_file import write_enrolment
from flora_secure.engine.deployed.keys.identity import identity_text
from flora_secure.engine.flower.sums import transport
from flora_secure.flower import SecureSum, secure_sum_mod, write_policy
from flora_secure.privacy.encoding import decode
from flora_secure.privacy.rotation import Rotation
from flora_secure.records.durable import PRIVATE, create_file
from flora_secure.rounds.enrolment import Enrolment

SITES, EPSILON, ROUNDS, CLIP = 5, 8.0, 4, 1.0
SIZE = 64  # values of the model
IDENTITIES = tuple(bytes([client + 1]) * 32 for client in range(SITES))
ENROLMENT = Enrolment(clients=SITES, identities=tuple(map(identity_public, IDENTITIES)))


def model(value: float = 0.0, **more: np.ndarray) -> ArrayRecord:
    arrays = {"weight": np.full((8, 7), value, np.float32), "bias": np.full(8, value, np.float32), **more}
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def numbers(record: ArrayRecord) -> np.ndarray:
    return np.concatenate([array.numpy().reshape(-1) for array in record.values()])


def update_of(client: int) -> np.ndarray:
    """What the site's training adds: of length 0.9, so that nothing is clipped."""
    found = np.random.default_rng(client).normal(size=SIZE)
    return (0.9 * found / np.linalg.norm(found)).astype(np.float32)


def trained(record: ArrayRecord, update: np.ndarray) -> ArrayRecord:
    found, at = {}, 0
    for name, array in record.items():
        values = array.numpy()
        if values.dtype.kind != "f":
            found[name] = array
            continue
        found[name] = Array((values + update[at : at + values.size].reshape(values.shape)).astype(values.dtype))
        at += values.size
    return ArrayRecord(found)


class SiteApp:
    """A user's app. `calls` counts trainings; `update`, `extra` and `metrics` may be changed by a test."""

    def __init__(self, client: int, *, allow_metrics: Sequence[str] = (), pilot: Path | None = None) -> None:
        self.calls, self.update = 0, update_of(client)
        self.metrics: dict[str, float] = {"num-examples": 10 * (client + 1), "train-loss": 0.5 + client}
        self.seen: list[RecordDict] = []
        self.app = ClientApp(mods=[secure_sum_mod(allow_metrics=allow_metrics, pilot=pilot)])

        @self.app.train()
        def train(message: Message, _: Context) -> Message:
            self.calls += 1
            self.seen.append(message.content)
            arrays = trained(message.content["arrays"], self.update)
            return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(self.metrics)}), reply_to=message)

        @self.app.evaluate()
        def evaluate(message: Message, _: Context) -> Message:
            return Message(
                RecordDict({"metrics": MetricRecord({"num-examples": 1, "accuracy": 0.5})}), reply_to=message
            )


class SumGrid(FakeGrid):
    """The nodes are 100 + client. `spoil` may change what a node replies, or lose it (None); who is `dead` is so when
    training is asked for."""

    def __init__(self, apps: dict[int, SiteApp], folder: Path) -> None:
        super().__init__(Clock(), {100 + client: self._site(client) for client in apps})
        self.apps, self.folder, self.dead = apps, folder, set[int]()
        self.spoil: Callable[[int, Message, Message], Message | None] = lambda client, message, reply: reply

    def _site(self, client: int) -> Callable[[Message], list[tuple[float, Message]]]:
        def answer(message: Message) -> list[tuple[float, Message]]:
            if client in self.dead and message.content.array_records:
                return []
            reply = self.spoil(client, message, self.asked(client, message))
            return [] if reply is None else [(0.0, reply)]

        return answer

    def asked(self, client: int, message: Message) -> Message:
        return self.apps[client].app(message, context_of(self.folder / f"site{client}"))

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(messages))


def context_of(folder: Path) -> Context:
    return Context(run_id=1, node_id=70, node_config={"site": str(folder)}, state=RecordDict(), run_config={})


class SumFederation:
    """Five sites and a SecureSum around `wrapped`."""

    def __init__(self, folder: Path, monkeypatch, wrapped: Strategy | None = None, **more: object) -> None:
        self.folder, self.more = folder, more
        self.rounds = int(more.get("rounds", ROUNDS))
        for number in range(SITES):
            self.make_site(number)
        write_enrolment(folder / "enrolment.toml", ENROLMENT)
        self.apps = {number: SiteApp(number) for number in range(SITES)}
        self.grid = SumGrid(self.apps, folder)
        for module in ("letters", "nodes"):
            monkeypatch.setattr(f"flora_secure.engine.flower.{module}.time", self.grid.clock)
        monkeypatch.setattr(transport, "time", self.grid.clock)
        self.given: list[tuple[np.ndarray, np.ndarray]] = []  # contributions and their uploads before masks, in order
        monkeypatch.setattr(client, "upload", self._upload)
        self.strategy = self.made(wrapped)

    def _upload(self, invitation, contribution, noise_key):
        assert noise_key is None  # the noise of real sites follows from nothing
        found = upload(invitation, contribution)
        self.given.append((contribution, found))
        return found

    def mean(self, which: Sequence[int]) -> np.ndarray:
        """What the server must read of the sum of these uploads, noise and all, bit for bit."""
        server = self.strategy._server
        total = np.zeros(server.plan.length, np.uint32)
        for place in which:
            total += self.given[place][1]
        total &= np.uint32((1 << server.plan.bits) - 1)
        number = len(server.records)
        rotation = Rotation(server.plan.dimension, server._log.seed, number) if server.plan.rotated else None
        return decode(total, server.plan, len(which), rotation) / len(which)

    def make_site(self, number: int) -> None:
        place = self.folder / f"site{number}"
        place.mkdir()
        create_file(place / "identity.key", identity_text(IDENTITIES[number]), mode=PRIVATE)
        write_enrolment(place / "enrolment.toml", ENROLMENT)
        write_policy(place, epsilon=float(self.more.get("epsilon", EPSILON)), rounds=self.rounds, clients=SITES)

    def made(self, wrapped: Strategy | None = None, **more: object) -> SecureSum:
        parts = {
            "epsilon": EPSILON,
            "rounds": ROUNDS,
            "clip_norm": CLIP,
            "enrolment": self.folder / "enrolment.toml",
            "folder": self.folder / "run",
        }
        return SecureSum(FedAvg() if wrapped is None else wrapped, **{**parts, **self.more, **more})

    def round(self, number: int = 1, arrays: ArrayRecord | None = None) -> tuple[ArrayRecord | None, MetricRecord]:
        arrays = model() if arrays is None else arrays
        assert self.strategy.configure_train(number, arrays, ConfigRecord({"lr": 0.1}), self.grid) == []
        return self.strategy.aggregate_train(number, [])

    @property
    def deviation(self) -> float:
        """Of the noise in the mean of all sites."""
        plan = self.strategy._server.plan
        return plan.sigma_local * np.sqrt(SITES) / plan.scale / SITES
