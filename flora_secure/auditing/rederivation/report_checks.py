"""A-31 to A-34: the figures of the report say what the log says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.resources import files

from flora_secure.auditing.findings import OK, Finding, Problem, Title, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.noise_checks import near
from flora_secure.planning.sections import TrainingConfig
from flora_secure.records.report import IMAGE_TO_TEXT, LARGEST, TOP_1, Report


def _score_interval(final: float, images: int) -> list[float]:
    """The proportions p that final = p does not reject at 5 %: the roots of (final - p)² = z² p (1 - p) ÷ n."""
    n, z = max(1, images), 1.959963984540054
    final = round(final * n) / n
    # p² (1 + z²/n) - p (2 final + z²/n) + final² = 0
    a, b, c = 1 + z * z / n, 2 * final + z * z / n, final * final
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return [round((b - root) / (2 * a), 9), round((b + root) / (2 * a), 9)]


def accuracy(case: Case) -> Finding:
    """A-31: the accuracy of the report is that of the rounds."""

    def compare(report: Report) -> list[Problem]:
        told, logged = report.accuracy, [record.accuracy for record in case.records]
        problems = _different(
            (
                "accuracy.interval",
                [round(bound, 9) for bound in told.interval],
                _score_interval(told.final, told.test_examples),
            ),
            ("accuracy.per_round", told.per_round, logged),
            ("accuracy.final", told.final, logged[-1]),
            ("accuracy.best", told.best, max(logged)),
        )
        problems += _retrieved(report) + _forgotten(report, case.config.data.unseen_classes)
        return problems + _compared(report) + _chosen(report, case.config.training)

    return _reported(
        case,
        "A-31",
        ("Accuracy is that of the rounds", "Accuracy is not that of the rounds"),
        compare,
        "final, best and every round",
    )


def _retrieved(report: Report) -> list[Problem]:
    """A captioned run's accuracy is its recall@1, which grows with k; a labelled run has classes and no recall."""
    told, found = report.accuracy, report.retrieval
    if found is None:
        return _different(("accuracy.measures", told.measures, TOP_1))
    problems = _different(
        ("accuracy.measures", told.measures, IMAGE_TO_TEXT),
        ("accuracy.test_examples", told.test_examples, found.images),
        ("accuracy.classes", told.classes, []),
    )
    for name, recalls, first in (("final", found.final, told.final), ("zero_shot", found.zero_shot, told.zero_shot)):
        one = {recall.k: recall.image_to_text for recall in recalls}.get(1)
        problems += _different((f"retrieval.{name} at 1, image to text,", one, first))
        for side in ("image_to_text", "text_to_image"):
            values = [getattr(recall, side) for recall in sorted(recalls, key=lambda recall: recall.k)]
            if values != sorted(values) or not all(0 <= value <= 1 for value in values):
                problems.append(("report.json", f"retrieval.{name}: {side} {values} does not grow with k within 0…1"))
    return problems


def _forgotten(report: Report, configured: tuple[str, ...] | None) -> list[Problem]:
    """Unseen classes are those of the configuration. Fractions of so many images; an image that is right among all
    classes is right among fewer of them."""
    found, seen = report.forgetting, report.accuracy
    if found is None or configured is None:
        told = None if found is None else sorted(found.classes)
        return _different(("forgetting.classes", told, None if configured is None else sorted(configured)))
    problems = _different(
        ("forgetting.classes", sorted(set(found.classes)), sorted(configured)),
        ("the classes of accuracy that are unseen", sorted({*seen.classes} & {*found.classes}), []),
    )
    unseen, everything = found.test_examples, found.test_examples + seen.test_examples
    images = {"among_unseen": unseen, "unseen_among_all": unseen, "among_all": everything}
    right: dict[tuple[str, str], float] = {}
    for name, count in images.items():
        top = getattr(found, name)
        for when in ("zero_shot", "final"):
            share = getattr(top, when)
            right[name, when] = round(share * count)
            if not 0 <= share <= 1 or abs(share * count - right[name, when]) > 1e-6 * max(1, count):
                problems.append(("report.json", f"forgetting.{name}.{when} {share} is no share of {count:,} images"))
        bounds = [round(bound, 9) for bound in top.interval]
        problems += _different((f"forgetting.{name}.interval", bounds, _score_interval(top.final, count)))
    for when, alone in (("zero_shot", seen.zero_shot), ("final", seen.final)):
        few, all_, both = (right[name, when] for name in images)
        if all_ > few:
            problems.append(("report.json", f"forgetting: {when}, {all_} images right among all classes, {few} of them "
                             "among the unseen ones"))  # fmt: skip
        # an image more: accuracy is another product, rounded in its own way
        if not 0 <= both - all_ <= alone * seen.test_examples + 1:
            problems.append(("report.json", f"forgetting: {when}, {both - all_} images of trained classes right among "
                             f"all, {alone * seen.test_examples:.0f} among the trained ones"))  # fmt: skip
    return problems


