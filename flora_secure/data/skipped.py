"""What a data set held and a run does not use: why, how many, and the first few names."""

from __future__ import annotations

from dataclasses import dataclass

NAMED = 5


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
        self._names.setdefault(reason, []).append(name)

    def summary(self) -> tuple[Skipped, ...]:
        """By reason, in the order in which the reasons came up."""
        return tuple(Skipped(reason, len(all_), tuple(all_[:NAMED])) for reason, all_ in self._names.items())
