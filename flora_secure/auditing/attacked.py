"""What attacks on a run's federation came to, as `flora-secure attack` writes it down, and what that says to an audit.

The attacks themselves need data and model (`flora_secure.auditing.attacks`); reading what they came to needs neither.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flora_secure.auditing.findings import WARNING, Block, Finding, Measurement, Problem, judged
from flora_secure.boundary.foreign import json_of, read_text
from flora_secure.errors import ForeignError, PlainError, RunFolderError
from flora_secure.plain import document_schema, from_plain
from flora_secure.records.reading import read_lines
from flora_secure.records.report_table import html_table

SCHEMA = "flora-secure/attacks/1"
PLACE = Path("local", "attacks", "attacks.json")  # in a run folder; what is in local/ never leaves
CONFIDENCE = 0.999  # of every interval; an alarm takes one end of it
FALSE_ALARM = (1 - CONFIDENCE) / 2
_LEVEL = f"{100 * CONFIDENCE:g} %"
RECONSTRUCTION, MEMBERSHIP, SITES = "reconstruction", "membership", "sites"
ATTACKS = (RECONSTRUCTION, MEMBERSHIP, SITES)
CONTROL, HIDDEN, BOUNDED, SHOWN = "control", "hidden", "bounded", "shown"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One attack on one object.

    `attack`: of `ATTACKS`. `target`: whom it is about, and of what. `measure`: what is counted; `value` is it, with an
    interval from `low` to `high` that misses the true one once in a thousand; `chance`: what guessing reaches.
    `allowed`: the most that the run's ε allows, `null` where it allows anything. `role`: "control", where the attack
    has to succeed or shows nothing; "hidden", which has to be at chance; "bounded", which has to stay within `allowed`;
    "shown", of which nothing is promised. `trials`: how often it was tried; `candidates`: among how many; `rank`:
    median rank of the best of the right answers, from 1; `rank_by_chance`: the same of as many wrong ones; `p`: share
    of random assignments that fit as well (of ranks: by the sign test).
    """

    attack: str
    target: str
    object: str
    measure: str
    value: float
    low: float
    high: float
    chance: float
    allowed: float | None
    role: str
    trials: int
    candidates: int | None
    rank: float | None
    rank_by_chance: float | None
    p: float | None

    @property
    def name(self) -> str:
        """What was attacked and what is counted, in words."""
        return f"{self.attack}, {self.target}: {self.object}, {self.measure}"

    @property
    def bad(self) -> bool:
        """Whether it is not as its role says: a control that fails, or a promise that does not hold."""
        if self.role == CONTROL:
            return self.low <= self.chance
        limit = {HIDDEN: self.chance, BOUNDED: 1.0 if self.allowed is None else self.allowed}.get(self.role, 1.0)
        return self.low > limit

    @property
    def says(self) -> str:
        """What it shows, in words."""
        above = self.low > self.chance
        if self.role == CONTROL:
            return "succeeds, as it should" if above else "no better than chance: it shows nothing"
        if self.role == HIDDEN:
            return "finds what masks should hide" if above else "at chance, as it should be"
        if self.bad:
            return "more than ε allows"
        if not above:
            return "not told from chance"
        return "better than chance, within ε" if self.role == BOUNDED else "better than chance"

    @property
    def line(self) -> str:
        """What it shows, and the figure with all that stands beside it."""
        more = f", ε allows {_percent(self.allowed)}" if self.allowed is not None else ""
        if self.rank and self.rank_by_chance and self.candidates:
            more += f", median rank {self.rank:,.0f} of {self.candidates:,} (wrong ones {self.rank_by_chance:,.0f})"
        more += f", p {self.p:.2g}" if self.p is not None else ""
        interval = f"{_percent(self.value)} ({_percent(self.low)} to {_percent(self.high)})"
        return f"{self.says}: {interval}, chance {_percent(self.chance)}{more}"

    @property
    def measurement(self) -> Measurement:
        """The same as audits have it."""
        return Measurement(
            name=self.name,
            value=self.value,
            low=self.low,
            high=self.high,
            ceiling=None,
            false_alarm=FALSE_ALARM if self.role in (HIDDEN, BOUNDED) else None,
            assumption=f"{self.says}; guessing reaches {self.chance:.2g}; {self.trials:,} trials; {_LEVEL} interval",
            alarm=self.bad and self.role != CONTROL,
        )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


# the title where a check meets no problem, and where it does, by attack and role
_TITLES = {
    (RECONSTRUCTION, CONTROL): ("X-01", "Unprotected, an update gives its images away: the attack works",
                                "The attack shows nothing where it does not find the images of an unprotected update"),
    (RECONSTRUCTION, HIDDEN): ("X-02", "Masked uploads tell nothing of images", "Masked uploads give images away"),
    (RECONSTRUCTION, BOUNDED): ("X-03", "Sum and adapter tell of images no more than ε allows",
                                "Sum or adapter give more of images away than ε allows"),
    (MEMBERSHIP, CONTROL): ("X-04", "Without noise, membership shows: the attack works",
                            "The attack shows nothing of what it does not find without noise either"),
    (MEMBERSHIP, BOUNDED): ("X-05", "Membership shows no more than ε allows", "Membership shows more than ε allows"),
    (SITES, CONTROL): ("X-06", "Unprotected, updates and models tell their site: the attack works",
                       "The attack shows nothing of what it does not find without protection either"),
    (SITES, HIDDEN): ("X-07", "Masked uploads do not tell their site", "Masked uploads tell their site"),
    (SITES, BOUNDED): ("X-08", "Sum and adapter tell whose data they hold no more than ε allows",
                       "Sum or adapter tell whose data they hold better than ε allows"),
}  # fmt: skip
_UNCOVERED = [
    "That these attacks find little does not say that no attack finds more: ε alone bounds all of them.",
    "The attacks are made on federations that the same program trains anew on the same data, not on the messages of "
    "the run itself.",
]


