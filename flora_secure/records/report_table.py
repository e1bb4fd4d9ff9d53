"""A report as people read it: a table of accuracy, privacy and communication together, and Markdown; the table that
notebooks show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape

from flora_secure.records.report import (
    TOP_1,
    Accuracy,
    Aggregation,
    Choices,
    Communication,
    Competitors,
    Data,
    Forgetting,
    Privacy,
    Report,
    Retrieval,
    Timing,
    TopOne,
)

Row = tuple[str, str]
"""What a figure is of, indented where it belongs to the row above; the figure."""

COUNTED = (
    "COUNTED AND NOT RUN (`aggregation.masking` counted): uploads were added up in the clear; ε and bytes are those of "
    "a run that masks"
)


IMAGES_ALONE = {
    "own": "on its own test images",
    "mixed": "on test images mixed like its own labels",
    "all": "on all test images, none of which is a client's",
}
"""On which test images clients alone are scored, by `Alone.images`, in words."""
NAMES = {
    "public": "public labels alone",
    "local": "one client alone",
    "central": "all data in one place",
    "no-noise": "without noise",
}
"""What people call each competitor."""


def rows(report: Report) -> list[Row]:
    """The table that people see, as pairs of what a figure is of and the figure."""
    found = [
        *([("masking", COUNTED)] if report.masking == "counted" else []),
        *_accuracy(report.accuracy, report.retrieval, report.forgetting),
        *_competitors(report.competitors, report.accuracy.final),
        *_choices(report.choices),
        *_privacy(report.privacy),
        *_communication(report.communication),
        *_aggregation(report.aggregation),
        *_time(report.timing),
        *_data(report.data),
    ]
    found += [("warning", line) for line in report.warnings]
    if not report.provenance.secret_noise and report.privacy.epsilon is not None:
        found.append(("warning", "simulation noise: the noise keys come from the seed and are NOT secret"))
    return found


def markdown(report: Report) -> str:
    """The table and the privacy statement as Markdown."""
    lines = ["| | |", "|---|---|", *(f"| {what.strip()} | {figure} |" for what, figure in rows(report))]
    return "\n".join([*lines, "", "## Privacy statement", "", report.privacy.statement, ""])


def _accuracy(acc: Accuracy, retrieval: Retrieval | None, forgetting: Forgetting | None) -> list[Row]:
    what = "" if acc.measures == TOP_1 else f"{acc.measures} "
    return [
        ("accuracy", f"{what}{acc.final:.2%} on {acc.test_examples:,} test images"),
        (
            "  before",
            f"zero-shot {acc.zero_shot:.2%}"
            + ("" if acc.warm_start == acc.zero_shot else f", warm start {acc.warm_start:.2%}"),
        ),
        ("  spread", _spread(acc)),
        *([] if retrieval is None else _recalls(retrieval)),
        *([] if forgetting is None else _forgotten(forgetting)),
    ]


def measured(found: Competitors) -> list[tuple[str, float]]:
    """The competitors with a figure on the same test images as the run's, by what people call them."""
    known = (("public", found.public), ("central", found.central), ("no-noise", found.no_noise))
    return [(NAMES[name], figure) for name, figure in known if figure is not None]


def _competitors(found: Competitors, final: float) -> list[Row]:
    """They stand below the accuracy, hence with what they have more or less than that."""
    told = {what: f"{share:.2%} ({(share - final) * 100:+.2f} points)" for what, share in measured(found)}
    told |= {NAMES.get(name, name): f"not known: {why}" for name, why in found.left_out.items()}
    if (alone := found.local) is not None:
        where = IMAGES_ALONE.get(alone.images, alone.images)
        best = "" if alone.best is None else f", the best one {alone.best:.2%}"
        told[NAMES["local"]] = (
            f"{alone.mean:.2%} {where}{best} (federated {alone.federated:.2%}, fitted on at home "
            f"{alone.fitted_on:.2%}); the {alone.largest} largest {alone.mean_of_largest:.2%} (federated "
            f"{alone.federated_of_largest:.2%}, fitted on {alone.fitted_on_of_largest:.2%})"
        )
    order = [*NAMES.values(), *told]
    return [(f"  {what}", told[what]) for what in sorted(told, key=order.index)]


