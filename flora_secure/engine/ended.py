"""What a run is to those who write it down: while it runs, and once it has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flora_secure.engine.task import Task
from flora_secure.model.factors import Factors
from flora_secure.model.trained.folder import describe_adapter
from flora_secure.planning.config import RunConfig
from flora_secure.records.record import RoundRecord
from flora_secure.records.transcript.writing import Transcript
from flora_secure.server.server import Announce, Server


class Ended:
    """The server's side of a run over a prepared task: a simulation's, or that of a real federation.

    `config`, `task`, `server`: all that determined it, what was trained on what as the server knows it, and its server.
    `clients_timed`: whether the CPU seconds of its clients are known.
    """

    clients_timed = False

    def __init__(self, config: RunConfig, task: Task, server: Server) -> None:
        self.config, self.task, self.server = config, task, server

    @property
    def records(self) -> Sequence[RoundRecord]:
        """The rounds that are over, in order."""
        return self.server.records

    @property
    def factors(self) -> Factors:
        """The adapter that the clients of a next round would train from, in float16."""
        return self.task.factors(self.server.adapter)

    def save_adapter(self, folder: Path) -> None:
        """Write that adapter in peft's format, and beside it what is needed to use it. Raises `OSError`."""
        task, factors = self.task, self.factors
        task.save(factors, folder)
        describe_adapter(folder, self.config, task.clip, task.federation.dataset, factors.rank)


class Simulated(Ended, ABC):
    """A simulation, on whatever engine its clients are."""

    @property
    def repeats(self) -> bool:
        """Whether a round that is run again releases the same sum, or none that a budget protects."""
        return self.server.repeats

    @property
    @abstractmethod
    def headline(self) -> str:
        """What is about to run, in a line."""

    @abstractmethod
    def rounds(self, announce: Announce | None = None, transcript: Transcript | None = None) -> Iterator[RoundRecord]:
        """Run the rounds that are left, yielding each as it ends. `announce`: see `Server.invite`; `transcript`: where
        their messages are kept, if they are."""


Engine = Callable[[RunConfig, Task], Simulated]
"""Where the clients of a simulation are: what makes it of a configuration and a prepared task."""
