"""The one base of errors that are the caller's to mend.

InputError            bad input: the message is one line that names the value and the remedy
├── ConfigError       a key or value of the configuration, a budget no noise can meet, the run folder
├── CheckpointError   the state of an interrupted run, or a model or data that it does not belong to
├── DataError         a data set, its files, a partition
├── ModelError        an architecture or weights
├── AdapterError      rank, rule or placement that does not fit the model
└── DivergedError     learning rates under which training leaves the range of numbers

A message names a setting by its key in backticks, `privacy.epsilon`: ``str(error)`` shows the key, and
:meth:`InputError.told` whatever the caller calls it, such as the flag that a person typed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

_SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_0-9]+)?)`")


class InputError(ValueError):
    """Bad input; ``str(error)`` is one line for the person who gave it.

    ``kept``: what is on disk although the work has failed, for the end of that line; empty where nothing is.
    """

    kept: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """The keys of the settings that the message names, in the order in which it does."""
        return tuple(_SETTING.findall(self.args[0] if self.args else ""))

    def told(self, word: Callable[[str], str]) -> str:
        """The message with ``word(key)`` in the place of each setting that it names."""
        line = _SETTING.sub(lambda found: word(found[1]), self.args[0] if self.args else "")
        return f"{line}; {self.kept}" if self.kept else line

    def __str__(self) -> str:
        return self.told(lambda key: key)


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
    """A data set, folder or partition that cannot be had; one line that names the value and the remedy."""


class PlainError(InputError):
    """The data is not what was written; the message names the key."""


class ConfigError(InputError):
    """A value of the configuration is wrong; the message is one line for the person who set it."""


def require(condition: bool, message: str) -> None:
    """ConfigError with this ``message`` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_positive(key: str, value: float | None) -> None:
    """ConfigError unless the ``value`` of setting ``key``, where there is one, lies between 1e-6 and 1e6: far beyond
    sense, and far from overflow."""
    require(value is None or (math.isfinite(value) and value > 0), f"`{key}` must be a positive number, got {value}")
    require(value is None or 1e-6 <= value <= 1e6, f"`{key}` must lie in 1e-06…1e+06, got {value}")


class AdapterError(InputError):
    """The adapter asked for does not fit the model or the prompts."""


class DivergedError(InputError):
    """The adapter left the range that the broadcast can carry; the remedy is a smaller server step."""


class ModelError(InputError):
    """An architecture or weights that cannot be had."""


class CheckpointError(InputError):
    """A state that cannot be read, or that does not belong to what it is read for."""


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C in a run. ``str`` is one line that says where, and what is on disk.

    ``folder`` is the run's; ``resumable`` says whether it can go on from there.
    """

    def __init__(self, message: str, folder: Path, *, resumable: bool) -> None:
        super().__init__(message)
        self.folder, self.resumable = folder, resumable


class RunFolderError(InputError):
    """A run folder that cannot be read, or whose parts do not belong together."""


class PlotError(InputError):
    """A figure that cannot be drawn or written."""
