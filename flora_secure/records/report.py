"""The report of a run: frozen dataclasses → JSON (schema `flora-secure/report/3`).

Accuracy, privacy budget and communication reduction stand in one document. A figure that was not measured is `None`
(`null`), never invented. The published schema, `docs/report.schema.json`, is derived from these classes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from flora_secure.plain import document_schema

SCHEMA = "flora-secure/report/3"

LARGEST = 15  # clients that `Alone` looks at apart
TOP_1, IMAGE_TO_TEXT = "top-1", "recall@1 image to text"


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Right answers on the test images, as fractions. `measures`: "top-1" (its class), or, of a captioned data set,
    "recall@1 image to text" (the nearest of all test captions is one of its own). `zero_shot`: of the frozen model;
    `warm_start`: of the adapter before round 1, see `Choices`. `interval`: 95 % confidence of `final` (Wilson).
    `per_class`: in the order of `classes`, null where no test image shows one; both are empty where there
    are captions. `client_mean`, `client_worst_decile`: on test images mixed like a client's own; known in a simulation
    only, and not covered by the budget."""

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


@dataclass(frozen=True, kw_only=True)
class RecallAt:
    """Fractions of the test images of which a caption is among the `k` nearest captions, and of the test captions
    whose image is among the `k` nearest images."""

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
    as wrong. `interval`: 95 % confidence of `final` (Wilson)."""

    zero_shot: float
    final: float
    interval: list[float]


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What the adapter does to `classes` that nothing of the run trained on, of which there are `test_examples`
    test images, none of them among those of `accuracy`.

    `among_unseen`: these images, with these classes alone to choose from. `unseen_among_all`: these images, with
    the trained classes to choose from too. `among_all`: the test images of all classes, with all classes to choose
    from.
    """

    classes: list[str]
    test_examples: int
    among_unseen: TopOne
    unseen_among_all: TopOne
    among_all: TopOne


@dataclass(frozen=True, kw_only=True)
class Alone:
    """Each of so many `clients` with an adapter of its own, fitted to its own images alone, beside the `federated` one
    on the very same images.

    `images`, on which: "own", each client's own test images, all of them counted together; "mixed", test images mixed
    like its own labels, as `accuracy.client_mean` counts, the mean over clients; or "all", the test images, none of
    which is any client's, the mean over clients, and `best` of the best one (else null). `fitted_on`: the federated
    adapter, fitted on to each client's own images and kept there, which gives nobody else anything. `mean_of_largest`,
    `federated_of_largest` and `fitted_on_of_largest`: of the `largest` clients with most images alone.
    """

    images: str
    clients: int
    mean: float
    federated: float
    fitted_on: float
    best: float | None
    largest: int
    mean_of_largest: float
    federated_of_largest: float
    fitted_on_of_largest: float


@dataclass(frozen=True, kw_only=True)
class Competitors:
    """What those reach who need no federation, or no privacy, on the test images of `accuracy`, as fractions; null what
    was not asked for, or cannot be had, and then `left_out` says why.

    `public`: the run's own kind of adapter on the same frozen model, fitted to all public labels. `central`: fitted to
    all private labels in one place. `local`: to each client's own alone. `no_noise`: the same run without noise. Those
    three are computed from the clients' data outside of any budget: for the owner of a simulation alone.
    """

    public: float | None
    central: float | None
    local: Alone | None
    no_noise: float | None
    left_out: dict[str, str]

    @property
    def of_private_data(self) -> list[str]:
        """The names of the figures that are here and no budget covers, in the order of `planning.names.COMPETITORS`."""
        named = {"local": self.local, "central": self.central, "no-noise": self.no_noise}
        return [name for name, figure in named.items() if figure is not None]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a setting of training came to have its `value`. `by`: "user", who set it; "public data", where it was chosen
    of several by public images that none of them had seen; "default", where public data could not tell, for `reason`.
    `held_out`: by each value that was tried, the fraction of so many public `images` that it had right."""

    value: str
    by: str
    reason: str | None
    images: int
    held_out: dict[str, float]

    @property
    def line(self) -> str:
        """The value and how it came about, for people."""
        if self.by == "user":
            return f"{self.value}, as set"
        if self.reason is not None:
            return f"{self.value}, not decided: {self.reason}"
        tried = ", ".join(f"{value} {right:.1%}" for value, right in self.held_out.items())
        return f"{self.value} (right on {self.images:,} held-out public images: {tried})"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What public data decide before round 1, `None` where the run has none of it: `warm_start`, "none", "images"
    (without their labels) or "labels"; `control_variate`, its weight."""

    warm_start: Choice | None
    control_variate: Choice | None

    @property
    def lines(self) -> list[str]:
        """Each in a line for people."""
        named = ("warm start", self.warm_start), ("control variate", self.control_variate)
        return [f"{name}: {choice.line}" for name, choice in named if choice is not None]


