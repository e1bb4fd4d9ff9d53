"""What Flower keeps of differential privacy: `RdpAccountant.state_dict()`, its strategies, its local mod."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

_SAMPLING = {"poisson": "poisson", "without-replacement": "fixed"}
_ADJACENCY = {"add-or-remove-one": "add-remove", "replace-one": "replace-one"}
_FIXED = ("DifferentialPrivacyServerSideFixedClipping", "DifferentialPrivacyClientSideFixedClipping")
_ADAPTIVE = ("DifferentialPrivacyServerSideAdaptiveClipping", "DifferentialPrivacyClientSideAdaptiveClipping")
_LOCAL = "LocalDpMod"
_METRICS = "metrics of training and evaluation, and numbers of examples"


def knows(table: dict[str, Any]) -> bool:
    """Whether this is an accountant's state, or the settings of a strategy or mod under its class's name."""
    state = table.get("backend") == "rdp" and "compositions" in table and "config" in table
    return state or table.get("flower") in (*_FIXED, *_ADAPTIVE, _LOCAL)


def imported(table: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys of the log, and what is known of Flower's code; values that Flower did not write stay as they are.

    Source: flwr 1.42, supercore/privacy_accounting, supercore/differential_privacy.py and the strategies.
    """
    name = table.get("flower")
    if name is None:
        return _of_state(table), _state_notes(table)
    common = {
        "system": f"Flower, {name}",
        "unit": "client",
        "mechanism": "gaussian",
        "noise_before_clip": False,
        "secure_random": False,
        "unprotected": [_METRICS],
    }
    if name == _LOCAL:
        return {**common, **_local(table)}, _local_notes(table)
    state = table.get("accountant")
    state = state if isinstance(state, dict) and isinstance(state.get("config"), dict) else {}
    accounted = _of_state(state) if state else {}
    one: dict[str, Any] = {"noise_multiplier": table.get("noise_multiplier"), "clip": table.get("clipping_norm")}
    one["cohort"] = table.get("num_sampled_clients")
    notes = _state_notes(state) if accounted else [
        "without an accountant Flower weights clients by their examples: one may be more than its share of the mean"
    ]  # fmt: skip
    if name in _ADAPTIVE:
        one["count_noise"] = table.get("clipped_count_stddev")
        notes.append(
            "the noise is scaled to the clip norm of the next round, while this round was clipped to its own: it is "
            "smaller wherever the norm shrinks, by e^(−rate·(share clipped − quantile))"
        )
    elif _positive(one["noise_multiplier"]) and _positive(one["clip"]) and _positive(one["cohort"]):
        one["noise"] = one["noise_multiplier"] * one["clip"] / one["cohort"]
    if name in (_FIXED[1], _ADAPTIVE[1]):
        notes.append("clients clip by themselves, and nobody checks that they do")
    rounds = [{**one, "count": run["count"]} for run in accounted.get("rounds", [])] or [one]
    how = {
        "noise_by": "server",
        "noise_on": "mean",
        "aggregation": "open",
        "clip": table.get("clipping_norm"),
        "adaptive_clip": name in _ADAPTIVE,
        "rounds": rounds,
    }
    return {**accounted, **common, **how}, notes


def _of_state(state: dict[str, Any]) -> dict[str, Any]:
    config = state["config"] if isinstance(state["config"], dict) else {}
    runs = state.get("compositions")
    rounds = []
    for one in runs if isinstance(runs, list) else []:
        event = one.get("event") if isinstance(one, dict) else None
        event = event if isinstance(event, dict) else {}
        rounds.append(
            {
                "count": one.get("count") if isinstance(one, dict) else None,
                "noise_multiplier": event.get("noise_multiplier"),
                "cohort": event.get("sample_size"),
            }
        )
    delta, limit, spent = config.get("target_delta"), config.get("max_epsilon"), state.get("spent")
    claims = []
    if isinstance(spent, dict):
        claims.append(
            {"epsilon": spent.get("epsilon"), "delta": spent.get("delta"), "accountant": "Flower RdpAccountant"}
        )
    if limit is not None:
        claims.append({"epsilon": limit, "delta": delta, "accountant": "max_epsilon"})
    return {
        "system": "Flower, RdpAccountant",
        "unit": "client",
        "adjacency": _ADJACENCY.get(str(config.get("neighboring_relation"))),
        "population": config.get("population_size"),
        "mechanism": "gaussian",
        "sampling": _SAMPLING.get(str(config.get("sampling_method"))),
        "accountant": "RDP (dp-accounting)",
        "rounds": rounds,
        "claims": [{**claim, "against": "outsider", "scope": "total"} for claim in claims],
    }


def _state_notes(state: dict[str, Any]) -> list[str]:
    config = state.get("config")
    if isinstance(config, dict) and config.get("neighboring_relation") == "replace-one":
        return [
            "for replace-one the accountant takes z against the distance of two contributions, and Flower's strategies "
            "have it against one clip norm: their z must be halved before it is entered"
        ]
    return []


def _local(table: dict[str, Any]) -> dict[str, Any]:
    epsilon, delta, sensitivity = (table.get(key) for key in ("epsilon", "delta", "sensitivity"))
    one: dict[str, Any] = {"clip": table.get("clipping_norm")}
    if _positive(epsilon) and _positive(delta) and _positive(sensitivity) and delta < 1.25:
        one["noise"] = sensitivity * math.sqrt(2 * math.log(1.25 / delta)) / epsilon
    return {
        "noise_by": "clients",
        "clip": sensitivity,
        "adaptive_clip": False,
        "rounds": [one],
        "claims": [{"epsilon": epsilon, "delta": delta, "against": "upload", "scope": "round"}],
    }


def _local_notes(table: dict[str, Any]) -> list[str]:
    epsilon = table.get("epsilon")
    if _positive(epsilon) and epsilon > 1:
        return [f"√(2·ln(1.25/δ))/ε is proved for ε below 1, and ε is {epsilon:g}"]
    return []


def _positive(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and 0 < value < 1e12