def _choices(choices: Choices) -> list[Row]:
    """Each of them belongs to accuracy, and is said where there was one."""
    named = ("  warm start", choices.warm_start), ("  control variate", choices.control_variate)
    return [(name, choice.line) for name, choice in named if choice is not None]


def _privacy(priv: Privacy) -> list[Row]:
    if priv.epsilon is None:
        return [("privacy", "NONE: no noise was added (epsilon = inf)")]
    target = f"of {priv.target_epsilon:g} allowed" if priv.target_epsilon is not None else ""
    if priv.target_epsilon is not None and priv.epsilon < 0.995 * priv.target_epsilon:
        target += " (planned for the fewest survivors and the most rounds of a client)"
    return [
        (
            "privacy",
            f"ε = {priv.epsilon:.3f} {target}, δ = {priv.delta:.3g}, per {priv.unit}, {priv.view} view",
        ),
        (
            "  noise",
            f"multiplier {priv.noise_multiplier:.3f} planned for {priv.honest_minimum} honest survivors"
            + (", {:.3f} to {:.3f} in the sums".format(*priv.noise_released) if priv.noise_released else "")
            + f"; clip norm {priv.clip_norm:g}",
        ),
        (
            "  one upload alone",
            "not bounded"
            if priv.epsilon_local is None
            else f"ε = {priv.epsilon_local:.1f} if the server and all other clients collude",
        ),
        (
            "  outsiders",
            "not bounded"
            if priv.epsilon_outsider is None
            else f"ε = {priv.epsilon_outsider:.3f} for those who see only the released models",
        ),
        (
            "  cross-check",
            (", ".join(f"{k} {v:.3f}" for k, v in priv.cross_check.items()) or "none")
            + "".join(f"; outsiders {k} {v:.3f}" for k, v in priv.cross_check_outsiders.items()),
        ),
    ]


def _communication(comm: Communication) -> list[Row]:
    return [
        (
            "communication",
            ("nothing sent " if comm.reduction is None else f"{comm.reduction:,.0f} × less than sending the model ")
            + f"({comm.upload_bytes / 1000:,.1f} kB up, {comm.download_bytes / 1000:,.1f} kB down "
            f"a client and round)",
        ),
        (
            "  adapter",
            f"{comm.parameters:,} of {comm.full_model_bytes // 4:,} parameters "
            f"({comm.parameter_ratio:,.0f} × fewer), {comm.bits} bits each",
        ),
    ]


def _aggregation(agg: Aggregation) -> list[Row]:
    """With a row for each kind of round whose sum is not in the adapter, if there were any."""
    apart = (
        ("  aborted rounds", [n for n in agg.aborted if n not in agg.announced], "no sum was released"),
        ("  aborted late", agg.announced, "their survivors had been told, so that they count in the budget"),
        ("  lost rounds", agg.lost, "in flight when the run was killed; they count in the budget"),
    )
    return [
        (
            "aggregation",
            f"{agg.profile}, {agg.clients} clients"
            + ("" if agg.sampling is None else f", {agg.sampling} cohorts of {_span(agg.cohort)}")
            + ("" if agg.threshold is None else f", {agg.neighbours} neighbours each, threshold {agg.threshold}")
            + ("" if agg.suite is None else f", {agg.suite}, {agg.slots} rounds a set-up")
            + f"; {sum(agg.dropped)} dropped, {sum(agg.recovered)} recovered, {len(agg.aborted)} rounds aborted",
        ),
        *((name, f"{_numbers(rounds)}: {fate}") for name, rounds, fate in apart if rounds),
    ]


