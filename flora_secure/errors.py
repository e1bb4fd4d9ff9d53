"""The one base of errors that are the caller's to mend.

InputError            bad input: the message is one line that names the value and the remedy
├── ConfigError       a key or value of the configuration, a budget no noise can meet, the run folder
├── CheckpointError   the state of an interrupted run, or a model or data that it does not belong to
├── DataError         a data set, its files, a partition
├── ModelError        an architecture or weights
├── AdapterError      rank, rule or placement that does not fit the model
└── DivergedError     learning rates under which training leaves the range of numbers
"""

from __future__ import annotations

import math
from enum import Enum


class InputError(ValueError):
    """Bad input; ``str(error)`` is one line for the person who gave it."""


def first_line(error: Exception) -> str:
    """What another library's error says, for a message of one line; its kind where it says nothing."""
    lines = (line.strip().rstrip(":. ") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


class DataError(InputError):
    """A data set, folder or partition that cannot be had; one line that names the value and the remedy."""


class PlainError(InputError):
    """The data is not what was written; the message names the key."""


class ConfigError(InputError):
    """A value of the configuration is wrong; the message is one line for the person who set it."""


def require(condition: bool, message: str) -> None:
    """ConfigError with this ``message`` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_positive(name: str, value: float | None) -> None:
    """ConfigError unless the ``value``, where there is one, lies between 1e-6 and 1e6: far beyond sense, and far from
    overflow."""
    require(value is None or (math.isfinite(value) and value > 0), f"{name} must be a positive number, got {value}")
    require(value is None or 1e-6 <= value <= 1e6, f"{name} must lie in 1e-06…1e+06, got {value}")


class AdapterError(InputError):
    """The adapter asked for does not fit the model or the prompts."""


class DivergedError(InputError):
    """The adapter left the range that the broadcast can carry; the remedy is a smaller server step."""


class ModelError(InputError):
    """An architecture or weights that cannot be had."""


class CheckpointError(InputError):
    """A state that cannot be read, or that does not belong to what it is read for."""


class RunFolderError(InputError):
    """A run folder that cannot be read, or whose parts do not belong together."""


class PlotError(InputError):
    """A figure that cannot be drawn or written."""


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
