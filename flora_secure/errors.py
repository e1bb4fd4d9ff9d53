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
Exception
├── RefusalError            a client does not do what its server asks; the server counts it as dropped out
├── Skipped                 server.server: nobody was invited to the round, since its cohort is none the plan is for
└── UnreadableImageError    data.decoding: an image that is skipped, counted and named

What else is raised is a mistake of the program, such as `ValueError` for a vector of the wrong shape.
"""

from __future__ import annotations

import math
from enum import Enum


class InputError(ValueError):
    """Bad input; `str(error)` is one line for the person who gave it."""


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


def require_positive(name: str, value: float | None) -> None:
    """Raises `ConfigError` unless the `value`, where there is one, lies between 1e-6 and 1e6: far beyond sense, and far
    from overflow."""
    require(value is None or (math.isfinite(value) and value > 0), f"{name} must be a positive number, got {value}")
    require(value is None or 1e-6 <= value <= 1e6, f"{name} must lie in 1e-06…1e+06, got {value}")


class InfeasibleError(InputError):
    """No noise, grid and modulus satisfy the parameters; the message says which numbers clash and what to change."""


class AdapterError(InputError):
    """The adapter asked for does not fit the model or the prompts."""


class DivergedError(InputError):
    """The adapter left the range that the broadcast can carry; the remedy is a smaller server step."""


class ModelError(InputError):
    """An architecture or weights cannot be had; the message names them and what would work."""


class CheckpointError(InputError):
    """A state cannot be read, or does not belong to what it is read for."""


class RunFolderError(InputError):
    """A run folder cannot be read or locked, or its parts do not belong together."""


class PlotError(InputError):
    """A figure cannot be drawn or written; the message names the file and the reason."""


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
    UPDATE = "update"


class RefusalError(Exception):
    """A client does not do what its server asks; nothing has changed at the client.

    `code` says why and may be told to the server; the text names figures and is for the client's own people.
    """

    def __init__(self, code: Refusal, text: str) -> None:
        self.code = code
        super().__init__(text)
