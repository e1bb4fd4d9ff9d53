"""A-35: the adapter in the folder is the one that the run released, and is used as the run was configured."""

from __future__ import annotations

import math

from flora_secure.auditing.findings import Finding, Problem, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import RunFolderError
from flora_secure.planning.names import pathless
from flora_secure.records.adapter_card import CARD, WEIGHTS, AdapterCard, adapter_hash, read_card
from flora_secure.records.report import TOP_1, Report

_TITLE = ("The adapter is the one that the report knows", "The adapter is not the one that the report knows")


def adapter(case: Case) -> Finding:
    """A-35: the adapter is the one that the run released, for the model and the classes that it was configured for."""
    folder, report = case.path / "adapter", case.report
    if report is None:
        return unchecked("A-35", _TITLE, case.no_report)
    told = report.provenance.adapter_hash
    if not folder.exists():
        return unchecked("A-35", _TITLE, "adapter/ is not in the folder")
    if told is None:
        return unchecked("A-35", _TITLE, "report.json holds no hash of the adapter")
    problems = list[Problem]()
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
