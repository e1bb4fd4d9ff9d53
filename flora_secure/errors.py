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


class InputError(ValueError):
    """Bad input; ``str(error)`` is one line for the person who gave it."""


def first_line(error: Exception) -> str:
    """What another library's error says, for a message of one line; its kind where it says nothing."""
    lines = (line.strip().rstrip(":. ") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
