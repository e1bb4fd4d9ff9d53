"""What Opacus keeps of differential privacy: `accountant.state_dict()`, a history of (z, rate, steps)."""

from __future__ import annotations

from typing import Any

_MECHANISMS = {"rdp": "RDP (Opacus)", "prv": "PRV (Opacus)", "gdp": "central limit (Opacus)"}


def knows(table: dict[str, Any]) -> bool:
    """Whether this is the state of one of Opacus' accountants."""
    return isinstance(table.get("history"), list) and table.get("mechanism") in _MECHANISMS


def imported(table: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys of the log, and what is known of Opacus' code. `epsilon` and `delta` beside the state are its claim.

    Source: opacus 1.6, accountants/accountant.py and optimizers/optimizer.py.
    """
    rounds = []
    for one in table["history"]:
        if isinstance(one, list) and len(one) == 3:
            rounds.append({"noise_multiplier": one[0], "sampling_rate": one[1], "count": one[2]})
        else:
            rounds.append(one)  # named as a problem when the log is read
    claim = {"epsilon": table.get("epsilon"), "delta": table.get("delta"), "against": "outsider", "scope": "total"}
    made = {
        "system": "Opacus",
        "unit": "example",
        "adjacency": "add-remove",
        "mechanism": "gaussian",
        "noise_before_clip": False,
        "accountant": _MECHANISMS[table["mechanism"]],
        "rounds": rounds,
        "claims": [] if claim["epsilon"] is None and claim["delta"] is None else [claim],
    }
    notes = ["its gdp accountant approximates, and may claim too little"] if table["mechanism"] == "gdp" else []
    return made, notes
