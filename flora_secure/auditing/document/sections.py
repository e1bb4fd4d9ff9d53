"""The document in parts that need no format yet, in the order of NIST SP 800-226.

First the guarantee, then what could undermine it: ε and the unit; mechanism and accounting; sensitivity and clipping;
who adds the noise and who is trusted; the implementation; data collection and exposure (SP 800-226, sections 2 to 4).
Nothing in it follows from when or where it is made: the same audit gives the same document, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from flora_secure.auditing.findings import OK, VIOLATION, WARNING, Audit, Block, Figure, Label, Measurement, View

Rows = Sequence[tuple[str, ...]]
SEVERITIES = {VIOLATION: "Violations", WARNING: "Warnings", OK: "As it should be"}
_NOT_KNOWN = "not known"
_DISAGREES = ", which disagrees"
_BOUNDS = (
    "A lower bound on ε holds whatever the code does; beyond a claimed ε it refutes the claim. An estimate does not."
)


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, bullet points and a table, of which any may be missing. `head`: of the table's columns."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    head: tuple[str, ...] = ()
    rows: Rows = ()
    inner: list[Section] = field(default_factory=list)


def title(audit: Audit) -> str:
    """What the document is about; of a folder its name alone, wherever it lies."""
    return f"Audit of {PurePath(audit.run).name or audit.run}"


def views(label: Label) -> list[tuple[str, View]]:
    """The three ε, each with whose it is."""
    return [
        ("against the server", label.server),
        ("against outsiders", label.outsider),
        ("one upload alone", label.upload),
    ]


def _apart(figure: Figure) -> bool:
    """Whether claim and derivation differ; with nothing that is claimed nothing disagrees."""
    return figure.claimed is not None and not figure.agrees


def label_figures(audit: Audit) -> Rows:
    """The three ε and δ, each with its figure and what it is of."""
    label = audit.label
    if label is None:
        return []
    refuted = [block.name for block in audit.blocks if any(one.alarm for one in block.measurements)]
    by = f"By the log {{}}; {', '.join(refuted)} refute that. "
    found = [
        (f"ε {whose}", "refuted", by.format(epsilon(view)) + view.said)
        if refuted and view.status == "bounded"
        else (f"ε {whose}", epsilon(view), view.said)
        for whose, view in views(label)
    ]
    small = _NOT_KNOWN if label.delta is None else f"{label.delta:g}"
    return [
        *found,
        ("δ", small, "The probability beside all that ε bounds; to be far below one over the number of units."),
    ]


def label_rows(audit: Audit) -> Rows:
    """The rest of the label: what a reader takes away who reads nothing else."""
    label = audit.label
    if label is None:
        return [("verdict", audit.verdict), ("guarantee", "none that could be derived")]
    return [
        ("verdict", audit.verdict),
        ("system", label.system + (f", {label.date}" if label.date else "")),
        ("protected", label.unit or _NOT_KNOWN),
        ("trusted", " ".join(label.trusted) or _NOT_KNOWN),
        ("not covered", " ".join(label.uncovered)),
    ]


def epsilon(view: View) -> str:
    """ε in figures, ∞ where nothing bounds it."""
    if view.epsilon is not None:
        return f"{view.epsilon:.4g}" + (" if …" if view.status == "conditional" else "")
    return "∞" if view.status == "infinite" else _NOT_KNOWN


def sections(audit: Audit) -> list[Section]:
    """All of the document below its label."""
    label = audit.label
    parts = [] if label is None else _of_the_label(audit, label)
    return [*parts, _measured(audit), *_findings(audit), *_blocks(audit.blocks)]


def _of_the_label(audit: Audit, label: Label) -> list[Section]:
    parameters = [(name, f"{value:g}") for name, value in sorted(label.parameters.items()) if "clip" not in name]
    clips = [(name, f"{value:g}") for name, value in sorted(label.parameters.items()) if "clip" in name]
    return [
        Section(
            "1. ε and the unit",
            [f"Protected: {label.unit or _NOT_KNOWN}.", f"Neighbouring: {label.adjacency or _NOT_KNOWN}."],
            head=("figure", "claimed", "derived"),
            rows=[
                (figure.name, _number(figure.claimed), _number(figure.derived) + _DISAGREES * _apart(figure))
                for figure in audit.figures
                if not figure.name.startswith("round ")
            ],
        ),
        Section(
            "2. Mechanism and accounting",
            [
                f"Mechanism: {label.mechanism or _NOT_KNOWN}.",
                f"Composition: {label.composition or _NOT_KNOWN}.",
                f"Sampling: {label.sampling or _NOT_KNOWN}.",
                f"Accountant: {label.accountant or _NOT_KNOWN}; asked: {_versions(audit.accountants)}.",
                *(f"Not asked: {name}, {why}." for name, why in audit.left_out.items()),
            ],
            head=("parameter", "value"),
            rows=parameters,
        ),
        Section(
            "3. Sensitivity and clipping",
            ["How far one unit can move what is released: its contribution is clipped to the norm below."]
            if clips
            else ["The clip norm is not known, and with it how far one unit can move what is released."],
            head=("parameter", "value") if clips else (),
            rows=clips,
        ),
        Section("4. Who adds the noise, and who is trusted", [f"Model of trust: {label.trust}."], label.trusted),
        Section("5. Implementation", [f"{label.implementation or _NOT_KNOWN}."]),
        Section(
            "6. Data collection and exposure",
            [f"Hyper-parameters: {label.chosen or _NOT_KNOWN}."],
            inner=[
                Section("Leaves without noise, and no ε covers it", [], label.exposed or ["Not known."]),
                Section("Not covered", [], label.uncovered),
            ],
        ),
    ]  # fmt: skip


def _measured(audit: Audit) -> Section:
    found = [(block, one) for block in audit.blocks for one in block.measurements]
    if not found:
        text = "Nothing was measured: noise and clipping are claims until somebody does (canaries, the noise meter)."
        return Section("What was measured", [text])
    return Section(
        "What was measured",
        [_BOUNDS],
        head=("audit", "figure", "found", "interval", "at most it could show", "false alarms", "rests on"),
        rows=[
            (
                block.name,
                one.name,
                _number(one.value, "none"),
                _interval(one),
                _number(one.ceiling, "no limit"),
                "an estimate, raises none" if one.false_alarm is None else f"{one.false_alarm:.2g}",
                one.assumption + (" – ALARM" if one.alarm else ""),
            )
            for block, one in found
        ],
    )  # fmt: skip


def _findings(audit: Audit) -> Iterable[Section]:
    for severity, heading in SEVERITIES.items():
        found = [finding for finding in audit.findings if finding.severity == severity]
        if severity == OK or not found:
            continue
        yield Section(
            heading,
            head=("check", "found", "evidence", "remedy"),
            rows=[(f.check, f.title, f.evidence, f.remedy or "–") for f in found],
        )


def _blocks(blocks: Sequence[Block]) -> Iterable[Section]:
    yield Section(
        "What was checked, and what nobody could",
        ["A pass is this list and no more: what an audit below did not look at may be anything."],
        inner=[_block(block) for block in blocks],
    )


def _block(block: Block) -> Section:
    if block.left_out is not None:
        return Section(block.name, [f"Not made: {block.left_out}."], _said("Uncovered", block.uncovered))
    return Section(
        block.name,
        points=[
            *_said("Checked", block.checked),
            *_said("Assumed", block.assumed),
            *_said("Uncovered", block.uncovered),
        ],
        head=("check", "severity", "found", "evidence"),
        rows=[(f.check, f.severity, f.title, f.evidence) for f in block.findings],
    )


def _said(what: str, sentences: Iterable[str]) -> list[str]:
    return [f"{what}: {sentence}" for sentence in sentences]


def _number(value: float | None, none: str = "∞ or none") -> str:
    return none if value is None else f"{value:.6g}"


def _interval(one: Measurement) -> str:
    if one.low is None and one.high is None:
        return "–"
    return f"{_number(one.low, '−∞')} to {_number(one.high, '∞')}"


def _versions(accountants: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(accountants.items())) or "none"
