"""An entry for a registry of deployments of differential privacy, as JSON.

Its fields are those that such a registry asks for (arXiv 2509.13509): what was released under which guarantee, in which
model of trust, how ε was counted and the hyper-parameters chosen, and who looked at it with what result.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

from flora_secure.auditing.findings import Audit, View

SCHEMA = "flora-secure/registry-entry/1"


def registry_entry(audit: Audit) -> dict[str, Any]:
    """The entry of an audited system as plain data, `schema` first; what is not known is None."""
    label = audit.label
    entry: dict[str, Any] = {"schema": SCHEMA}
    if label is not None:
        entry |= {
            "system": label.system,
            "date": label.date,
            "unit": label.unit,
            "adjacency": label.adjacency,
            "trust_model": label.trust,
            "trusted": label.trusted,
            "mechanism": label.mechanism,
            "parameters": dict(sorted(label.parameters.items())),
            "sampling": label.sampling,
            "epsilon": {
                "server": _view(label.server),
                "outsider": _view(label.outsider),
                "single_upload": _view(label.upload),
            },
            "delta": label.delta,
            "composition": label.composition,
            "accountant": label.accountant,
            "accountants_asked": dict(sorted(audit.accountants.items())),
            "hyper_parameters": label.chosen,
            "implementation": label.implementation,
            "not_covered": label.uncovered,
            "released_without_noise": label.exposed,
        }
    counts = Counter(finding.severity for finding in audit.findings)
    return entry | {
        "audit": {
            "passed": audit.passed,
            "epsilon_refuted": any(one.alarm for block in audit.blocks for one in block.measurements),
            "violations": counts["violation"],
            "warnings": counts["warning"],
            "checks": len(audit.findings),
            "made": [block.name for block in audit.blocks if block.left_out is None],
            "not_made": {block.name: block.left_out for block in audit.blocks if block.left_out is not None},
            "measured": [dataclasses.asdict(one) for block in audit.blocks for one in block.measurements],
        }
    }


def registry_text(audit: Audit) -> str:
    """The entry as JSON in which every character can be seen."""
    text = json.dumps(registry_entry(audit), indent=2, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _view(view: View) -> dict[str, Any]:
    return {"epsilon": view.epsilon, "status": view.status, "said": view.said}
