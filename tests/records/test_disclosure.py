"""Every field of report, log and adapter is public, paid for, or named in the privacy statement."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flora_secure.plain import schema_of
from flora_secure.planning.names import COMPETITORS
from flora_secure.privacy.calibration import calibrate
from flora_secure.privacy.ledger import Ledger
from flora_secure.records import disclosure
from flora_secure.records.adapter_card import AdapterCard
from flora_secure.records.disclosure import (
    ADAPTER,
    CLIENT_RECEIPT,
    COMPARED,
    NAMED,
    PAID,
    PUBLIC,
    RECEIPT,
    REPORT,
    ROUND,
    kind_of,
)  # fmt: skip
from flora_secure.records.receipts.receipt import ClientReceipt, Receipt
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Report
from flora_secure.records.statement import statement

DOCS = Path(__file__).parents[2] / "docs"


def leaves(schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """The fields of a schema that hold no other fields; what is below a list or a dictionary is one field."""
    schema = next((one for one in schema.get("anyOf", []) if one != {"type": "null"}), schema)
    if "properties" not in schema:
        yield where
        return
    for name, inner in schema["properties"].items():
        yield from leaves(inner, f"{where}.{name}" if where else name)


TABLES = [
    (list(leaves(schema_of(Report))), REPORT),
    ([*leaves(schema_of(RoundRecord)), "previous"], ROUND),
    (list(leaves(schema_of(AdapterCard))), ADAPTER),
    (list(leaves(schema_of(Receipt))), RECEIPT),
    (list(leaves(schema_of(ClientReceipt))), CLIENT_RECEIPT),
]


@pytest.mark.parametrize(("fields", "table"), TABLES, ids=["report", "round", "adapter", "receipt", "client"])
def test_every_field_is_declared_and_nothing_else(fields, table) -> None:
    assert len(fields) > 8
    assert {field: kind_of(field, table) for field in fields if kind_of(field, table) is None} == {}
    # a line that decides of no field is of a field that is gone
    deciding = {
        max((name for name in table if field == name or field.startswith(name + ".")), key=len) for field in fields
    }
    assert table.keys() - deciding == set()
    assert set(table.values()) <= {PUBLIC, PAID, *NAMED, *COMPARED.values()}


def test_every_named_kind_is_used_and_stands_in_the_statement() -> None:
    used = set(REPORT.values()) | set(ROUND.values()) | set(ADAPTER.values())
    assert set(NAMED) <= used
    plan = calibrate(clients=100, dimension=64, rounds=1, epsilon=4.0, delta=1e-5, clip_norm=2.0)
    ledger = Ledger(plan.epsilon, plan.delta)
    ledger.authorise(plan.event(1, 100))
    ledger.record(plan.event(1, 100))
    noiseless = calibrate(clients=100, dimension=64, rounds=1, epsilon=math.inf, delta=1e-5, clip_norm=2.0)
    for of, what in ((plan, ledger), (plan, Ledger(4.0, 1e-5)), (noiseless, Ledger(math.inf, 1e-5))):
        text = statement(of, what, cross_check={}, profile="semi-honest", secret_noise=True, suite="x25519")
        beside = next(paragraph for paragraph in text.split("\n\n") if paragraph.startswith("Beside the budget."))
        assert [phrase for phrase in NAMED if phrase not in beside] == []


def test_competitors_are_told_where_they_are_in_the_report_and_only_there() -> None:
    assert {REPORT[f"competitors.{name.replace('-', '_')}"] for name in COMPARED} == set(COMPARED.values())
    assert set(COMPARED) < set(COMPETITORS)
    plan = calibrate(clients=100, dimension=64, rounds=1, epsilon=4.0, delta=1e-5, clip_norm=2.0)
    noiseless = calibrate(clients=100, dimension=64, rounds=1, epsilon=math.inf, delta=1e-5, clip_norm=2.0)
    ledger = Ledger(plan.epsilon, plan.delta)
    ledger.authorise(plan.event(1, 100))
    ledger.record(plan.event(1, 100))
    for compared in ((), ("central",), tuple(COMPARED)):
        for of, what in ((plan, ledger), (plan, Ledger(4.0, 1e-5)), (noiseless, Ledger(math.inf, 1e-5))):
            text = statement(
                of, what, cross_check={}, profile="semi-honest", secret_noise=True, suite="x25519", compared=compared
            )
            assert [name for name, phrase in COMPARED.items() if phrase in text] == [*compared]
            assert ("NOT for publication" in text) == bool(compared)
            assert text.split("\n\n")[-1].startswith("Beside the budget.")


def test_the_docs_have_the_declarations() -> None:
    told = (DOCS / "disclosure.md").read_text(encoding="utf-8")
    assert told == disclosure._markdown() + "\n", "run: python -m flora_secure.records.disclosure > docs/disclosure.md"
