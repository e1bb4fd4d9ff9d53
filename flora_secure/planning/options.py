"""What stands beside a setting's default: the flag that sets it, and what people are told of it.

A setting is a field of a section (`flora_secure.planning.sections`), made by `option`: key, type, default,
flag and help stand there once. `flora_secure.planning.option_table` collects them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

EngineName = Literal["process", "flower"]
SIMULATE, PLAN = "simulate", "plan"
BOTH = (SIMULATE, PLAN)


@dataclass(frozen=True)
class Option:
    """How a setting is offered to people.

    Attributes:
        flag: `--epsilon`, or a pair `--mirror/--no-mirror`; `None` where only a file or a caller sets it.
        help: one line, a full sentence.
        metavar: what stands for the value; `None` for what the type says.
        derived: what the default is, in words, where it follows from the rest.
        commands: which have the flag.
        everyday: shown before all others.
        panel: under which heading it stands; `None` for that of its section.
        known: values to complete and to take the nearest from, where others are possible too.
    """

    flag: str | None
    help: str
    metavar: str | None = None
    derived: str | None = None
    commands: tuple[str, ...] = BOTH
    everyday: bool = False
    panel: str | None = None
    known: Callable[[], Iterable[str]] | None = None


def option(default: Any, flag: str | None, help: str, **more: Any) -> Any:
    """A field of a frozen dataclass with this `default`; the rest as in `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(flag, help, **more)})
