"""Numbers and names as a person writes them; numbers are refused with a hint where they are none."""

from __future__ import annotations

import typer


def number(text: str) -> float:
    """A real number, or inf."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number; write one such as 4 or 0.5, or inf") from None


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number; write one such as 100") from None


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(","))
