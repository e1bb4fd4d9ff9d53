"""What NVFlare keeps of differential privacy: the filters of a job's client configuration, an SVT filter's ledger."""

from __future__ import annotations

import math
from typing import Any

_SPARSE, _BARE = "SVTPrivacy", ("PercentilePrivacy", "ExcludeVars")
_DEFAULTS: dict[str, Any] = {"fraction": 0.1, "epsilon": 0.1, "noise_var": 0.1, "gamma": 1e-5, "epsilon_release": None}
_MOST = 10**5  # entries of a ledger that are added up


def knows(table: dict[str, Any]) -> bool:
    """Whether this is a client's configuration with result filters, or the ledger of an SVT filter."""
    return isinstance(table.get("task_result_filters"), list) or isinstance(table.get("svt_privacy_ledger"), list)


def imported(table: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys of the log, and what is known of NVFlare's code.

    Source: nvflare 2.9, app_common/filters/svt_privacy.py, percentile_privacy.py and exclude_vars.py.
    """
    filters = _filters(table.get("task_result_filters", []))
    ledger = table.get("svt_privacy_ledger")
    names = [name for name, _ in filters]
    common = {"system": "NVFlare, " + (", ".join(names) or "no filter of privacy"), "unit": "client"}
    arguments = next((arguments for name, arguments in filters if name == _SPARSE), None)
    if ledger is None and arguments is None:
        notes = [f"{name} adds no noise: what it leaves of an upload is there as it was" for name in names]
        return {**common, "mechanism": "none", "rounds": [{}]}, notes
    table = {**_DEFAULTS, **{key: value for key, value in (arguments or {}).items() if key in _DEFAULTS}}
    claim: dict[str, Any] = {"epsilon": table["epsilon"], "scope": "round", "accountant": "epsilon of the filter"}
    rounds: list[dict[str, Any]] = [{}]
    if isinstance(ledger, list) and ledger:
        table, rounds, claim = _of_ledger(ledger)
        common["system"] = "NVFlare, SVTPrivacy"
    made = {
        **common,
        "mechanism": "sparse-vector",
        "noise_by": "clients",
        "adjacency": "replace-one",
        "secure_random": False,
        "noise_before_clip": False,
        "adaptive_clip": False,
        "unprotected": ["scalars of the model, which the filter passes as they are", "steps and metrics of a client"],
        "sparse": table,
        "rounds": rounds,
        "claims": [{**claim, "delta": 0, "against": "upload"}],
    }
    notes = [
        "the selection goes on to the end of a pass after it has found as many values as it counts, so that its ε is "
        "for fewer answers than it gives"
    ]
    return made, notes


def _filters(groups: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """(class, arguments) of the filters of privacy, in their order."""
    found = []
    for group in groups:
        inner = group.get("filters") if isinstance(group, dict) else None
        for one in inner if isinstance(inner, list) else []:
            if not isinstance(one, dict):
                continue
            name = str(one.get("path") or one.get("class_path") or one.get("name") or "").rpartition(".")[2]
            arguments = one.get("args")
            if name in (_SPARSE, *_BARE):
                found.append((name, arguments if isinstance(arguments, dict) else {}))
    return found


def _of_ledger(ledger: list[Any]) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    calls = [call for call in ledger[:_MOST] if isinstance(call, dict)]

    def most(*keys: str) -> float | None:
        sums = [sum(call[key] for key in keys) for call in calls if all(_number(call.get(key)) for key in keys)]
        return max(sums, default=None)

    released = most("n_upload")
    table = {
        "epsilon": most("epsilon_threshold", "epsilon_query"),
        "epsilon_release": most("epsilon_release"),
        "released": None if released is None else int(released),
    }
    total = math.fsum(call["epsilon_total"] for call in calls if _number(call.get("epsilon_total")))
    return table, [{"count": len(ledger)}], {"epsilon": total, "scope": "total", "accountant": "pure_dp_sum"}


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12
