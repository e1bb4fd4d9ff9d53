"""What a data set held and a run does not use: why, how many, and the first few names."""

from __future__ import annotations

from dataclasses import dataclass

NAMED = 5


def printable(name: str) -> str:
    """`name` in one line that any terminal and any file in UTF-8 can take."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


@dataclass(frozen=True)
class Skipped:
    """`count` images (clients, classes: `reason` says which) left out for one reason; `names` of the first few."""

    reason: str
    count: int
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        """For people: "skipped 7: empty file (a.jpg, b.jpg, …)"."""
        more = ", …" if self.count > len(self.names) else ""
        return f"skipped {self.count:,}: {self.reason} ({', '.join(self.names)}{more})"


class SkipList:
    """Collects what is left out."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """`name` as people may read it: what is not printable, or no Unicode, is escaped."""
        self._names.setdefault(reason, []).append(printable(name))

    def told(self) -> str:
        """What a message adds about why so little is left: "; skipped …", or nothing."""
        return "".join(f"; {one.line}" for one in self.summary())

    def summary(self) -> tuple[Skipped, ...]:
        """By reason, in the order in which the reasons came up."""
        return tuple(Skipped(reason, len(all_), tuple(all_[:NAMED])) for reason, all_ in self._names.items())
