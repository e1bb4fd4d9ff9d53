"""Canaries among the clients of a simulation: what they give to a round, and where their coins are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flora_secure.auditing.canaries.secret import LENGTH, Canaries, beside, read_canaries
from flora_secure.client.contribution import Contributions, Trainer
from flora_secure.errors import CheckpointError, ConfigError
from flora_secure.planning.config import RunConfig
from flora_secure.planning.rules import TrainedValues
from flora_secure.records.durable import PRIVATE, create_file
from flora_secure.rounds.invitation import Invitation


@dataclass(frozen=True, eq=False)
class WithCanaries:
    """The trainer of all clients, of which the last are `canaries`: `inner` trains the others.

    From here on a canary's contribution goes the way of any other.
    """

    inner: Trainer = field(repr=False)
    canaries: Canaries

    @property
    def trained(self) -> TrainedValues:
        """Which values it trains, and how many."""
        return self.inner.trained

    def contributions(self, invitation: Invitation, broadcast: bytes, members: Sequence[int]) -> Contributions:
        """What each of `members` gives, see `contribution.Trainer`: of a canary `LENGTH` times the clip norm in its
        direction of the round, or zeros."""
        number, first, count = np.array(members, np.int64), self.canaries.first, len(members)
        vectors = np.zeros((count, invitation.plan.dimension))
        counts, clipped = np.ones(count, np.int64), np.zeros(count, np.int64)
        real = number < first
        if real.any():
            given = self.inner.contributions(invitation, broadcast, number[real].tolist())
            vectors[real], counts[real], clipped[real] = given.vectors, given.counts, given.clipped
        inside = np.flatnonzero(~real)[self.canaries.inside[number[~real] - first]]
        directions = self.canaries.directions(invitation.round)
        vectors[inside] = LENGTH * invitation.plan.clip_norm * directions.vectors(number[inside] - first)
        clipped[inside] = 1
        return Contributions(vectors, counts, clipped)


def coins_of(config: RunConfig, folder: Path, values: int, *, new: bool) -> Canaries | None:
    """The canaries that a run in `folder` with updates of `values` values has: fresh ones where it is `new`, those kept
    beside the folder where it goes on; None where it has none.

    Raises ConfigError for more than there are directions, RunFolderError where the file cannot be read, and
    CheckpointError where it is not the one that the run began with.
    """
    if not config.evidence.canaries:
        return None
    if new:
        return Canaries.drawn(config.evidence.canaries, config.data_clients, values)
    found = read_canaries(beside(folder))
    if found.commitment != config.evidence.canary_commitment:
        raise CheckpointError(f"{beside(folder)} is not the file of canaries that the run began with: bring that back")
    return found


def keep(canaries: Canaries, folder: Path) -> Path:
    """Write the file of a new run's canaries, for its owner's eyes alone. Raises ConfigError where there is one, or it
    cannot be written."""
    place = beside(folder)
    try:
        create_file(place, canaries.to_bytes(), mode=PRIVATE)
    except FileExistsError:
        raise ConfigError(f"{place} exists already, with the canaries of another run: move it away") from None
    except OSError as error:
        raise ConfigError(f"{place} cannot be written: {error.strerror}") from None
    return place
