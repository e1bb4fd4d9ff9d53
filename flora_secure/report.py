"""The report of a run: frozen dataclasses → JSON (schema ``flora-secure/report/1``) and Markdown.

Accuracy, privacy budget and communication reduction stand in one document. A figure that was not measured is ``None``
(``null``), never invented. The published schema, ``docs/report.schema.json``, is derived from these classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

SCHEMA = "flora-secure/report/1"


TOP_1, IMAGE_TO_TEXT = "top-1", "recall@1 image to text"


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Right answers on the test images, as fractions. ``measures``: "top-1" (its class), or, of a captioned data set,
    "recall@1 image to text" (the nearest of all test captions is one of its own). ``zero_shot``: of the frozen model;
    ``warm_start``: of the adapter before round 1, trained on public images without labels. ``interval``: 95 %
    confidence of ``final`` (Wilson). ``per_class``: in the order of ``classes``, null where no test image shows one;
    both are empty where there are captions. ``client_mean``, ``client_worst_decile``: on test images mixed like a
    client's own; known in a simulation only, and not covered by the budget. ``no_noise``: the same run without noise,
    when it was asked for."""

    measures: str
    zero_shot: float
    warm_start: float
    final: float
    interval: list[float]
    best: float
    per_round: list[float]
    classes: list[str]
    per_class: list[float | None]
    client_mean: float | None
    client_worst_decile: float | None
    test_examples: int
    no_noise: float | None


@dataclass(frozen=True, kw_only=True)
class RecallAt:
    """Fractions of the test images of which a caption is among the ``k`` nearest captions, and of the test captions
    whose image is among the ``k`` nearest images."""

    k: int
    image_to_text: float
    text_to_image: float


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How well test images and test captions find each other among so many, with the final adapter and without one.
    Ties count as wrong."""

    images: int
    captions: int
    final: list[RecallAt]
    zero_shot: list[RecallAt]


@dataclass(frozen=True, kw_only=True)
class TopOne:
    """Fractions of test images whose own class is nearest, for the frozen model and with the final adapter; ties count
    as wrong. ``interval``: 95 % confidence of ``final`` (Wilson)."""

    zero_shot: float
    final: float
    interval: list[float]


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What the adapter does to ``classes`` that nothing of the run trained on, of which there are ``test_examples``
    test images, none of them among those of ``accuracy``.

    ``among_unseen``: these images, with these classes alone to choose from. ``unseen_among_all``: these images, with
    the trained classes to choose from too. ``among_all``: the test images of all classes, with all classes to choose
    from.
    """

    classes: list[str]
    test_examples: int
    among_unseen: TopOne
    unseen_among_all: TopOne
    among_all: TopOne


