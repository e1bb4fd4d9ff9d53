"""What a page shows: runs as their folders have them, tables, charts. Numbers become text here and in `facts`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flora_secure.boundary.foreign import printable
from flora_secure.errors import RunFolderError, worded
from flora_secure.planning.option_table import flag_of
from flora_secure.records.reading import read_unverified
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Report
from flora_secure.records.report_table import rows

MOST_ROWS = 500  # of a table: a page stays a page


@dataclass(frozen=True)
class Shown:
    """A run to show. `name`: its folder's; `breaks`: where its files do not belong together."""

    name: str
    report: Report
    records: Sequence[RoundRecord]
    breaks: Sequence[str] = ()

    @property
    def noisy(self) -> bool:
        """Whether any privacy is claimed."""
        return self.report.privacy.epsilon is not None

    @property
    def masked(self) -> bool:
        """Whether the server saw sums alone."""
        return self.report.aggregation.profile != "off"

    @property
    def counted(self) -> bool:
        """Whether masking was counted and not run."""
        return self.report.masking == "counted"

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The terminal's table, settings named by their flags."""
        return [(what.strip(), worded(figure, lambda key: flag_of(key) or key)) for what, figure in rows(self.report)]

    @property
    def warnings(self) -> list[str]:
        """All that a reader must know before he believes a figure."""
        said = [f"{line}; flora-secure audit names all that is wrong" for line in self.breaks]
        said += [line for what, line in self.rows if what == "warning"]
        if not self.noisy:
            said.insert(0, "no noise was added: there is NO differential privacy")
        if not self.masked:
            said.append("secure aggregation was off: the server saw every upload singly")
        if self.counted:
            figure = next(figure for what, figure in self.rows if what == "masking")
            said.insert(0, f"masking was {figure}")
        return said


@dataclass(frozen=True)
class Table:
    """Rows of text below `heads`; the first cell of a row is what the row is of. `note`: what is not in it."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @classmethod
    def thinned(cls, caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        """At most `MOST_ROWS` of the rows, evenly taken, the last among them; the note says so."""
        if len(rows) <= MOST_ROWS:
            return cls(caption, heads, rows)
        step = math.ceil(len(rows) / MOST_ROWS)
        kept = [*rows[: len(rows) - 1 : step], rows[-1]]
        return cls(caption, heads, kept, f"Every {step}th of {len(rows):,} rows; all are in the run's own files.")


def read(path: Path) -> Shown:
    """The finished run in the folder `path`.

    Raises `RunFolderError` for a folder that holds no run, one that was interrupted, and what cannot be read.
    """
    if not os.path.isdir(path):
        raise RunFolderError(f"{path} is no run folder: there is no such folder")
    run, breaks = read_unverified(path)
    if run.report is None:
        raise RunFolderError(
            f"{path} has no report.json: the run was interrupted after {len(run.records)} of "
            f"{run.config.training.rounds} rounds; go on with flora-secure simulate --resume {path}"
        )
    if not run.records:
        raise RunFolderError(f"{path / 'rounds.jsonl'} holds no complete round: there is nothing to show")
    # where: without the folder, so that a run looks the same wherever it lies
    lines = [printable(f"{one.where.removeprefix(f'{path}/')} {one.what}") for one in breaks]
    return Shown(printable(path.resolve().name), run.report, run.records, lines)


def epsilon_text(value: float | None, places: int = 3) -> str:
    """ε to so many decimals, large ones to fewer; `None` and infinity are no bound."""
    if value is None or value == math.inf:
        return "no bound"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.{places}f}"


def size_text(count: float) -> str:
    """Bytes in the largest unit that leaves a figure of at least 1."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f} B"
