"""Shadow federations: the run trained anew, with each client (or image) in or out by a coin.

A client that is out gives zero, which is what the run's budget compares with (zero-out); an image that is out, of unit
`example`, is not among its client's. All else is as in the run: cohorts, noise, the server's step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from flora_protocols import Floors
from flora_secure.auditing.attacks.seen import Rows, repeatable
from flora_secure.client.contribution import Contributions, Trainer
from flora_secure.client.trainer import ExampleTrainer
from flora_secure.engine.exchange import Carried, RoundExchange, Traffic
from flora_secure.engine.simulation import Simulation
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig
from flora_secure.planning.rules import TrainedValues
from flora_secure.privacy.clipping import clip_rows
from flora_secure.privacy.encoding import read_sum
from flora_secure.records.transcript.writing import RoundTranscript
from flora_secure.rounds.invitation import Invitation
from flora_secure.rounds.sum import Vector
from flora_secure.server.evaluator import Evaluator


class Coined:
    """A trainer whose clients that are out give zero, and which keeps what all would have given."""

    def __init__(self, inner: Trainer, inside: NDArray[np.bool_]) -> None:
        self.inner, self.inside = inner, inside
        self.clients: Sequence[int] = ()
        self.clean: Rows = np.zeros((0, 0))

    @property
    def trained(self) -> TrainedValues:
        """Which values it trains, and how many."""
        return self.inner.trained

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """What `members` give, see `contribution.Trainer`."""
        given = self.inner.contributions(invitation, broadcast, members)
        self.clients, self.clean = members, clip_rows(given.vectors, invitation.plan.upload_norm)[0]
        return replace(given, vectors=given.vectors * self.inside[list(members)][:, None])


class Kept:
    """An exchange that keeps the last round's sum, in units of an update; None where there was none."""

    standing = True  # nothing is masked here

    def __init__(self, inner: RoundExchange) -> None:
        self.inner = inner
        self.sum: Rows | None = None

    def round(
        self,
        invitation: Invitation,
        floors: Floors | None,
        uploads: Mapping[int, Vector],
        traffic: Traffic,
        record: RoundTranscript | None = None,
    ) -> Carried:
        """The sum of the uploads, see `RoundExchange`."""
        self.sum = None
        carried = self.inner.round(invitation, floors, uploads, traffic, record)
        self.sum = read_sum(carried.sum.total, invitation.plan, invitation.plan.scale, invitation.rotation)
        return carried

    def close(self) -> None:
        """Release what the exchange holds."""
        self.inner.close()


@dataclass(frozen=True, eq=False)
class Shadow:
    """One shadow federation.

    Attributes:
        inside: bool (targets,), the coins.
        by_adapter: float64 (targets,), how sure the released adapter is of each target's labels.
        by_sums: (targets,), how far the released sums point each target's way; None for images.
        ended: the simulation.
    """

    inside: NDArray[np.bool_]
    by_adapter: Rows
    by_sums: Rows | None
    ended: Simulation


def shadow(config: RunConfig, task: Task, sure: Confidence, seed: int, *, noise: bool) -> Shadow:
    """Train one. `sure`: of all private images; `seed`: of coins, noise and cohorts."""
    inside = np.random.default_rng([seed, 2]).random(sure.targets) < 0.5
    simulation = Simulation(repeatable(config, seed, noise=noise), task)
    if isinstance(simulation.trainer, ExampleTrainer):
        clients = [part[inside[part]] for part in task.federation.clients]
        simulation.trainer = replace(simulation.trainer, clients=clients)
        list(simulation.rounds())
        return Shadow(inside, sure.of(simulation), None, simulation)
    coined, kept, votes = Coined(simulation.trainer, inside), Kept(simulation.exchange), np.zeros(sure.targets)
    simulation.trainer, simulation.exchange = coined, kept
    for _ in simulation.rounds():
        if kept.sum is not None and len(coined.clean):
            votes[list(coined.clients)] += coined.clean @ kept.sum
        kept.sum, coined.clean = None, coined.clean[:0]
    return Shadow(inside, sure.of(simulation), votes, simulation)


@dataclass(frozen=True, eq=False)
class Confidence:
    """How sure an adapter is of the labels of the targets' images: the mean of log p − log(1 − p), p the right class's.

    Attributes:
        scorer: of all private images.
        owners: int64 (n,), the target that each image is of.
        targets: how many there are.
        logit_scale: of the run.
    """

    scorer: Evaluator
    owners: NDArray[np.int64]
    targets: int
    logit_scale: float

    def of(self, simulation: Simulation) -> Rows:
        """How sure the adapter is that a simulation has ended with, float64 (targets,)."""
        texts, images = self.scorer.test(simulation.factors)
        logits = (self.logit_scale * images @ texts.T).double()
        right = torch.take_along_dim(logits, self.scorer.target[:, None], dim=1)[:, 0]
        others = logits.scatter(1, self.scorer.target[:, None], -torch.inf).logsumexp(dim=1)
        odds = (right - others).cpu().numpy()
        counts = np.bincount(self.owners, minlength=self.targets)
        return np.bincount(self.owners, odds, self.targets) / np.maximum(counts, 1)