@dataclass(frozen=True, kw_only=True)
class SkippedData:
    """What the data set holds beside, left out (or cut) for ``reason``: how many, and the names of the first few."""

    reason: str
    count: int
    names: list[str]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images used, and how the private ones are dealt: images a client, the mean number of classes a client holds, and
    the mean total variation distance between a client's labels and everybody's. ``private_captions``: of a captioned
    data set, whose examples they are; it has neither classes nor labels, and an image with several counts once. Unseen
    classes are left out: see ``Forgetting``."""

    dataset: str
    partition: str
    private_images: int
    public_images: int
    test_images: int
    private_captions: int | None
    client_minimum: int
    client_median: float
    client_maximum: int
    mean_classes: float | None
    mean_label_distance: float | None
    skipped: list[SkippedData]


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """The budget. ``epsilon`` bounds what the server, who sees every round's sum and who took part, learns about the
    worst client (or its examples); ``None`` is infinity. ``epsilon_outsider`` is for those who see only the released
    models. ``participations``: rounds that charge the worst client; ``exhausted``: clients that had to sit out a round
    for their budget."""

    target_epsilon: float | None
    epsilon: float | None
    delta: float
    mu: float | None
    unit: str
    adjacency: str
    view: str
    epsilon_outsider: float | None
    epsilon_local: float | None
    noise_multiplier: float
    clip_norm: float
    rounds: int
    participations: int
    exhausted: int
    sampling_rate: float
    honest_minimum: int
    accountant: dict[str, str]
    cross_check: dict[str, float]
    aliasing_slack: float
    clip_rate: float | None
    overflow_rate: float | None
    statement: str


@dataclass(frozen=True, kw_only=True)
class Communication:
    """Bytes on the wire, the mean over clients and rounds of complete encoded messages, in both directions.

    ``parameters``: trained values, which a broadcast carries; ``upload_values``: d, of an update before any rotation.
    They differ where the rule trains one factor a round.
    """

    upload_bytes: float
    download_bytes: float
    payload_bytes: float
    masking_bytes: float
    full_model_bytes: int
    reduction: float | None
    reduction_upload: float | None
    parameters: int
    upload_values: int
    parameter_ratio: float
    bits: int


@dataclass(frozen=True, kw_only=True)
class AggregationSeconds:
    """CPU seconds a round: mean of a client, all of the server."""

    client_mean: float
    server_total: float


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """The secure sum. ``cohort``, ``dropped`` and ``recovered`` count clients a round. ``aborted`` and ``lost`` list
    round numbers: of those that released nothing, as with too few survivors, and of those that were in flight when the
    run was killed, and so count as released though they are not in the adapter. ``neighbours`` and ``threshold`` are
    those of the largest cohort. ``participation`` is the rate, ``sampling`` how cohorts were drawn, ``None`` where
    everybody takes part."""

    profile: str
    clients: int
    participation: float
    sampling: str | None
    min_separation: int
    cohort: list[int]
    neighbours: int | None
    threshold: int | None
    dropped: list[int]
    recovered: list[int]
    aborted: list[int]
    lost: list[int]
    seconds: AggregationSeconds


@dataclass(frozen=True, kw_only=True)
class TimingSeconds:
    """Wall-clock seconds of a run's parts. ``masking``: the whole secure sum; ``noise``: clipping and encoding too."""

    total: float
    training: float
    noise: float
    masking: float
    evaluation: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """``clients_per_second``: client updates trained, noised and summed a second of the rounds."""

    seconds: TimingSeconds
    clients_per_second: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the run was made of. ``secret_noise`` is false when the noise keys came from the reproducible seed;
    ``rounds_hash`` is the SHA-256 of the last line of ``rounds.jsonl``, ``None`` where none was written."""

    versions: dict[str, str]
    config_hash: str
    model_hash: str
    data_hash: str
    rounds_hash: str | None
    seed: int
    secret_noise: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a run has to say."""

    accuracy: Accuracy
    retrieval: Retrieval | None
    forgetting: Forgetting | None
    data: Data
    privacy: Privacy
    communication: Communication
    aggregation: Aggregation
    timing: Timing
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, ``schema`` first. Infinity and NaN are not JSON: no field may hold them."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def rows(self) -> list[tuple[str, str]]:
        """The table that people see: (what, figure), accuracy, privacy and communication together."""
        acc, priv, comm, agg, time = self.accuracy, self.privacy, self.communication, self.aggregation, self.timing
        what = "" if acc.measures == TOP_1 else f"{acc.measures} "
        rows = [
            ("accuracy", f"{what}{acc.final:.2%} on {acc.test_examples:,} test images"),
            (
                "  before",
                f"zero-shot {acc.zero_shot:.2%}"
                + ("" if acc.warm_start == acc.zero_shot else f", warm start {acc.warm_start:.2%}"),
            ),
            ("  spread", _spread(acc)),
            *([] if self.retrieval is None else _recalls(self.retrieval)),
            *([] if self.forgetting is None else _forgotten(self.forgetting)),
        ]
        if acc.no_noise is not None:
            rows.append(("  without noise", f"{acc.no_noise:.2%} ({(acc.no_noise - acc.final) * 100:+.2f} points)"))
        if priv.epsilon is None:
            rows.append(("privacy", "NONE: no noise was added (epsilon = inf)"))
        else:
            target = f"of {priv.target_epsilon:g} allowed" if priv.target_epsilon is not None else ""
            rows += [
                (
                    "privacy",
                    f"ε = {priv.epsilon:.3f} {target}, δ = {priv.delta:.3g}, per {priv.unit}, {priv.view} view",
                ),
                (
                    "  noise",
                    f"multiplier {priv.noise_multiplier:.3f} at {priv.honest_minimum} honest survivors, "
                    f"clip norm {priv.clip_norm:g}",
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
                ("  cross-check", ", ".join(f"{k} {v:.3f}" for k, v in priv.cross_check.items()) or "none"),
            ]
        rows += [
            (
                "communication",
                ("nothing sent " if comm.reduction is None else f"{comm.reduction:,.0f} × less than sending the model ")
                + f"({comm.upload_bytes / 1000:,.1f} kB up, {comm.download_bytes / 1000:,.1f} kB down "
                "a client and round)",
            ),
            (
                "  adapter",
                f"{comm.parameters:,} of {comm.full_model_bytes // 4:,} parameters "
                f"({comm.parameter_ratio:,.0f} × fewer), {comm.bits} bits each",
            ),
            (
                "aggregation",
                f"{agg.profile}, {agg.clients} clients"
                + ("" if agg.sampling is None else f", {agg.sampling} cohorts of {_span(agg.cohort)}")
                + ("" if agg.threshold is None else f", {agg.neighbours} neighbours each, threshold {agg.threshold}")
                + f"; {sum(agg.dropped)} dropped, {sum(agg.recovered)} recovered, {len(agg.aborted)} rounds aborted",
            ),
            *_without_sum(agg),
            (
                "time",
                f"{time.seconds.total:.1f} s (training {time.seconds.training:.1f}, noise {time.seconds.noise:.1f}, "
                f"masking {time.seconds.masking:.1f}, evaluation {time.seconds.evaluation:.1f}), "
                f"peak memory {time.peak_memory_bytes / 1e9:.2f} GB",
            ),
        ]
        rows += self._data_rows()
        if not self.provenance.secret_noise and priv.epsilon is not None:
            rows.append(("warning", "simulation noise: the noise keys come from the seed and are NOT secret"))
        return rows

    def _data_rows(self) -> list[tuple[str, str]]:
        data = self.data
        captions = "" if data.private_captions is None else f" with {data.private_captions:,} captions"
        classes = (
            ""
            if data.mean_classes is None or data.mean_label_distance is None
            else f", {data.mean_classes:.1f} classes each, label distance {data.mean_label_distance:.2f}"
        )
        rows = [
            (
                "data",
                f"{data.dataset}, {data.private_images:,} images{captions} dealt {data.partition}: "
                f"{data.client_minimum:,} / {data.client_median:,.0f} / {data.client_maximum:,} a client "
                f"(min, median, max){classes}",
            )
        ]
        for skipped in data.skipped:
            more = ", …" if skipped.count > len(skipped.names) else ""
            rows.append(("  skipped", f"{skipped.count:,}: {skipped.reason} ({', '.join(skipped.names)}{more})"))
        return rows

    def to_markdown(self) -> str:
        """The table and the privacy statement as Markdown."""
        lines = ["| | |", "|---|---|", *(f"| {what.strip()} | {figure} |" for what, figure in self.rows())]
        return "\n".join([*lines, "", "## Privacy statement", "", self.privacy.statement, ""])


def _without_sum(agg: Aggregation) -> list[tuple[str, str]]:
    """A row for each kind of round whose sum is not in the adapter, if there were any."""
    kinds = (
        ("  aborted rounds", agg.aborted, "nothing was released"),
        ("  lost rounds", agg.lost, "in flight when the run was killed; they count in the budget"),
    )
    return [
        (name, ", ".join(map(str, rounds[:10])) + (f", … ({len(rounds)})" if len(rounds) > 10 else "") + f": {fate}")
        for name, rounds, fate in kinds
        if rounds
    ]


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def finite_or_none(value: float) -> float | None:
    """``None`` for infinity, which JSON cannot say; NaN is a bug and raises."""
    if math.isnan(value):
        raise ValueError("a figure of the report is NaN")
    return None if math.isinf(value) else value


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


def _recalls(found: Retrieval) -> list[tuple[str, str]]:
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


def _forgotten(found: Forgetting) -> list[tuple[str, str]]:
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


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of :meth:`Report.to_dict`."""
    schema = schema_of(Report)
    schema["properties"] = {"schema": {"const": SCHEMA}, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **schema}


def schema_of(hint: Any) -> dict[str, Any]:
    """The JSON Schema of a dataclass's plain data, or of a type that its fields may have."""
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return {
            "type": "object",
            "description": " ".join((hint.__doc__ or "").split()),
            "properties": {name: schema_of(kind) for name, kind in hints.items()},
            "required": list(hints),
            "additionalProperties": False,
        }
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = next(kind for kind in arguments if kind is not type(None))
        return {"anyOf": [schema_of(inner), {"type": "null"}]}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return {"type": names[hint]}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
