"""The checks that every number of the public API goes through."""

from __future__ import annotations

import operator

from flora_protocols.errors import MisuseError, ParameterError


def whole(name: str, value: int, low: int, high: int) -> None:
    """MisuseError unless `value` is an int, ParameterError unless it lies between `low` and `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise MisuseError(f"{name} must be an int, not {shown(value)}")
    if not low <= value <= high:
        raise ParameterError(f"{name} is {shown(value)}; between {low} and {high} is possible")


def integer(name: str, value: object) -> int:
    """`value` as an int: numpy's integers are as good as Python's, and would overflow where those do not.

    MisuseError for anything else, booleans and whole floats among it.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise MisuseError(f"{name} must be an int, not {shown(value)}; pass a whole number such as 10")


def shown(value: object) -> str:
    """`repr` of what was given, for a message: one line, and cut where it is long. Of bytes, which may be somebody's
    key, only how many."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an int of more digits than Python prints
        text = f"{type(value).__name__} beyond printing"
    return text if len(text) <= 60 else f"{text[:59]}…"
