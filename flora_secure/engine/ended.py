"""A run that has ended, as its report is made from it: a simulation, or the server of a real federation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flora_secure.engine.task import Task
from flora_secure.model.factors import Factors
from flora_secure.planning.config import RunConfig
from flora_secure.records.record import RoundRecord
from flora_secure.server.server import Server


class Ended(Protocol):
    """What a report needs to know of a run."""

    @property
    def config(self) -> RunConfig:
        """All that determined it."""
        ...

    @property
    def server(self) -> Server:
        """Its server, after the last round."""
        ...

    @property
    def task(self) -> Task:
        """What was trained on what, as the server knows it."""
        ...

    @property
    def records(self) -> Sequence[RoundRecord]:
        """The rounds that it ran, in order."""
        ...

    @property
    def factors(self) -> Factors:
        """The adapter after the last round, in the precision of float16."""
        ...
