"""What others see of a federation: its clients' updates without protection, uploads, masked uploads, sums, adapters.

A federation is the run's own, its clients' images replaced where an attack needs it: with the run's configuration, its
model, its trainers, server and masking protocol.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from flora_protocols import unpack
from flora_protocols.codec import HEADER
from flora_secure.client.upload import uploads
from flora_secure.data.notes import Notes
from flora_secure.engine.exchange import Traffic
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig, override
from flora_secure.planning.protection import EvidenceConfig
from flora_secure.privacy.clipping import clip_rows
from flora_secure.privacy.encoding import read_sum
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.sum import Vector
from flora_secure.server.server import Server, Skipped

Rows = NDArray[np.float64]
Parts = Sequence[NDArray[np.int64]]
DRAWS = 8  # sums with noise of their own, and adapters, that an attack's trials take in turn


def with_clients(task: Task, parts: Parts) -> Task:
    """The task with other images at its clients: `parts[i]` are the places of client i's among the private images."""
    learner = task.made.frame.learner(task.federation.dataset.private, parts, Notes())
    return replace(task, federation=replace(task.federation, clients=list(parts)), learner=learner)


def repeatable(config: RunConfig, seed: int, *, masks: bool = False, noise: bool = True) -> RunConfig:
    """`config` with noise, cohorts and coins from `seed`, since experiments are to be repeated; no evidence is kept.

    `masks`: run them, where there are any; else they are counted. `noise`: the run's own, or none."""
    changes: dict[str, object] = {
        "privacy.simulation_noise": True,
        "seed": seed,
    }
    if config.aggregation.secagg != "off":
        changes["aggregation.masking"] = "run" if masks else "counted"
    changed = override(replace(config, evidence=EvidenceConfig(keep_sums=False, transcript=False)), changes)
    if not noise:
        changed = replace(changed, privacy=replace(changed.privacy, epsilon=math.inf, delta=None, bits=None))
    return changed


@dataclass
class Overheard(Traffic):
    """Traffic that keeps every upload, as the server receives it: client → message."""

    uploads: dict[int, bytes] = field(default_factory=dict)

    def sent_up(self, client: int, message: bytes, payload: int = 0) -> None:
        """Counted as by `Traffic`; a message with an update in it is kept."""
        super().sent_up(client, message, payload)
        if payload:
            self.uploads[client] = message


@dataclass(frozen=True, eq=False)
class Seen:
    """What others see of one round, in units of an update; a row for each of its `members`.

    Attributes:
        members: the clients of the round.
        clean: float64 (m, d), clipped contributions without any protection.
        share: (m, d), uploads before the mask: with the client's own noise share.
        masked: (m, d), as the server receives them; None where the run has no masks.
        sums: (k, d), sums of all uploads, each with noise drawn anew.
    """

    members: tuple[int, ...]
    clean: Rows
    share: Rows
    masked: Rows | None
    sums: Rows


class FirstRound:
    """The first round of a run with a cohort, as its members are invited to it."""

    def __init__(self, config: RunConfig, task: Task, seed: int) -> None:
        """Have the run's server invite its first cohort."""
        self.config, self.seed = config, seed
        server = Simulation(repeatable(config, seed), task).server
        self.invitation, self.broadcast = _invited(server), server.broadcast

    @property
    def _whole(self) -> Invitation:
        """The round with every example of its clients in it: of unit `example`, what was drawn is what is attacked."""
        return replace(self.invitation, plan=replace(self.invitation.plan, sampling_rate=1.0))

    def clean(self, task: Task, clients: Sequence[int]) -> Rows:
        """Clipped contributions of these clients of `task`, (m, d)."""
        trainer = task.trainer(self.config)
        given = trainer.contributions(self._whole, self.broadcast, clients).vectors
        return clip_rows(given, self.invitation.plan.upload_norm)[0]

    def read(self, vector: Vector) -> Rows:
        """An upload, masked or not, or a sum of them, in units of an update: (d,)."""
        plan = self.invitation.plan
        return read_sum(vector, plan, plan.scale, self.invitation.rotation)

    def sum(self, clean: Rows, draw: int) -> Rows:
        """The released sum of these contributions, (d,), with the noise of that `draw`, from 1."""
        total = self._uploads(clean, draw).sum(axis=0, dtype=np.uint32)  # wraps at a multiple of the ring's size
        return self.read(total & np.uint32((1 << self.invitation.plan.bits) - 1))

    def seen(self, task: Task) -> Seen:
        """The round among the clients of `task`."""
        clean = self.clean(task, self.invitation.members)
        sent = self._uploads(clean, 0)
        return Seen(
            members=self.invitation.members,
            clean=clean,
            share=np.array([self.read(vector) for vector in sent]),
            masked=self._masked(task, sent),
            sums=np.array([self.sum(clean, draw) for draw in range(1, DRAWS + 1)]),
        )

    def _uploads(self, clean: Rows, draw: int) -> NDArray[np.uint32]:
        keys = [
            hashlib.sha256(f"flora-secure attack noise {self.seed} {draw} {row}".encode()).digest()
            for row in range(len(clean))
        ]
        return uploads(self.invitation, clean, keys)

    def _masked(self, task: Task, sent: NDArray[np.uint32]) -> Rows | None:
        """The uploads as the masking protocol sends them, in a session of its own."""
        simulation, heard = Simulation(repeatable(self.config, self.seed, masks=True), task), Overheard()
        try:
            invitation = _invited(simulation.server)
            if simulation.policy is None or invitation.params is None:
                return None
            floors = simulation.policy.accept(invitation)[1]
            own = dict(zip(invitation.members, sent, strict=True))
            simulation.exchange.round(invitation, floors, own, heard)
        finally:
            simulation.exchange.close()
        params, rows = invitation.params, []
        for client in invitation.members:
            payload = heard.uploads[client][HEADER : HEADER + params.payload_bytes]
            values = unpack(payload, params.dimension, params.bits)
            assert values is not None  # the server has read it
            rows.append(self.read(values.astype(np.uint32)))
        return np.array(rows)


def _invited(server: Server) -> Invitation:
    """The first round that anybody is invited to. Raises Skipped where there is none in the whole run."""
    while True:
        try:
            return server.invite()
        except Skipped:
            if server.done:
                raise


def released(simulation: Simulation) -> Rows:
    """What all rounds have changed of the values that the first one trains, (d,): the adapter less the one before."""
    list(simulation.rounds())
    return change_of(simulation)


def change_of(simulation: Simulation) -> Rows:
    """`released` of a simulation that has ended."""
    task, server = simulation.task, simulation.server
    before = task.initial.vector(task.rule).cpu().numpy()
    change = (server.adapter.astype(np.float64) - before)[task.trained.span(1)]
    return np.pad(change, (0, server.plan.dimension - len(change)))
