"""Errors: what is the caller's to mend, in one tree, and what is not.

The tree stands in this file. The message of each is one line that names the value and the remedy; the command line
prints it, and ends with exit code 2.

InputError                  bad input
├── ConfigError             a key or value of the configuration, a place that cannot be written, a budget
├── InfeasibleError         parameters for which no noise, grid and ring exist
├── PlainError              a document (report, line of a log) that is not what was written
├── RunFolderError          a run folder that cannot be read or locked, or whose parts do not belong together
├── CheckpointError         the state of an interrupted run, or a model or data that it does not belong to
├── DataError               a data set, its files, a partition
├── ModelError              an architecture or weights
├── AdapterError            rank, rule or placement that does not fit the model
├── DivergedError           learning rates under which training leaves the range of numbers
├── WorkerError             a process of the run was ended from outside
├── NetworkError            a port, certificates, or a server that is not reached or takes this client no more
└── PlotError               a figure that cannot be drawn or written

Signals are no input: they stand beside what raises them, and none reaches a person as it is.

ValueError
├── CohortSizeError         privacy.noise_plan: a cohort the plan is not for; the round is skipped
├── TooFewSurvivorsError    privacy.noise_plan: less noise than planned would be in the sum; nothing is released
├── NonFiniteUpdateError    privacy.clipping: training overflowed at one client, which drops out
└── TooFewEligibleError     planning.participation: no cohort can be drawn; the round is skipped
RuntimeError
├── BudgetExceededError     privacy.ledger: the round would pass a client's budget; it is not run
├── LedgerError             privacy.ledger: rounds out of their order, a mistake of the program
└── CrossCheckError         privacy.cross_check: accountants disagree, so that no ε can be reported
OSError
└── UnlockableError         records.lock: the file system has no locks; a RunFolderError says so
KeyboardInterrupt
└── RunInterrupted          Ctrl-C in a run, with where it is on disk; the command line says how to go on
Exception
├── RefusalError            a client does not do what its server asks; the server counts it as dropped out
├── Skipped                 server.server: nobody was invited to the round, since its cohort is none the plan is for
├── Stopped                 engine.flower.app: a run of Flower's ends by one of the above; its server logs the line
├── BreachError             engine.tls.wire: a peer that does not keep to the protocol; it is cut off
├── ForeignError            a file or text of others that is not read; who asked for it names it
└── UnreadableImageError    data.files.values: an image that is skipped, counted and named
UnreadableImageError
└── OddValuesError          data.files.values: one of which nothing says what is black; a data set of them is refused

What else is raised is a mistake of the program, such as `ValueError` for a vector of the wrong shape.

The message of bad input names a setting by its key in backticks, `privacy.epsilon`: `str(error)` shows the key, and
`InputError.told` whatever the caller calls it, such as the flag that a person typed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path

_SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_0-9]+)?)`")


class InputError(ValueError):
    """Bad input; `str(error)` is one line for the person who gave it.

    `kept`: what is on disk although the work has failed, for the end of that line; empty where nothing is.
    """

    kept: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """The keys of the settings that the message names, in the order in which it does."""
        return tuple(_SETTING.findall(self.args[0] if self.args else ""))

    def told(self, word: Callable[[str], str]) -> str:
        """The message with `word(key)` in the place of each setting that it names."""
        line = worded(self.args[0] if self.args else "", word)
        return f"{line}; {self.kept}" if self.kept else line

    def __str__(self) -> str:
        return self.told(lambda key: key)


def worded(line: str, word: Callable[[str], str]) -> str:
    """A line for people with `word(key)` in the place of each setting that it names in backticks."""
    return _SETTING.sub(lambda found: word(found[1]), line)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a message about a name that nobody knows: "; did you mean 'x'?" where one of the known is near, else
    nothing."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def first_line(error: Exception) -> str:
    """What another library's error says, for a message of one line; its kind where it says nothing."""
    lines = (line.strip().rstrip(":. ") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


class DataError(InputError):
    """A data set, folder or partition cannot be had; the message names the value and the remedy."""


class PlainError(InputError):
    """The data is not what was written; the message names the key."""


class ConfigError(InputError):
    """A value of the configuration is wrong; the message is one line for the person who set it."""


def require(condition: bool, message: str) -> None:
    """Raises `ConfigError` with this `message` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_positive(key: str, value: float | None) -> None:
    """Raises `ConfigError` unless the `value` of setting `key`, where there is one, lies between 1e-6 and 1e6: far
    beyond sense, and far from overflow."""
    require(value is None or (math.isfinite(value) and value > 0), f"`{key}` must be a positive number, got {value}")
    require(value is None or 1e-6 <= value <= 1e6, f"`{key}` must lie in 1e-06…1e+06, got {value}")


class InfeasibleError(InputError):
    """No noise, grid and modulus satisfy the parameters; the message says which numbers clash and what to change."""


class AdapterError(InputError):
    """The adapter asked for does not fit the model or the prompts."""


class DivergedError(InputError):
    """The adapter left the range that the broadcast can carry; the remedy is a smaller server step."""


class WorkerError(InputError):
    """A process that the run had started was ended from outside, such as by the system for want of memory."""


class NetworkError(InputError):
    """A port or certificate cannot be used, or a server is not reached or ends it with this client; the message says
    which, and what to do."""


class ModelError(InputError):
    """An architecture or weights cannot be had; the message names them and what would work."""


class CheckpointError(InputError):
    """A state cannot be read, or does not belong to what it is read for."""


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C in a run. `str` is one line that says where, and what is on disk.

    `folder` is the run's; `resumable` says whether it can go on from there.
    """

    def __init__(self, message: str, folder: Path, *, resumable: bool) -> None:
        super().__init__(message)
        self.folder, self.resumable = folder, resumable


class RunFolderError(InputError):
    """A run folder cannot be read or locked, or its parts do not belong together."""


class PlotError(InputError):
    """A figure cannot be drawn or written; the message names the file and the reason."""


class ForeignError(Exception):
    """A file or text of others is not read; `str(error)` says why, in one line that does not name the file."""


class Refusal(Enum):
    """Why a client does not take part, from a fixed list: safe to tell to anybody."""

    NOT_INVITED = "not-invited"
    NO_ROUND = "no-round"
    REPEATED = "repeated"
    PROFILE = "profile"
    UNIT = "unit"
    PLACEMENT = "placement"
    PLAN = "plan"
    NOISE = "noise"
    BUDGET = "budget"
    ROUNDS = "rounds"
    FLOORS = "floors"
    MODEL = "model"
    STATE = "state"
    TERMS = "terms"
    UPDATE = "update"


class RefusalError(Exception):
    """A client does not do what its server asks; nothing has changed at the client.

    `code` says why and may be told to the server; the text names figures and is for the client's own people.
    """

    def __init__(self, code: Refusal, text: str) -> None:
        self.code = code
        super().__init__(text)
