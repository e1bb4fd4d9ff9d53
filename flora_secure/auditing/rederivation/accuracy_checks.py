"""A-31 and A-37: accuracies are those of the rounds, and figures are possible together."""

from __future__ import annotations

import itertools
import math
import re

from flora_secure.auditing.findings import Finding, Problem
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.report_checks import different, reported, short, simulated
from flora_secure.planning.architectures import private_images
from flora_secure.planning.names import FIXED, NOT_DRAWN, OF_UNSEEN, PHOTOGRAPHS
from flora_secure.planning.sections import TrainingConfig
from flora_secure.records.record import PARTS
from flora_secure.records.report import IMAGE_TO_TEXT, LARGEST, TOP_1, Data, Report

_BY = ("user", "public data", "default")


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
        problems = different(
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

    return reported(
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
        return different(("accuracy.measures", told.measures, TOP_1))
    problems = different(
        ("accuracy.measures", told.measures, IMAGE_TO_TEXT),
        ("accuracy.test_examples", told.test_examples, found.images),
        ("accuracy.classes", told.classes, []),
    )
    for name, recalls, first in (("final", found.final, told.final), ("zero_shot", found.zero_shot, told.zero_shot)):
        one = {recall.k: recall.image_to_text for recall in recalls}.get(1)
        problems += different((f"retrieval.{name} at 1, image to text,", one, first))
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
        return different(("forgetting.classes", told, None if configured is None else sorted(configured)))
    problems = different(
        ("forgetting.classes", sorted(found.classes), sorted(configured)),
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
        problems += different((f"forgetting.{name}.interval", bounds, _score_interval(top.final, count)))
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
            problems += different((f"the measure beside competitors.{name}", seen.measures, TOP_1))
    # public labels alone always stand there
    expected = sorted(name for name in ("public",) if found.public is None)
    problems += different(("competitors.left_out", sorted(found.left_out), expected))
    if report.privacy.target_epsilon is None:
        problems += different(("competitors.no_noise of a run without noise", found.no_noise, None))
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
    problems += different(("competitors.local.largest", alone.largest, min(LARGEST, alone.clients)))
    if alone.images == "mixed":
        problems += different(("competitors.local.federated", alone.federated, seen.client_mean))
    if alone.images == "all":
        best = math.nan if alone.best is None else alone.best
        if not best >= max(alone.mean, alone.mean_of_largest) - 1e-9:
            problems.append(("report.json", f"competitors.local: the best client has {alone.best}"))
        problems += different(
            ("competitors.local.federated", alone.federated, seen.final),
            ("competitors.local.federated_of_largest", alone.federated_of_largest, seen.final),
        )
    else:
        problems += different(("competitors.local.best", alone.best, None))
    return problems


def _chosen(report: Report, training: TrainingConfig) -> list[Problem]:
    """What was chosen on public data is what the configuration has, as every run settles it; that of a simulation of
    one's own may leave it open."""
    problems = []
    for name in ("warm_start", "control_variate"):
        choice, own = getattr(report.choices, name), getattr(training, name)
        if choice is not None and own is not None and choice.value != (own if isinstance(own, str) else f"{own:g}"):
            problems.append(("report.json", f"choices.{name} is {short(choice.value)}, config.toml has {own}"))
        if choice is not None and (choice.by not in _BY or choice.images < 0):
            problems.append(("report.json", f"choices.{name}: by {choice.by!r:.40}, {choice.images} images"))
        if choice is not None and not all(0 <= right <= 1 for right in choice.held_out.values()):
            problems.append(("report.json", f"choices.{name}.held_out has {choice.held_out}, which are no shares"))
    return problems


def possible_together(case: Case) -> Finding:
    """A-37: shares are of so many images, lists as long as what they are of, and seconds and data add up."""

    def compare(report: Report) -> list[Problem]:
        return [
            *_shares(case, report),
            *_data(case, report),
            *_seconds(case, report),
            *_lines(case),
            *simulated(case, report),
        ]

    title = ("Figures are possible together", "Figures are impossible together")
    return reported(case, "A-37", title, compare, "shares, lengths of lists, data and seconds")


def _shares(case: Case, report: Report) -> list[Problem]:
    told, problems = report.accuracy, list[Problem]()
    shares = [("accuracy.zero_shot", told.zero_shot), ("accuracy.warm_start", told.warm_start)]
    for name, share in (*shares, *((f"round {r.round} accuracy", r.accuracy) for r in case.records)):
        count = share * told.test_examples
        if not 0 <= share <= 1 or abs(count - round(count)) > 1e-6 * max(1, told.test_examples):
            problems.append(("report.json", f"{name} {share} is no share of {told.test_examples:,} images"))
    mean, worst = told.client_mean, told.client_worst_decile
    if (mean is None) != (worst is None) or (mean is not None and not 0 <= (worst or 0.0) <= mean <= 1):
        problems.append(("report.json", f"accuracy.client_mean {mean}, client_worst_decile {worst}"))
    if told.measures == TOP_1:
        lengths = len(told.classes), len({*told.classes}), len(told.per_class)
        if len({*lengths}) > 1:
            problems.append(
                ("report.json", "{} accuracy.classes, {} of them different, {} in per_class".format(*lengths))
            )
        problems += different(("accuracy.test_examples", told.test_examples, report.data.test_images))
        if any(one is not None and not 0 <= one <= 1 for one in told.per_class):
            problems.append(("report.json", "accuracy.per_class holds what is no share"))
        known = [one for one in told.per_class if one is not None]
        if known and not min(known) - 1e-9 <= told.final <= max(known) + 1e-9:
            problems.append(("report.json", f"accuracy.final {told.final} is outside all of accuracy.per_class"))
    if report.retrieval is not None:
        problems += different(("data.test_images", report.data.test_images, report.retrieval.images))
        captions = report.retrieval.captions
        for recall in (*report.retrieval.final, *report.retrieval.zero_shot):
            count = recall.text_to_image * captions
            if captions < 1 or recall.k < 1 or abs(count - round(count)) > 1e-6 * captions:
                problems.append(("report.json", f"retrieval at {recall.k}: no share of {captions} captions"))
    return problems


def _data(case: Case, report: Report) -> list[Problem]:
    told, config, problems = report.data, case.config, list[Problem]()
    named = config.data.name if config.data.name in (*FIXED, *PHOTOGRAPHS) else told.dataset
    problems += different(
        ("data.dataset", told.dataset, named),
        ("data.test", told.test, config.data.test),
        ("data.partition", told.partition, config.partition),
    )
    images, n = told.private_images, config.data_clients
    if images is not None and (known := private_images(config.data)) is not None:
        problems += _held(told, images, known)
    dealt = (told.client_minimum, told.client_median, told.client_maximum)
    if images is not None and None not in dealt:
        least, median, most = (x or 0 for x in dealt)
        if not 0 <= least <= median <= most or not n * least <= images <= n * most or images < 1:
            problems.append(("report.json", f"data: {images:,} private images in {n} parts of {least} to {most}"))
        # half of the clients have the median or more, the others the minimum or more
        if n * least + (n // 2) * (median - least) > images + n or n * most - (n // 2) * (most - median) < images - n:
            problems.append(("report.json", f"data.client_median {median} of {n} clients with {images:,} images"))
    elif len({value is None for value in (images, *dealt)}) > 1:
        problems.append(("report.json", "data: some of the numbers that only the clients know are there"))
    classes = told.mean_classes, told.mean_label_distance
    most = len(report.accuracy.classes)
    if None not in classes and not (0 <= (classes[0] or 0) <= most and 0 <= (classes[1] or 0) <= 1):
        problems.append(("report.json", f"data.mean_classes {classes[0]}, mean_label_distance {classes[1]}"))
    counts = [told.public_images, told.test_images, told.private_captions or 0, *(one.count for one in told.skipped)]
    if min(counts) < 0 or (told.private_captions or images or 0) < (images or 0):
        problems.append(("report.json", f"data: counts {counts} with {images} private images"))
    return problems


def _held(told: Data, images: int, known: int) -> list[Problem]:
    """The images of all clients, beside those that were left out because of their client or class, are the data set's:
    of unseen classes public ones are left out with them, and counted together."""
    gone = {why: sum(one.count for one in told.skipped if one.reason == why) for why in (NOT_DRAWN, OF_UNSEEN)}
    there = images + gone[NOT_DRAWN]
    if there <= known <= there + gone[OF_UNSEEN]:
        return []
    left_out = "".join(f", {count} times {why}" for why, count in gone.items() if count)
    return [("report.json", f"data.private_images is {images}{left_out}: the data set has {known}")]


def _seconds(case: Case, report: Report) -> list[Problem]:
    told, records = report.timing, case.records
    parts = {name: math.fsum(r.seconds.get(name, math.nan) for r in records) for name in PARTS}
    of_rounds = [parts[name] for name in ("training", "noise", "masking")]
    asked = sum(len(r.participants) for r in records if r.download_bytes)
    problems = different(
        *((f"timing.seconds.{name}", getattr(told.seconds, name), total) for name, total in parts.items()),
        ("timing.clients_per_second", told.clients_per_second, asked / (math.fsum(of_rounds) or 1.0)),
    )
    every = {name: getattr(told.seconds, name) for name in told.seconds.__dataclass_fields__}
    total = every.pop("total")
    away = math.fsum(every.values()) - total  # what is more than the total leaves nothing for others
    if min(*every.values(), total) < 0 or away < -1e-3 * (1 + total) or (away > 1e-3 * (1 + total) and every["other"]):
        problems.append(("report.json", f"timing.seconds add up to {total + away:.6g}, not {total:.6g}"))
    if missing := {"flora-secure", "dp-accounting"} - report.provenance.versions.keys():
        problems.append(("report.json", f"provenance.versions lacks {', '.join(sorted(missing))}"))
    memory, seconds = told.peak_memory_bytes, report.aggregation.seconds
    if memory is not None and memory < 0:
        problems.append(("report.json", f"timing.peak_memory_bytes {memory}"))
    if (seconds is None) != (case.config.aggregation.masks == "counted"):
        problems.append(("report.json", "aggregation.seconds of a run whose masks were not executed, or none"))
    if seconds is not None:
        summed = [r.seconds for r in records if r.summed] or [{"client_mean": 0.0, "server": 0.0}]
        mean, server = (
            math.fsum(one.get(name, math.nan) for one in summed) / len(summed) for name in ("client_mean", "server")
        )
        problems += different(("aggregation.seconds.server_total", seconds.server_total, server))
        if seconds.client_mean is not None or case.simulated:
            problems += different(("aggregation.seconds.client_mean", seconds.client_mean, mean))
    return problems


def _lines(case: Case) -> list[Problem]:
    """What a line alone can show: hashes are hashes, seconds are of the parts that there are."""
    keys, problems = {*PARTS, "client_mean", "server"}, list[Problem]()
    for r in case.records:
        where = f"round {r.round}"
        if r.seconds.keys() != keys:
            problems.append((where, f"seconds of {', '.join(sorted(r.seconds)):.80}"))
        for name in ("model_hash", "sum_hash", "transcript_hash"):
            if (value := getattr(r, name)) is not None and not re.fullmatch("[0-9a-f]{64}", value):
                problems.append((where, f"{name} {value!r:.40} is no SHA-256"))
        if r.noise_ratio is not None and not (r.summed and 0 <= r.noise_ratio < math.inf):
            problems.append((where, f"noise_ratio {r.noise_ratio}"))
    for r, after in itertools.pairwise(case.records):
        if r.summed and after.model_hash == r.model_hash:
            problems.append((f"round {after.round}", f"broadcasts the model of round {r.round}, whose sum moved it"))
    return problems
