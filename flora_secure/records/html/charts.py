"""The charts of a page, drawn by matplotlib: each with what it shows in words, and its figures as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from flora_secure.boundary.foreign import printable
from flora_secure.records.html.shown import Shown, Table, epsilon_text, size_text
from flora_secure.records.html.svg import GROUND, INK, SERIES, SOFT, inline
from flora_secure.records.report import TOP_1
from flora_secure.records.report_table import NAMES, measured

_WIDE = 4.8  # inches, 346 pixels: a telephone shows letters as large as they are drawn
_MOST_BARS, _MOST_LETTERS, _MOST_MARKED = 30, 22, 40
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Chart:
    """A picture, what it is of (`title`), what to see in it (`note`), and the figures themselves."""

    title: str
    svg: Markup
    note: str
    table: Table


def over_rounds(runs: Sequence[Shown], name: str) -> Chart:
    """Accuracy, ε of the worst client and bytes so far, one above the other over the same rounds."""
    figure = Figure(figsize=(_WIDE, 5.4), layout="constrained")
    noisy = any(run.noisy for run in runs)
    panels = figure.subplots(3 if noisy else 2, 1, sharex=True)
    right, sent, spent = panels[0], panels[-1], panels[1] if noisy else None
    for number, run in enumerate(runs):
        look = _look(number, len(run.records))
        rounds = [record.round for record in run.records]
        right.plot(
            [0, *rounds],
            [100 * run.report.accuracy.warm_start, *(100 * record.accuracy for record in run.records)],
            label=_short(run.name),
            **look,
        )
        lost = [record for record in run.records if not record.summed]
        right.plot([r.round for r in lost], [100 * r.accuracy for r in lost], "x", color=INK, markersize=7)
        if spent is not None and run.noisy:
            spent.plot([0, *rounds], [0.0, *(_drawn(record.epsilon) for record in run.records)], **look)
        sent.plot([0, *rounds], [0.0, *(total / 1e3 for total in _bytes_so_far(run))], **look)
    before = {run.report.accuracy.zero_shot for run in runs}
    if len(before) == 1:
        _level(right, 100 * before.pop(), "zero-shot")
    right.set_title(
        f"Accuracy, % ({'right classes' if _one_measure(runs) == TOP_1 else _one_measure(runs)})", loc="left"
    )
    if spent is not None:
        spent.set_title("ε of the worst client so far", loc="left")
        budgets = {run.report.privacy.target_epsilon for run in runs if run.noisy}
        for budget in budgets:
            if budget is not None:
                _level(spent, budget, f"budget {budget:g}", "left", "top")
        spent.set_ylim(bottom=0)
    sent.set_title("kB so far of a client, up and down", loc="left")
    sent.set_ylim(bottom=0)
    sent.set_xlabel("round")
    sent.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(runs) > 1:
        figure.legend(loc="outside upper center", ncols=2)
    last = [
        f"{run.name}: accuracy {run.report.accuracy.final:.1%}, ε {epsilon_text(run.report.privacy.epsilon)}"
        for run in runs
    ]
    words = "; ".join(last) if len(runs) > 1 else last[0].partition(": ")[2]
    crosses = " A cross marks a round whose sum is not in the adapter." if any(_apart(run) for run in runs) else ""
    return Chart(
        "Accuracy, budget and bytes over the rounds",
        inline(figure, name, f"Accuracy, ε and bytes over the rounds. At the end: {words}."),
        f"The three panels share their rounds: what a point of accuracy cost stands below it.{crosses}",
        _rounds_table(runs),
    )


def ways(run: Shown, name: str) -> Chart:
    """The frozen model, the warm start, the federation, and the competitors on the same test images, side by side."""
    acc = run.report.accuracy
    found = [
        ("zero-shot", acc.zero_shot, SOFT),
        ("warm start", acc.warm_start, SERIES[2]),
        ("federated", acc.final, SERIES[0]),
    ]
    rivals = measured(run.report.competitors)
    found += [(what, share, SERIES[2 if what == NAMES["public"] else 1]) for what, share in rivals]
    figure = Figure(figsize=(_WIDE, 0.7 + 0.36 * len(found)), layout="constrained")
    low, high = (100 * end for end in acc.interval)
    shares = [100 * share for _, share, _ in found]
    ends = [*shares[:2], max(shares[2], high), *shares[3:]]
    axes = _bars(figure, [what for what, *_ in found], shares, [colour for *_, colour in found], ends)
    axes.plot([low, high], [2, 2], color=INK, linewidth=1.5, marker="|")
    axes.set_xlabel("right answers, %")
    words = ", ".join(f"{what} {share:.2%}" for what, share, _ in found)
    return Chart(
        "What the federation adds",
        inline(figure, name, f"Accuracy: {words}."),
        f"On {acc.test_examples:,} test images; the thin line is the 95 % confidence of the federated adapter."
        + _RIVALS * any(what != NAMES["public"] for what, _ in rivals),
        Table("Accuracy by how it was had", ("", "accuracy"), [(what, f"{share:.2%}") for what, share, _ in found]),
    )


_RIVALS = (
    " No budget covers what is computed from all data in one place, or without noise: it is for the simulation's owner."
)


def wire(run: Shown, name: str) -> Chart:
    """Where the bytes of a client and round go: broadcast and update, masking, invitation."""
    comm = run.report.communication
    broadcast = comm.broadcast_bytes
    update = comm.payload_bytes - broadcast
    parts = [
        ("update (its payload)", update, 0.0),
        ("broadcast (its payload)", 0.0, broadcast),
        (
            "masking: keys, shares, recovery",
            comm.upload_bytes - update,
            comm.download_bytes - broadcast - comm.invitation_bytes,
        ),
        ("invitation", 0.0, comm.invitation_bytes),
    ]
    figure = Figure(figsize=(_WIDE, 2.3), layout="constrained")
    axes = figure.subplots()
    start = [0.0, 0.0]
    for (what, up, down), colour in zip(parts, SERIES, strict=True):
        ends = [max(up, 0.0) / 1e3, max(down, 0.0) / 1e3]
        axes.barh([0, 1], ends, left=start, color=colour, edgecolor=GROUND, linewidth=1, label=what, height=0.6)
        start = [at + more for at, more in zip(start, ends, strict=True)]
    axes.set_yticks([0, 1], ["up", "down"])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.04)
    axes.set_xlim(left=0)
    axes.set_xlabel("kB a client and round")
    figure.legend(loc="outside upper center", ncols=2, fontsize=9, handlelength=1)
    up, down = comm.upload_bytes, comm.download_bytes
    less = (
        ""
        if comm.reduction is None
        else f" Sending the model both ways would be {size_text(2 * comm.full_model_bytes)}."
    )
    return Chart(
        "Where the bytes go",
        inline(figure, name, f"Bytes of a client and round: {size_text(up)} up, {size_text(down)} down."),
        f"Complete messages, the mean over clients and rounds.{less}",
        Table(
            "Bytes of a client and round",
            ("", "up", "down"),
            [
                *((what, f"{up:,.0f}", f"{down:,.0f}") for what, up, down in parts),
                ("together", f"{up:,.0f}", f"{down:,.0f}"),
            ],
        ),
    )


def classes(run: Shown, name: str) -> Chart | None:
    """Accuracy of each class, the worst first; `None` where there are none."""
    acc = run.report.accuracy
    known = zip(acc.classes, acc.per_class, strict=True)
    found = sorted(((share, title) for title, share in known if share is not None))
    if not found:
        return None
    drawn = found[:_MOST_BARS]
    figure = Figure(figsize=(_WIDE, 0.7 + 0.24 * len(drawn)), layout="constrained")
    axes = _bars(
        figure, [_short(title) for _, title in drawn], [100 * share for share, _ in drawn], [SERIES[0]] * len(drawn)
    )
    axes.axvline(100 * acc.final, color=INK, linewidth=1, linestyle="--")
    axes.set_xlabel("right answers, %; dashed: all classes")
    (worst, first), (best, last) = found[0], found[-1]
    some = f" The {len(drawn)} worst of {len(found):,} are drawn." if len(found) > len(drawn) else ""
    unknown = len(acc.classes) - len(found)
    some += f" Of {unknown:,} classes there is no test image." if unknown else ""
    return Chart(
        "Accuracy by class",
        inline(figure, name, f"Accuracy by class, from {first} {worst:.1%} to {last} {best:.1%}."),
        f"The worst class is {first}, {worst:.1%}.{some}",
        Table.thinned("Accuracy by class", ("class", "accuracy"), [(title, f"{share:.2%}") for share, title in found]),
    )


def noise(run: Shown, name: str) -> Chart | None:
    """How large the noise in a sum is beside what is in it, in units of the clip norm; `None` without noise."""
    size = run.report.communication.upload_values
    released = [r for r in run.records if r.noise_multiplier and r.contributions]
    if not released:
        return None
    shown = [(r, r.noise_multiplier or 0.0) for r in released]
    last, z = shown[-1]
    dots = [
        ("one contribution, at most", 1.0, SERIES[1]),
        ("noise, in any one direction", z, SOFT),
        (f"noise, over all {size:,} values", z * math.sqrt(size), SOFT),
        ("all contributions, if they agree", float(last.contributions), SERIES[0]),
    ]
    figure = Figure(figsize=(_WIDE, 2.0), layout="constrained")
    axes = figure.subplots()
    for place, (_, value, colour) in enumerate(dots):
        axes.plot([value], [place], "o", color=colour, markersize=8)
        axes.annotate(
            _length(value),
            (value, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=9,
        )
    axes.set_yticks(range(len(dots)), [what for what, *_ in dots])
    axes.set_ylim(len(dots) - 0.5, -0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    axes.set_xlabel("length in the sum ÷ clip norm")
    words = ", ".join(f"{what} {_length(value)}" for what, value, _ in dots)
    hidden = "One contribution is smaller than the noise in its own direction."
    if z < 1:
        hidden = "One contribution is larger than the noise in its own direction: how much that tells, ε says."
    return Chart(
        "Noise beside signal",
        inline(figure, name, f"Lengths in the sum of round {last.round}, in clip norms: {words}."),
        f"The sum of round {last.round}. {hidden} What all agree on is {last.contributions / z:,.0f} times the noise "
        "in its direction.",
        Table.thinned(
            "Noise and signal of each sum",
            ("round", "contributions", "clip norm", "noise multiplier", "noise over all values ÷ clip norm"),
            [
                (str(r.round), f"{r.contributions:,}", f"{r.clip_norm:.4g}", f"{z:.3f}", f"{z * math.sqrt(size):,.1f}")
                for r, z in shown
            ],
        ),
    )


def _bars(
    figure: Figure, names: Sequence[str], values: Sequence[float], colours: Sequence[str], ends: Sequence[float] = ()
) -> Axes:
    """Bars from 0 to 100, their values behind them or, where something is drawn over it, behind its end."""
    axes = figure.subplots()
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.66)
    for place, value, end in zip(places, values, ends or values, strict=True):
        axes.annotate(
            f"{value:.1f}",
            (end, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=9,
            bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 0.8},  # over lines
        )
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    return axes


def _look(number: int, points: int) -> dict[str, object]:
    return {
        "color": SERIES[number % len(SERIES)],
        "linestyle": _DASHES[number // len(SERIES) % len(_DASHES)],
        "marker": "o" if points <= _MOST_MARKED else None,
        "markersize": 3,
    }


def _level(axes: Axes, value: float, what: str, side: str = "right", edge: str = "bottom") -> None:
    axes.axhline(value, color=SOFT, linewidth=1, linestyle=":")
    at = (0.01 if side == "left" else 1, value)
    axes.annotate(what, at, xycoords=("axes fraction", "data"), ha=side, va=edge, color=SOFT, fontsize=9)


def _one_measure(runs: Sequence[Shown]) -> str:
    found = {run.report.accuracy.measures for run in runs}
    return found.pop() if len(found) == 1 else "of different kinds"


def _length(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _apart(run: Shown) -> bool:
    return any(not record.summed for record in run.records)


def _drawn(epsilon: float | None) -> float:
    return math.nan if epsilon is None else epsilon


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def _bytes_so_far(run: Shown) -> list[float]:
    """Of a client, the mean over the whole federation, after each round."""
    totals, total = [], 0
    for record in run.records:
        total += record.upload_bytes + record.download_bytes
        totals.append(total / record.clients)
    return totals


def _rounds_table(runs: Sequence[Shown]) -> Table:
    rows = []
    for run in runs:
        for record, so_far in zip(run.records, _bytes_so_far(run), strict=True):
            what = f"{len(record.survivors):,} of {len(record.participants):,} clients"
            if record.aborted is not None:
                counts = ", and counts: its survivors had been told" if record.announced else ""
                what = f"aborted: {record.aborted}{counts}"
            elif record.lost:
                what = "lost in a crash, and counts"
            row = (f"{record.accuracy:.2%}", epsilon_text(record.epsilon), size_text(so_far), what)
            rows.append((f"{run.name}, {record.round}" if len(runs) > 1 else str(record.round), *row))
    heads = ("round", "accuracy", "ε so far", "bytes of a client so far", "what became of it")
    return Table.thinned("Round by round", heads, rows)