def _time(time: Timing) -> list[Row]:
    seconds = dataclasses.asdict(time.seconds)
    total = round(seconds.pop("total"), 1)
    parts = {name: round(value, 1) for name, value in seconds.items()}
    largest = max(parts, key=parts.__getitem__)
    parts[largest] = round(parts[largest] + total - sum(parts.values()), 1)  # what is shown adds up, and is no debt
    shown = ", ".join(f"{name} {value:.1f}" for name, value in parts.items() if value)
    memory = "not known here" if time.peak_memory_bytes is None else f"{time.peak_memory_bytes / 1e9:.2f} GB"
    return [("time", f"{total:.1f} s ({shown}), peak memory {memory}")]


def _data(data: Data) -> list[Row]:
    captions = "" if data.private_captions is None else f" with {data.private_captions:,} captions"
    classes = (
        ""
        if data.mean_classes is None or data.mean_label_distance is None
        else f", {data.mean_classes:.1f} classes each, label distance {data.mean_label_distance:.2f}"
    )
    held = f"{data.dataset}, at the clients; the server does not know how many images there are"
    if data.private_images is not None:
        held = (
            f"{data.dataset}, {data.private_images:,} images{captions} dealt {data.partition}: "
            f"{data.client_minimum:,} / {data.client_median:,.0f} / {data.client_maximum:,} a client "
            f"(min, median, max){classes}"
        )
    found = [("data", held)]
    if data.test != "default":
        found.append(("  test images", f"{data.test}: {data.test_images:,}"))
    found += [("  noted" if one.used else "  skipped", f"{one.count:,}: {one.reason}") for one in data.skipped]
    return found


def _numbers(rounds: list[int], most: int = 10) -> str:
    more = f", … ({len(rounds)})" if len(rounds) > most else ""
    return ", ".join(map(str, rounds[:most])) + more


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _spread(acc: Accuracy) -> str:
    low, high = acc.interval
    parts = [f"95 % confidence {low:.2%} to {high:.2%}"]
    classes = [(value, name) for value, name in zip(acc.per_class, acc.classes, strict=True) if value is not None]
    if classes:
        worst, name = min(classes)
        parts.append(f"worst class {name} {worst:.1%}")
    if acc.client_worst_decile is not None:
        parts.append(f"worst tenth of clients {acc.client_worst_decile:.1%}")
    return ", ".join(parts)


def _recalls(found: Retrieval) -> list[Row]:
    at = "/".join(str(recall.k) for recall in found.final)
    sides = (
        ("  image to text", [r.image_to_text for r in found.final], [r.image_to_text for r in found.zero_shot],
         f"{found.captions:,} captions"),
        ("  text to image", [r.text_to_image for r in found.final], [r.text_to_image for r in found.zero_shot],
         f"{found.images:,} images"),
    )  # fmt: skip
    return [
        (name, f"recall@{at} {_percents(final)} among {among} (zero-shot {_percents(before)})")
        for name, final, before, among in sides
    ]


def _forgotten(found: Forgetting) -> list[Row]:
    def moved(top: TopOne) -> str:
        return f"{top.zero_shot:.1%} → {top.final:.1%}"

    some = ", ".join(found.classes[:3]) + (", …" if len(found.classes) > 3 else "")
    # one class by itself is always right
    alone = f"{moved(found.among_unseen)} among themselves, " if len(found.classes) > 1 else ""
    return [
        (
            "  unseen classes",
            f"{len(found.classes)} ({some}), zero-shot → final {alone}"
            f"{moved(found.unseen_among_all)} among all; images of all classes {moved(found.among_all)}",
        )
    ]


def _percents(shares: list[float]) -> str:
    return " / ".join(f"{share:.1%}" for share in shares)


def html_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A table of (what, figure), all text escaped; rows that are indented belong to the one above and stand back."""
    lines = [f"<table><caption>{escape(title)}</caption><tbody>"]
    for what, figure in rows:
        name, style = escape(what.strip()), "text-align:left;vertical-align:top"
        heading = f'<th style="{style}">{name}</th>'
        if what.startswith(" "):
            heading = f'<td style="{style};padding-left:2em;opacity:.7">{name}</td>'
        lines.append(f'<tr>{heading}<td style="{style}">{escape(figure)}</td></tr>')
    return "\n".join([*lines, "</tbody></table>"])