def _compared(report: Report) -> list[Problem]:
    """Competitors are shares of so many images, and of captions none but the one without noise; who alone is measured
    on images of the run's own figures has those beside it."""
    found, seen, clients = report.competitors, report.accuracy, report.aggregation.clients
    shares = {"public": found.public, "central": found.central, "no_noise": found.no_noise}
    problems: list[Problem] = []
    for name, share in shares.items():
        if share is None:
            continue
        count = share * seen.test_examples
        if not 0 <= share <= 1 or abs(count - round(count)) > 1e-6 * max(1, seen.test_examples):
            problems.append(("report.json", f"competitors.{name} {share} is no share of {seen.test_examples:,} images"))
        if name != "no_noise":
            problems += _different((f"the measure beside competitors.{name}", seen.measures, TOP_1))
    # public labels alone always stand there
    expected = sorted(name for name in ("public",) if found.public is None)
    problems += _different(("competitors.left_out", sorted(found.left_out), expected))
    if report.privacy.target_epsilon is None:
        problems += _different(("competitors.no_noise of a run without noise", found.no_noise, None))
    if (alone := found.local) is None:
        return problems
    for name in (
        "mean",
        "federated",
        "fitted_on",
        "best",
        "mean_of_largest",
        "federated_of_largest",
        "fitted_on_of_largest",
    ):
        value = getattr(alone, name)
        if value is not None and not 0 <= value <= 1:
            problems.append(("report.json", f"competitors.local.{name} {value} is no fraction"))
    away = report.data.test == "unseen-clients"
    if not 1 <= alone.clients <= clients or alone.images not in (("all",) if away else ("own", "mixed")):
        problems.append(("report.json", f"competitors.local: {alone.clients} of {clients} clients, {alone.images!r}"))
    problems += _different(("competitors.local.largest", alone.largest, min(LARGEST, alone.clients)))
    if alone.images == "mixed":
        problems += _different(("competitors.local.federated", alone.federated, seen.client_mean))
    if alone.images == "all":
        best = math.nan if alone.best is None else alone.best
        if not best >= max(alone.mean, alone.mean_of_largest) - 1e-9:
            problems.append(("report.json", f"competitors.local: the best client has {alone.best}"))
        problems += _different(
            ("competitors.local.federated", alone.federated, seen.final),
            ("competitors.local.federated_of_largest", alone.federated_of_largest, seen.final),
        )
    else:
        problems += _different(("competitors.local.best", alone.best, None))
    return problems


def _chosen(report: Report, training: TrainingConfig) -> list[Problem]:
    """What was chosen on public data is what the configuration has, as every run settles it; that of a simulation of
    one's own may leave it open."""
    problems = []
    for name in ("warm_start", "control_variate"):
        choice, own = getattr(report.choices, name), getattr(training, name)
        if choice is not None and own is not None and choice.value != (own if isinstance(own, str) else f"{own:g}"):
            problems.append(("report.json", f"choices.{name} is {_short(choice.value)}, config.toml has {own}"))
        if choice is not None and not all(0 <= right <= 1 for right in choice.held_out.values()):
            problems.append(("report.json", f"choices.{name}.held_out has {choice.held_out}, which are no shares"))
    return problems


def communication(case: Case) -> Finding:
    """A-32: bytes and reduction follow from the rounds."""
    model_name = case.config.model.model
    size = _parameters(model_name)

    def compare(report: Report) -> list[Problem]:
        told = report.communication
        messages = max(1, sum(len(r.participants) for r in case.records if r.download_bytes))
        up, down, payload, broadcast = (
            sum(getattr(r, name) for r in case.records) / messages
            for name in ("upload_bytes", "download_bytes", "payload_bytes", "broadcast_bytes")
        )
        # 4 bytes a parameter, as forecast.py; what the report itself says only where the model is not known
        model = told.full_model_bytes if size is None else 4 * size
        return _different(
            ("upload_bytes", told.upload_bytes, up),
            ("download_bytes", told.download_bytes, down),
            ("payload_bytes", told.payload_bytes, payload),
            ("broadcast_bytes", told.broadcast_bytes, broadcast),
            ("full_model_bytes", told.full_model_bytes, model),
            ("masking_bytes", told.masking_bytes, up + down - payload - told.invitation_bytes),
            ("reduction", told.reduction, 2 * model / (up + down) if up + down else None),
            ("reduction_upload", told.reduction_upload, model / up if up else None),
            ("parameter_ratio", told.parameter_ratio, model / 4 / told.parameters),
        )

    title = ("Bytes and reduction follow from the rounds", "Bytes or reduction do not follow from the rounds")
    finding = _reported(case, "A-32", title, compare, "recomputed from the bytes")
    if size is None and finding.severity == OK:
        return unchecked("A-32", title, f"full_model_bytes and the reductions: the size of {model_name!r} is not known")
    return finding


