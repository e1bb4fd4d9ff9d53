"""A-32 to A-35: bytes, cohorts and rates of the report are those of the log, and the adapter is the one it knows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.resources import files

from flora_secure.auditing.findings import OK, Finding, Problem, Title, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.noise_checks import near
from flora_secure.errors import RunFolderError
from flora_secure.planning.names import pathless
from flora_secure.records.adapter_card import CARD, WEIGHTS, AdapterCard, adapter_hash, read_card
from flora_secure.records.report import TOP_1, Report

_TITLE = ("The adapter is the one that the report knows", "The adapter is not the one that the report knows")


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
        return different(
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
    finding = reported(case, "A-32", title, compare, "recomputed from the bytes")
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
        found = different(
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
        found += different(*((name, getattr(told, name), own) for name, own in settled.items() if own is not None))
        if case.everybody:
            for r in case.records:
                found += different(
                    ("neighbours", told.neighbours, r.neighbours), ("threshold", told.threshold, r.threshold)
                )
        return found

    return reported(
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
        return different(("clip_rate", told.clip_rate, clipped), ("overflow_rate", told.overflow_rate, wrapped))

    return reported(
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


def reported(case: Case, check: str, title: Title, compare: Callable[[Report], list[Problem]], fine: str) -> Finding:
    """A finding from what `compare` meets in the report; not checked where there is none."""
    if case.report is None:
        return unchecked(check, title, case.no_report)
    return judged(check, title, compare(case.report), fine, "publish the figures of the log")


def different(*figures: tuple[str, object, object]) -> list[Problem]:
    """A problem for each figure of the report that is not as derived: name, as told, as derived."""
    return [
        ("report.json", f"{name} is {short(told)}, the rounds say {short(derived)}")
        for name, told, derived in figures
        if not (near(told, derived) if isinstance(told, float) and isinstance(derived, float) else told == derived)
    ]


def short(value: object) -> str:
    """A value for people."""
    return f"{value:.7g}" if isinstance(value, float) and math.isfinite(value) else f"{value!s:.80}"


def adapter(case: Case) -> Finding:
    """A-35: the adapter is the one that the run released, for the model and the classes that it was configured for."""
    folder, report = case.path / "adapter", case.report
    if report is None:
        return unchecked("A-35", _TITLE, case.no_report)
    told = report.provenance.adapter_hash
    if not folder.exists():
        return unchecked("A-35", _TITLE, "adapter/ is not in the folder")
    problems = list[Problem]()
    if told is None:
        problems = [("report.json", "holds no hash of the adapter that lies beside it")]
        return judged("A-35", _TITLE, problems, "", "publish the report that the run wrote")
    try:
        if (found := adapter_hash(folder)) != told:
            problems.append((f"adapter/{WEIGHTS}", f"its SHA-256 is {found:.12}…, report.json knows {told:.12}…"))
        problems += _card(read_card(folder), case, report)
    except RunFolderError as error:
        problems.append(("adapter", str(error)))
    fine = f"SHA-256 {told:.12}…; {CARD} is of this model and configuration"
    return judged("A-35", _TITLE, problems, fine, "publish the adapter of the run")


def _card(card: AdapterCard, case: Case, report: Report) -> list[Problem]:
    """What `flora.json` says against the report and the configuration; only a data set knows the rest."""
    model, training = case.config.model, case.config.training
    labelled = report.accuracy.measures == TOP_1
    scale = model.scale(card.rank)
    pairs: tuple[tuple[str, object, object], ...] = (
        ("model_hash", card.model_hash, report.provenance.model_hash),
        ("model", card.model, pathless(model.model)),
        ("placement", card.placement, model.placement),
        ("last_layers", card.last_layers, model.last_layers),
        ("rank", card.rank, card.rank if model.rank is None else model.rank),
        ("scale", card.scale, card.scale if math.isclose(card.scale, scale, rel_tol=1e-9) else scale),
        ("mirror", card.mirror, card.mirror if model.mirror is None else model.mirror),
        ("crops", card.crops, model.crops),
        ("logit_scale", card.logit_scale, training.logit_scale),
        ("precision", card.precision, training.precision),
        ("captioned", card.captioned, not labelled),
        ("class_names", card.class_names, report.accuracy.classes),
    )
    return [
        (f"adapter/{CARD}", f"{key} is {here!s:.60}, the run says {there!s:.60}")
        for key, here, there in pairs
        if here != there
    ]


def simulated(case: Case, report: Report) -> list[Problem]:
    """A simulation, which knows its clients' data, knows how every sum wrapped and what noise is in it; a real
    federation knows neither, and has a configuration that sites accept. So no simulation passes for one, of whose
    bytes and cohorts less can be checked: A-37."""
    config, problems = case.config, list[Problem]()
    here = report.data.private_images is not None
    made_up = config.privacy.simulation_noise or config.aggregation.dropout > 0 or config.evidence.canaries > 0
    for r in (record for record in case.records if record.summed):
        where = f"round {r.round}"
        if r.overflowed is None and (here or made_up):
            problems.append((where, "overflowed is None, as in a federation of real sites alone, and this is none"))
        if r.overflowed is not None and not here:
            problems.append((where, f"overflowed is {r.overflowed}, which a simulation alone knows, and this is none"))
        if r.overflowed is not None and r.noise_ratio is None and r.sigma_local > 0:
            problems.append((where, "noise_ratio is None, and a simulation measures the noise of every sum"))
    return problems