@dataclass(frozen=True, kw_only=True)
class Attacks:
    """What attacks on a run's federation came to. A notebook shows it as a table.

    `rounds_hash`: SHA-256 of the last line of the run's log. `seed`: of the attacks' own draws. `shadows`: federations
    that were trained for membership, 0 where that was not asked for.
    """

    rounds_hash: str
    seed: int
    shadows: int
    outcomes: list[Outcome]

    @property
    def blocks(self) -> list[Block]:
        """One audit for each attack that was made."""
        found = [(name, [one for one in self.outcomes if one.attack == name]) for name in ATTACKS]
        return [_block(name, outcomes) for name, outcomes in found if outcomes]

    @property
    def passed(self) -> bool:
        """Whether no attack found what the run promises to hide."""
        return not any(one.bad for one in self.outcomes if one.role != CONTROL)

    def to_json(self) -> str:
        """The document that `flora-secure attack --json` prints and attacks.json holds."""
        table = {"schema": SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False)

    def rows(self) -> list[tuple[str, str]]:
        """The table that people see: (what, text), of each attack its findings, then an outcome a line."""
        rows = []
        for block in self.blocks:
            rows += [(f"{finding.check} {finding.severity}", finding.title) for finding in block.findings]
            mine = [one for one in self.outcomes if one.attack == block.name]
            for what in dict.fromkeys((one.object, one.measure) for one in mine):
                rows.append((f"  {what[0]}", f"{what[1]}:"))
                same = [one for one in mine if (one.object, one.measure) == what]
                rows += [(f"    {one.target}", one.line) for one in same]
        return rows

    def _repr_html_(self) -> str:
        return html_table("Attacks", self.rows())


def _block(name: str, outcomes: Sequence[Outcome]) -> Block:
    findings = []
    for (attack, role), (check, right, wrong) in _TITLES.items():
        mine = [one for one in outcomes if (attack, role) == (one.attack, one.role)]
        if attack == name and mine:
            findings.append(_finding(check, role, (right, wrong), mine))
    objects = ", ".join(dict.fromkeys(one.object for one in outcomes))
    return Block(
        name=name,
        left_out=None,
        findings=findings,
        measurements=[one.measurement for one in outcomes if one.role != SHOWN],
        checked=[f"The attack was made on: {objects}."],
        assumed=["Whoever attacks knows model, settings and broadcast, and has the candidates' data to compare with."],
        uncovered=_UNCOVERED,
    )


def _finding(check: str, role: str, title: tuple[str, str], outcomes: Sequence[Outcome]) -> Finding:
    fine = "; ".join(f"{one.object} ({one.target}): {_percent(one.value)}" for one in outcomes)
    problems: list[Problem] = [(one.name, one.line) for one in outcomes if one.bad]
    if role == CONTROL:
        remedy = "ask for more shadows or other data; until it works, what it does not find elsewhere proves nothing"
        return judged(check, title, problems, fine, remedy, WARNING)
    return judged(check, title, problems, fine, "find out whether masks and noise are what the log says before use")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of attacks.json, as docs/attacks.schema.json has it."""
    return document_schema(Attacks, SCHEMA)


def last_line_hash(run: Path) -> str:
    """SHA-256 of the last line of the log of the run in this folder; of nothing where it has none."""
    lines, _ = read_lines(run)
    return hashlib.sha256((lines[-1] if lines else "").encode()).hexdigest()


def read(path: Path, run: Path) -> Attacks:
    """Read what attacks on the run in folder `run` came to. Raises `RunFolderError` for what is no such file, or is of
    another run."""
    try:
        table = json_of(read_text(path))
    except ForeignError as error:
        raise RunFolderError(f"`attacks` {path} cannot be read: {error}") from None
    found: dict[str, Any] = dict(table) if isinstance(table, dict) else {}
    if (schema := found.pop("schema", None)) != SCHEMA:
        raise RunFolderError(f"`attacks` {path} has schema {schema!r:.60}, this release reads {SCHEMA}")
    try:
        attacks = from_plain(Attacks, found)
    except PlainError as error:
        raise RunFolderError(f"`attacks` {path}: {error}") from None
    if attacks.rounds_hash != last_line_hash(run):
        raise RunFolderError(f"`attacks` {path} is of another run than {run}: attack that run again")
    for one in attacks.outcomes:
        shares = (one.low, one.value, one.high, one.chance, one.allowed or 0.0)
        known = one.attack in ATTACKS and one.role in (CONTROL, HIDDEN, BOUNDED, SHOWN)
        if not known or not all(0 <= share <= 1 for share in shares) or not one.low <= one.value <= one.high:
            raise RunFolderError(f"`attacks` {path}: no attack comes to this: {one.name!r:.100}")
    return attacks


def blocks_of(path: Path | None, run: Path) -> list[Block]:
    """The audits that attacks make of a run: those in the file `path`, where one is given or lies in the run folder. A
    file that cannot be used is named, and the other audits are still made."""
    place = run / PLACE if path is None else path
    if path is None and not os.path.lexists(place):
        return [Block.skipped("attacks", "none were made; who has the run's data can: flora-secure attack RUN")]
    try:
        return read(place, run).blocks
    except RunFolderError as error:
        return [Block.skipped("attacks", str(error))]


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
