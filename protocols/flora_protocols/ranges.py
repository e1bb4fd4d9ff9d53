"""The check that every number of the public API goes through."""

from __future__ import annotations

from .errors import MisuseError, ParameterError


def whole(name: str, value: int, low: int, high: int) -> None:
    """MisuseError unless ``value`` is an int, ParameterError unless it lies between ``low`` and ``high``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise MisuseError(f"{name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ParameterError(f"{name} is {value}; between {low} and {high} is possible")
