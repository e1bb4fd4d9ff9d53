"""What a run is to those who write it down: while it runs, and once it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from flora_secure.engine.task import Task
from flora_secure.model.factors import Factors
from flora_secure.planning.config import RunConfig
from flora_secure.records.record import RoundRecord
from flora_secure.server.server import Announce, Server


class Ended(Protocol):
    """A simulation, or the server of a real federation: what a report needs to know of it."""

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

    @property
    def clients_timed(self) -> bool:
        """Whether the CPU seconds of its clients are known."""
        ...


class Simulated(Ended, Protocol):
    """A simulation, on whatever engine its clients are."""

    @property
    def repeats(self) -> bool:
        """Whether a round that is run again releases the same sum, or none that a budget protects."""
        ...

    @property
    def headline(self) -> str:
        """What is about to run, in a line."""
        ...

    def rounds(self, announce: Announce | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends. `announce`: see `Server.invite`."""
        ...

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in peft's format, and beside it what is needed to use it."""
        ...


Engine = Callable[[RunConfig, Task], Simulated]
"""Where the clients of a simulation are: what makes it of a configuration and a prepared task."""
