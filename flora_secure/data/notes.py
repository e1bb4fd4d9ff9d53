"""What a person is told of a data set beside its images: what is left out, counted by reason, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flora_secure.boundary.foreign import printable

_NAMED = 5  # in a line; a run's folder has the names of all


@dataclass(frozen=True)
class Skipped:
    """Images (clients, classes: `reason` says which) left out for one reason, by their `names`; `used`: noted for it,
    and used all the same."""

    reason: str
    names: tuple[str, ...]
    used: bool = False

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.names)

    @property
    def line(self) -> str:
        """For people: "skipped 7: empty file (a.jpg, b.jpg, …)"."""
        more = ", …" if self.count > _NAMED else ""
        verb = "noted" if self.used else "skipped"
        return f"{verb} {self.count:,}: {self.reason} ({', '.join(self.names[:_NAMED])}{more})"


class Notes:
    """Collects, while a data set is read, what is left out and what a person should be warned of.

    `read`: how much there was to read, for people, where a file says so ("120 rows of the table").
    """

    def __init__(self) -> None:
        self.read = ""
        self._names: dict[str, list[str]] = {}
        self._used: set[str] = set()
        self._warnings: dict[str, None] = {}

    def skip(self, reason: str, name: str) -> None:
        """Counts one left out under `reason`, by a `name` for people: what is not printable, or no Unicode, is
        escaped."""
        self._names.setdefault(reason, []).append(printable(name))

    def mark(self, reason: str, name: str) -> None:
        """Counts one that is used all the same, which its `reason` should say; in all else as `skip`."""
        self._used.add(reason)
        self.skip(reason, name)

    def warn(self, line: str) -> None:
        """Keeps a line, without "warning:", about what was guessed or looks wrong, and what to do about it. Nothing is
        left out because of it. The same line is kept once."""
        self._warnings[printable(line)] = None

    def told(self) -> str:
        """What a message adds about why so little is left: "; skipped …", or nothing."""
        return "".join(f"; {one.line}" for one in self.skipped() if not one.used)

    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out or noted, an entry a reason, in the order in which the reasons came up."""
        return tuple(Skipped(reason, tuple(all_), reason in self._used) for reason, all_ in self._names.items())

    def warnings(self) -> tuple[str, ...]:
        """The lines that a person should read, in the order in which they came up."""
        return tuple(self._warnings)


def table_of(skipped: Sequence[Skipped]) -> str:
    """Everything that was left out, a line each: the reason, a tab, the name."""
    return "".join(f"{one.reason}\t{name}\n" for one in skipped for name in one.names)