@dataclass(frozen=True, kw_only=True)
class SkippedData:
    """What the data set holds beside, left out (or noted, and `used` all the same) for `reason`: how many. Names may be
    private, and stand in `local/skipped.tsv` of the run's folder alone."""

    reason: str
    count: int
    used: bool


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images used, and how the private ones are dealt: images a client, the mean number of classes a client holds, and
    the mean total variation distance between a client's labels and everybody's. `test`: which test images, as
    configured. `private_captions`: of a captioned data set, whose examples they are; it has neither classes nor labels,
    and an image with several counts once. Unseen classes are left out: see `Forgetting`. What only the clients know is
    null in a run of a real federation, whose server has none of their images."""

    dataset: str
    test: str
    partition: str
    private_images: int | None
    public_images: int
    test_images: int
    private_captions: int | None
    client_minimum: int | None
    client_median: float | None
    client_maximum: int | None
    mean_classes: float | None
    mean_label_distance: float | None
    skipped: list[SkippedData]


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """The budget. `epsilon` bounds what the server, who sees every round's sum and who took part, learns about the
    worst client (or its examples); `None` is infinity. `epsilon_outsider` is for those who see only the released
    models. `noise_multiplier`: z as planned, with `honest_minimum` honest survivors; `noise_released`: the least and
    the largest of the released sums, in which more may have survived. `participations`: rounds that charge the worst
    client; `exhausted`: clients that had to sit out a round for their budget. `cross_check_outsiders`: of
    `epsilon_outsider`, where it is amplified."""

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
    noise_released: list[float]
    clip_norm: float
    rounds: int
    participations: int
    exhausted: int
    sampling_rate: float
    honest_minimum: int
    accountant: dict[str, str]
    cross_check: dict[str, float]
    cross_check_outsiders: dict[str, float]
    aliasing_slack: float
    clip_rate: float | None
    overflow_rate: float | None
    statement: str


@dataclass(frozen=True, kw_only=True)
class Communication:
    """Bytes on the wire, the mean over clients and rounds of complete encoded messages, in both directions.

    `payload_bytes`: broadcasts and uploads; `broadcast_bytes`: the broadcasts among them. `parameters`: trained values;
    `upload_values`: d, of an update before any rotation. They differ where the rule trains one factor a round.
    `invitation_bytes`: of what the server says of a round before it begins, beside the broadcast. `masking_bytes`: all
    that is neither payload nor invitation, with what a masking session's set-up takes of each of its rounds.
    """

    upload_bytes: float
    download_bytes: float
    payload_bytes: float
    broadcast_bytes: float
    masking_bytes: float
    invitation_bytes: float
    full_model_bytes: int
    reduction: float | None
    reduction_upload: float | None
    parameters: int
    upload_values: int
    parameter_ratio: float
    bits: int


@dataclass(frozen=True, kw_only=True)
class AggregationSeconds:
    """CPU seconds a round whose sum is in the adapter: mean of a client, all of the server; 0 where there is none."""

    client_mean: float | None
    server_total: float


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """The secure sum. `cohort`, `dropped` and `recovered` count clients a round. `aborted` and `lost` list
    round numbers: of those that ended without a sum, as with too few survivors, and of those that were in flight when
    the run was killed, and so count as released though they are not in the adapter. So do those of `announced`, the
    aborted ones whose survivors had been told. `neighbours` and `threshold` are
    those of the largest cohort; `slots`: rounds that a masking session was set up for; `suite`: what its channels
    rested on. `participation` is the rate, `sampling` how cohorts were drawn, `None` where everybody takes part.
    `seconds` is `None` where masking was counted and not run."""

    profile: str
    clients: int
    participation: float
    sampling: str | None
    min_separation: int
    cohort: list[int]
    neighbours: int | None
    threshold: int | None
    slots: int | None
    suite: str | None
    dropped: list[int]
    recovered: list[int]
    aborted: list[int]
    lost: list[int]
    announced: list[int]
    seconds: AggregationSeconds | None


@dataclass(frozen=True, kw_only=True)
class TimingSeconds:
    """Wall-clock seconds of a run's parts, which add up to `total`. `loading`: libraries and data; `features`: model,
    image features and warm start; `masking`: the whole secure sum; `noise`: clipping and encoding too; `comparison`:
    public labels alone, and the competitors that were asked for; `report`: adapter, accountants, and scores of the
    report alone; `other`: planning, invitations, writing rounds down."""

    total: float
    loading: float
    features: float
    training: float
    noise: float
    masking: float
    evaluation: float
    comparison: float
    report: float
    other: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long the run took. `clients_per_second`: client updates trained, noised and summed a second of the rounds;
    `peak_memory_bytes`: `None` where the platform does not tell."""

    seconds: TimingSeconds
    clients_per_second: float
    peak_memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the run was made of. `secret_noise` is false when the noise keys came from the reproducible seed;
    `rounds_hash` is the SHA-256 of the last line of `rounds.jsonl`, `adapter_hash` that of
    `adapter/adapter_model.safetensors`; both are `None` where none was written."""

    versions: dict[str, str]
    config_hash: str
    model_hash: str
    rounds_hash: str | None
    adapter_hash: str | None
    seed: int
    secret_noise: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a run has to say: accuracy, competitors, privacy, communication, aggregation, timing, data, provenance.
    `masking`: "run"; "off"; or "counted", where no masking was executed: its messages were counted by size, and the
    uploads added up in the clear. `warnings`: lines about what was guessed, replaced or looks wrong, and what to do
    about it."""

    masking: str
    accuracy: Accuracy
    competitors: Competitors
    retrieval: Retrieval | None
    forgetting: Forgetting | None
    choices: Choices
    data: Data
    privacy: Privacy
    communication: Communication
    aggregation: Aggregation
    timing: Timing
    warnings: list[str]
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `schema` first. Infinity and NaN are not JSON: no field may hold them."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """The text of `report.json`. Raises `ValueError` for NaN and infinity, which JSON lacks."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what `Report.to_dict` returns, as docs/report.schema.json has it."""
    return document_schema(Report, SCHEMA)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