def _parameters(model: str) -> int | None:
    """Of the whole model, from the table of sizes that were measured; None for one that it lacks."""
    table = json.loads((files("flora_secure") / "assets" / "architectures.json").read_text("utf-8"))
    known = table["architectures"].get(model)
    return None if known is None else int(known["parameters"])


def aggregation(case: Case) -> Finding:
    """A-33: cohorts, dropped, recovered, aborted and lost are those of the rounds; sessions those of the config."""

    def compare(report: Report) -> list[Problem]:
        told, how = report.aggregation, case.config.participation
        sat_out = {client for r in case.records for client in r.exhausted}
        found = _different(
            ("participation", told.participation, how.rate),
            ("sampling", told.sampling, how.sampling),
            ("min_separation", told.min_separation, how.min_separation),
            ("cohort", told.cohort, [len(r.participants) for r in case.records]),
            ("exhausted", report.privacy.exhausted, len(sat_out)),
            ("sampling_rate", report.privacy.sampling_rate, case.records[0].sampling_rate),
            ("dropped", told.dropped, [len(r.dropped) for r in case.records]),
            ("recovered", told.recovered, [r.recovered for r in case.records]),
            ("aborted", told.aborted, [r.round for r in case.records if r.aborted is not None]),
            ("lost", told.lost, [r.round for r in case.records if r.lost]),
            ("announced", told.announced, [r.round for r in case.records if r.announced]),
        )
        # as every run settles them; the config of a simulation of one's own may leave them open
        settled = {name: getattr(case.config.aggregation, name) for name in ("slots", "suite")}
        found += _different(*((name, getattr(told, name), own) for name, own in settled.items() if own is not None))
        if case.everybody:
            for r in case.records:
                found += _different(
                    ("neighbours", told.neighbours, r.neighbours), ("threshold", told.threshold, r.threshold)
                )
        return found

    return _reported(
        case,
        "A-33",
        (
            "Cohorts, dropped, recovered, aborted and lost are those of the rounds",
            "Cohorts, dropped, recovered, aborted or lost are not those of the rounds",
        ),
        compare,
        "every round",
    )


def rates(case: Case) -> Finding:
    """A-34: clip and overflow rates are those of the rounds."""

    def compare(report: Report) -> list[Problem]:
        clipped, wrapped = rates_of(case)
        told = report.privacy
        return _different(("clip_rate", told.clip_rate, clipped), ("overflow_rate", told.overflow_rate, wrapped))

    return _reported(
        case,
        "A-34",
        ("Clip and overflow rates are those of the rounds", "Clip or overflow rates are not those of the rounds"),
        compare,
        "recomputed",
    )


def rates_of(case: Case) -> tuple[float | None, float | None]:
    """The clip rate over all contributions and the overflow rate over all coordinates, `None` where there are none."""
    records = [r.record for r in case.released if r.record.summed]
    if not records or any(r.overflowed is None for r in records):  # the server of a real federation knows neither
        return None, None
    inside = sum(r.contributions for r in records)
    clipped = sum(r.clipped for r in records) / inside if inside else None
    return clipped, sum(r.overflowed or 0 for r in records) / sum(r.dimension for r in records)


def _reported(case: Case, check: str, title: Title, compare: Callable[[Report], list[Problem]], fine: str) -> Finding:
    if case.report is None:
        return unchecked(check, title, case.no_report)
    return judged(check, title, compare(case.report), fine, "publish the figures of the log")


def _different(*figures: tuple[str, object, object]) -> list[Problem]:
    return [
        ("report.json", f"{name} is {_short(told)}, the rounds say {_short(derived)}")
        for name, told, derived in figures
        if not (near(told, derived) if isinstance(told, float) and isinstance(derived, float) else told == derived)
    ]


def _short(value: object) -> str:
    return f"{value:.7g}" if isinstance(value, float) and math.isfinite(value) else f"{value!s:.80}"
