"""Which check reads which field of report.json and of a line of rounds.jsonl, and what no folder can show.

The one list of it: docs/fields.md is printed from here, and a test falsifies every field in genuine folders.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass

from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Report

_MEASURED = "whether it was measured so: only model and data tell"
_CLOCK = "what a clock said"
_CLIENTS = "what only the clients' data tell"
_WORDS = "words for people"


@dataclass(frozen=True)
class Checked:
    """A field. `checks`: ids of those that read it; none where no folder can show anything. `unseen`: what they cannot
    see of it; empty where any other value is a violation, whatever else stays as it was."""

    checks: str
    unseen: str = ""


def _no(why: str) -> Checked:
    return Checked("", why)


LOG: dict[str, Checked] = {
    "round": Checked("A-02"),
    "mechanism": Checked("A-03"),
    "unit": Checked("A-03"),
    "clients": Checked("A-03"),
    "participants": Checked("A-04 A-06 A-18"),
    "exhausted": Checked("A-18 A-33"),
    "survivors": Checked("A-04 A-05 A-10"),
    "dropped": Checked("A-04 A-18 A-33"),
    "recovered": Checked("A-19 A-33"),
    "aborted": Checked("A-08 A-33", "the reason's words"),
    "model_hash": Checked("A-08 A-37 S-02", "where no sums were kept, that it is of the model that was trained"),
    "noise_multiplier": Checked("A-10"),
    "sigma_local": Checked("A-10 A-11 A-17"),
    "scale": Checked("A-13 A-17"),
    "clip_norm": Checked("A-13 A-36"),
    "dimension": Checked("A-15 A-17"),
    "values": Checked("A-07 A-17"),
    "rotated": Checked("A-17"),
    "bits": Checked("A-03 A-17"),
    "colluders": Checked("A-12 A-17"),
    "honest_minimum": Checked("A-12 A-17"),
    "sampling_rate": Checked("A-17 A-23"),
    "population": Checked("A-23", "whether a claim was left out"),
    "count_scale": Checked("A-17"),
    "neighbours": Checked("A-17"),
    "threshold": Checked("A-17"),
    "target_epsilon": Checked("A-03"),
    "epsilon": Checked("A-20 A-21"),
    "delta": Checked("A-03 A-17"),
    "accuracy": Checked("A-31 A-37"),
    "contributions": Checked("A-05 A-29 A-34"),
    "clipped": Checked("A-07 A-34"),
    "overflowed": Checked("A-07 A-34"),
    "noise_ratio": Checked("A-37 N-01", "that the simulation wrote what it measured"),
    "upload_bytes": Checked("A-05 A-19 A-32"),
    "download_bytes": Checked("A-19 A-32"),
    "payload_bytes": Checked("A-05 A-32"),
    "broadcast_bytes": Checked("A-05 A-19 A-32"),
    "server_step": Checked("A-36"),
    "divisor": Checked("A-36"),
    "released_count": Checked("A-36 S-04", "where no sums were kept, that of the last round, which moves no clip norm"),
    "transcript_hash": Checked("A-37 T-01", "where no transcript is kept, that there was none"),
    "sum_hash": Checked("A-37 S-01 T-11", "that it is of the sum that was released: the transcript"),
    "seconds": Checked("A-37", _CLOCK),
    "lost": Checked("A-04 A-12 A-33"),
}

REPORT: dict[str, Checked] = {
    "masking": Checked("A-03"),
    "accuracy.measures": Checked("A-31"),
    "accuracy.zero_shot": Checked("A-31 A-37", _MEASURED),
    "accuracy.warm_start": Checked("A-37", _MEASURED),
    "accuracy.final": Checked("A-31"),
    "accuracy.interval": Checked("A-31"),
    "accuracy.best": Checked("A-31"),
    "accuracy.per_round": Checked("A-31"),
    "accuracy.classes": Checked("A-31 A-35 A-37"),
    "accuracy.per_class": Checked("A-37", _MEASURED),
    "accuracy.client_mean": Checked("A-37", _MEASURED),
    "accuracy.client_worst_decile": Checked("A-37", _MEASURED),
    "accuracy.test_examples": Checked("A-31 A-37"),
    "competitors.public": Checked("A-31", _MEASURED),
    "competitors.central": Checked("A-30 A-31", _MEASURED),
    "competitors.no_noise": Checked("A-30 A-31", _MEASURED),
    "competitors.left_out": Checked("A-31", "the reason's words"),
    "competitors.local.images": Checked("A-31"),
    "competitors.local.clients": Checked("A-31"),
    "competitors.local.mean": Checked("A-31", _MEASURED),
    "competitors.local.federated": Checked("A-31"),
    "competitors.local.fitted_on": Checked("A-31", _MEASURED),
    "competitors.local.best": Checked("A-31"),
    "competitors.local.largest": Checked("A-31"),
    "competitors.local.mean_of_largest": Checked("A-31", _MEASURED),
    "competitors.local.federated_of_largest": Checked("A-31", _MEASURED),
    "competitors.local.fitted_on_of_largest": Checked("A-31", _MEASURED),
    "retrieval.images": Checked("A-31 A-37"),
    "retrieval.captions": Checked("A-37", "a number of which all recalls are shares"),
    "retrieval.final.k": Checked("A-31 A-37", "how far beyond the first"),
    "retrieval.final.image_to_text": Checked("A-31", _MEASURED),
    "retrieval.final.text_to_image": Checked("A-31 A-37", _MEASURED),
    "retrieval.zero_shot.k": Checked("A-31 A-37", "how far beyond the first"),
    "retrieval.zero_shot.image_to_text": Checked("A-31", _MEASURED),
    "retrieval.zero_shot.text_to_image": Checked("A-31 A-37", _MEASURED),
    "forgetting.classes": Checked("A-31", "their order"),
    "forgetting.test_examples": Checked("A-31"),
    **{
        f"forgetting.{among}.{name}": Checked("A-31", "" if name == "interval" else _MEASURED)
        for among in ("among_unseen", "unseen_among_all", "among_all")
        for name in ("zero_shot", "final", "interval")
    },
    **{
        f"choices.{choice}.{name}": checked
        for choice in ("warm_start", "control_variate")
        for name, checked in {
            "value": Checked("A-31"),
            "by": Checked("A-31", "which of the three"),
            "reason": _no(_WORDS),
            "images": Checked("A-07 A-31", _MEASURED),
            "held_out": Checked("A-31", _MEASURED),
        }.items()
    },
    "data.dataset": Checked("A-37"),
    "data.test": Checked("A-37"),
    "data.partition": Checked("A-37"),
    "data.private_images": Checked("A-37", _CLIENTS),
    "data.public_images": Checked("A-37", "how many there were"),
    "data.test_images": Checked("A-37"),
    "data.private_captions": Checked("A-37", _CLIENTS),
    "data.client_minimum": Checked("A-37", _CLIENTS),
    "data.client_median": Checked("A-37", _CLIENTS),
    "data.client_maximum": Checked("A-37", _CLIENTS),
    "data.mean_classes": Checked("A-37", _CLIENTS),
    "data.mean_label_distance": Checked("A-37", _CLIENTS),
    "data.skipped.reason": _no(_WORDS),
    "data.skipped.count": Checked("A-37", _CLIENTS),
    "data.skipped.used": _no(_CLIENTS),
    "privacy.target_epsilon": Checked("A-03"),
    "privacy.epsilon": Checked("A-20"),
    "privacy.delta": Checked("A-03"),
    "privacy.mu": Checked("A-26"),
    "privacy.unit": Checked("A-03"),
    "privacy.adjacency": Checked("A-03"),
    "privacy.view": Checked("A-23"),
    "privacy.epsilon_outsider": Checked("A-26"),
    "privacy.epsilon_local": Checked("A-26"),
    "privacy.noise_multiplier": Checked("A-11 A-17"),
    "privacy.noise_released": Checked("A-26"),
    "privacy.clip_norm": Checked("A-13"),
    "privacy.rounds": Checked("A-02"),
    "privacy.participations": Checked("A-26"),
    "privacy.exhausted": Checked("A-33"),
    "privacy.sampling_rate": Checked("A-33"),
    "privacy.honest_minimum": Checked("A-12 A-17"),
    "privacy.accountant": Checked("A-27"),
    "privacy.cross_check": Checked("A-27 A-30"),
    "privacy.cross_check_outsiders": Checked("A-27"),
    "privacy.aliasing_slack": Checked("A-14"),
    "privacy.clip_rate": Checked("A-34"),
    "privacy.overflow_rate": Checked("A-34"),
    "privacy.statement": Checked("A-30"),
    **{f"communication.{name}": Checked("A-32") for name in (
        "upload_bytes", "download_bytes", "payload_bytes", "broadcast_bytes", "masking_bytes", "full_model_bytes",
        "reduction", "reduction_upload", "parameter_ratio",
    )},
    "communication.invitation_bytes": Checked("A-19 A-32"),
    "communication.parameters": Checked("A-17 A-32"),
    "communication.upload_values": Checked("A-17"),
    "communication.bits": Checked("A-03"),
    "aggregation.profile": Checked("A-03"),
    "aggregation.clients": Checked("A-03"),
    "aggregation.neighbours": Checked("A-17 A-33"),
    "aggregation.threshold": Checked("A-17 A-33"),
    **{f"aggregation.{name}": Checked("A-33") for name in (
        "participation", "sampling", "min_separation", "cohort", "slots", "suite", "dropped", "recovered", "aborted",
        "lost", "announced",
    )},
    "aggregation.seconds.client_mean": Checked("A-37"),
    "aggregation.seconds.server_total": Checked("A-37"),
    **{f"timing.seconds.{name}": Checked("A-37") for name in ("training", "noise", "masking", "evaluation")},
    **{
        f"timing.seconds.{name}": Checked("A-37", _CLOCK)
        for name in ("total", "loading", "features", "comparison", "report", "other")
    },
    "timing.clients_per_second": Checked("A-37"),
    "timing.peak_memory_bytes": Checked("A-37", "what the system said"),
    "warnings": _no(_WORDS),
    "provenance.versions": Checked("A-27 A-30 A-37", "of packages that no figure names"),
    "provenance.config_hash": Checked("A-01"),
    "provenance.model_hash": Checked("A-35 S-02"),
    "provenance.rounds_hash": Checked("A-01"),
    "provenance.adapter_hash": Checked("A-35"),
    "provenance.seed": Checked("A-03"),
    "provenance.secret_noise": Checked("A-16"),
}  # fmt: skip


def leaves(kind: type, prefix: str = "") -> Iterator[str]:
    """Names of the fields of a dataclass, of those within it with a dot; of a list of dataclasses, those of an item."""
    for name, hint in typing.get_type_hints(kind).items():
        inner = [part for part in _parts(hint) if dataclasses.is_dataclass(part)]
        if inner:
            yield from leaves(typing.cast(type, inner[0]), f"{prefix}{name}.")
        else:
            yield prefix + name


def _parts(hint: object) -> Iterator[object]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType, list):
        for part in typing.get_args(hint):
            yield from _parts(part)
    else:
        yield hint


def table() -> str:
    """The text of docs/fields.md."""
    lines = [
        "# What is checked of each field",
        "",
        "Of report.json and of a line of rounds.jsonl; the checks are those of "
        "[audits/rederivation.md](audits/rederivation.md). Where the last",
        "column is empty, any other value alone is a violation; where the middle one is, no folder can show anything.",
    ]
    for title, fields, kind in (("rounds.jsonl", LOG, RoundRecord), ("report.json", REPORT, Report)):
        lines += ["", f"## {title}", "| field | checked by | not checkable from a folder |", "|---|---|---|"]
        lines += [
            f"| `{name}` | {fields[name].checks.replace(' ', ', ')} | {fields[name].unseen} |" for name in leaves(kind)
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
