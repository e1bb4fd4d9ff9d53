"""The document as one HTML file for a browser and for print, the three ε and what was measured on one axis."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from flora_secure.auditing.document.registry import registry_text
from flora_secure.auditing.document.sections import label_figures, label_rows, sections, title, views
from flora_secure.auditing.findings import Audit
from flora_secure.boundary.foreign import printable
from flora_secure.records.html.svg import INK, SERIES, SOFT, drawing, inline

_WIDE = 6.4  # inches
_DRAWN = 1e6  # the largest ε that is worth an axis; beyond it nothing is promised


def page(audit: Audit) -> str:
    """The whole document as HTML; UTF-8 text without a reference to anything outside of it."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("flora_secure.auditing.document", ""), PackageLoader("flora_secure.records.html", "")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("document.html").render(
        title=title(audit),
        passed=audit.passed,
        figures=label_figures(audit),
        label=label_rows(audit),
        axis=_axis(audit),
        sections=sections(audit),
        entry=registry_text(audit).split("\n"),
    )


def _axis(audit: Audit) -> Markup | None:
    """The three ε as they were derived, what is claimed, and every lower bound and estimate, on one axis."""
    label = audit.label
    if label is None:
        return None
    found: list[tuple[str, float, str, str]] = [
        (f"ε {whose}", view.epsilon, "o", SERIES[0]) for whose, view in views(label) if view.epsilon is not None
    ]
    claims = [
        ("ε claimed" if figure.name == "epsilon" else f"{figure.name}, claimed", figure.claimed)
        for figure in audit.figures
        if figure.name == "epsilon" or figure.name.startswith("ε for")
    ]
    found = [(name, claim, "D", INK) for name, claim in claims if claim is not None] + found
    measured = [one for block in audit.blocks for one in block.measurements if one.of_epsilon]
    # what is no bound is no arrow: an estimate beyond the claim refutes nothing
    found += [
        (one.name, one.value, "x", SOFT)
        if one.false_alarm is None
        else (one.name, one.value, ">", SERIES[1 if one.alarm else 2])
        for one in measured
        if one.value is not None
    ]
    drawn = [
        (name, value, mark, colour) for name, value, mark, colour in found if value is not None and value <= _DRAWN
    ]
    if not drawn:
        return None
    with drawing():
        figure = Figure(figsize=(_WIDE, 0.8 + 0.34 * len(drawn)), layout="constrained")
        axes = figure.subplots()
        for place, (_, value, mark, colour) in enumerate(drawn):
            axes.plot([max(value, 1e-2)], [place], mark, color=colour, markersize=7)
            axes.annotate(
                f"{value:.3g}", (max(value, 1e-2), place), xytext=(8, 0), textcoords="offset points", va="center",
                color=INK,
            )  # fmt: skip
        axes.set_yticks(range(len(drawn)), [printable(name) for name, *_ in drawn])
        axes.invert_yaxis()
        axes.set_xscale("log")
        low, high = (edge(max(value, 1e-2) for _, value, *_ in drawn) for edge in (min, max))
        axes.set_xlim(low / 2, high * 3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("ε, on a log scale")
        axes.tick_params(axis="y", colors=SOFT)
        words = ", ".join(f"{name} {value:.3g}" for name, value, *_ in drawn)
        return inline(figure, "axis", f"On one axis: {words}.")
