"""`flora-secure bench`: our speed beside peers and limits, measured here and now."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from flora_cli.options import told
from flora_cli.output import Work, emit, emit_json, fail

if TYPE_CHECKING:
    from flora_bench.measure import Row

EXAMPLES = """\
Example:

flora-secure bench masking --quick"""


class Subject(StrEnum):
    """What can be measured."""

    MASKING = "masking"
    NOISE = "noise"
    TRAINING = "training"
    FEDERATION = "federation"


def _subject(text: str) -> Subject:
    known = [subject.value for subject in Subject]
    if text not in known:
        raise typer.BadParameter(f"{text!r} cannot be measured; give one of {', '.join(known)}.")
    return Subject(text)


def bench(
    subject: Annotated[
        Subject, typer.Argument(parser=_subject, help="masking, noise, training or federation.", metavar="SUBJECT")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: shows that it runs, says little.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Nothing scaled up from a part; adds some minutes.")] = False,
    device: Annotated[
        str, typer.Option("--device", help="Where training runs: cpu or cuda; for SUBJECT training.", metavar="DEVICE")
    ] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print every median as JSON on stdout.")] = False,
) -> None:
    """Measure CPU time (with a GPU, time), both sides in one run, medians; targets beside them, met or not: exits 0.

    Peers (flwr, opendp) come with the extra "bench"; without them their figures are left out.
    """
    import json as encoder

    from flora_bench import masking, noise, training
    from flora_bench.federation import rows as federation
    from flora_bench.measure import Scale, machine
    from flora_secure.errors import InputError

    if quick and full:
        fail("--quick and --full exclude each other; give one of them")
    scale = Scale.QUICK if quick else Scale.FULL if full else Scale.DEFAULT
    if device != "cpu" and subject is not Subject.TRAINING:
        fail(f"--device {device}: bench {subject.value} runs on the processor; leave it out")
    if device != "cpu" and not device.startswith("cuda"):
        fail(f"--device {device}: bench training runs on cpu or cuda (cuda:1, …)")
    measured = {
        Subject.MASKING: masking.rows(scale),
        Subject.NOISE: noise.rows(scale),
        Subject.TRAINING: training.rows(scale, device),
        Subject.FEDERATION: federation.rows(scale),
    }[subject]
    rows = []
    try:
        with Work() as work:
            work.say("", f"measuring {subject.value}")
            for row in measured:
                rows.append(row)
                work.log(" ".join(_cells(row)))
    except InputError as error:
        fail(told(error))
    if json:
        document = {
            "schema": "flora-secure/bench/1",
            "subject": subject.value,
            "scale": scale.value,
            "machine": machine(device),
            "rows": [row.to_dict() for row in rows],
        }
        emit_json(encoder.dumps(document, indent=2))
        return
    emit(*_table(rows), "", *(f"{name}: {value}" for name, value in machine(device).items()))


_HEADINGS = ("figure", "setting", "ours", "against", "", "ratio", "target", "")


def _cells(row: Row) -> tuple[str, ...]:
    target = f">= {row.at_least:g}" if row.at_least else f"<= {row.at_most:g}" if row.at_most else ""
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    other = row.note if row.other is None and target else row.against
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    return row.figure, row.setting, _amount(row.ours, row), other, _amount(row.other, row), ratio, target, verdict


def _amount(value: float | None, row: Row) -> str:
    if value is None:
        return ""
    if not row.unit:
        return f"{value:g}"
    if row.unit == "B":
        return f"{value / 1e6:.3g} MB" if value >= 1e4 else f"{value:.0f} B"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def _table(rows: list[Row]) -> list[str]:
    """Aligned columns, the notes below."""
    cells = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "─" * max(map(len, lines)))
    notes = [f"{row.figure}, {row.setting}: {row.note}" for row in rows if row.note]
    return [*lines, "", "Notes", *notes] if notes else lines
