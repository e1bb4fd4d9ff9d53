"""Rounds that ended without a sum after their survivors had been told: charged, said, and not to be hidden."""

import json
from pathlib import Path

import pytest
from falsifying import falsified, found, small, written
from federations import task_of

from flora_protocols import RoundAborted, TooFewSurvivors, Trip
from flora_secure.auditing.findings import VIOLATION
from flora_secure.auditing.folder import audit
from flora_secure.engine.exchange import MaskedExchange
from flora_secure.privacy.accounting import epsilon_of
from flora_secure.records.record import RoundRecord


def aborted_late(config, task, path: Path, *numbers: int) -> Path:
    """A run whose rounds of these numbers lost their holders when everybody but them had answered."""
    summed = MaskedExchange.round

    def round_(self, invitation, floors, uploads, traffic, *more):
        carried = summed(self, invitation, floors, uploads, traffic, *more)
        if invitation.round in numbers:
            survivors = tuple(invitation.members.index(client) for client in carried.sum.survivors)
            raise RoundAborted(TooFewSurvivors("clients that revealed shares", 2, 5), Trip.UNMASK, survivors, {})
        return carried

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedExchange, "round", round_)
        return written(config, task, path)


@pytest.fixture(scope="module")
def late(digits, tmp_path_factory) -> Path:
    return aborted_late(small(aggregation__dropout=0.1), digits, tmp_path_factory.mktemp("late") / "run", 2)


def test_their_survivors_are_clients_and_not_places_in_the_cohort(coarse, tmp_path: Path) -> None:
    config = small(
        data__clients=20, training__rounds=3, participation__rate=0.5, participation__sampling="fixed",
        aggregation__dropout=0.1,
    )  # fmt: skip
    folder = aborted_late(config, task_of(config), tmp_path / "run", 2)
    line = json.loads((folder / "rounds.jsonl").read_text().splitlines()[1])
    assert line["aborted"]
    assert line["survivors"] == [client for client in line["participants"] if client not in line["dropped"]]
    assert line["survivors"] != list(range(len(line["survivors"])))
    assert not {f.check: f.evidence for f in audit(folder, opacus=False).findings if f.severity == VIOLATION}


def test_examples_are_counted_from_the_sums_that_there_were(digits, coarse, tmp_path: Path) -> None:
    """Two rounds of three are aborted late: their examples must not make the data look three times as large."""
    config = small(training__rounds=3, privacy__unit="example", privacy__delta=5e-4, privacy__epsilon=1.0)
    folder = aborted_late(config, digits, tmp_path / "run", 2, 3)
    assert not {f.check: f.evidence for f in audit(folder, opacus=False).findings if f.severity == VIOLATION}


def test_such_a_round_is_charged_and_the_audit_agrees(late: Path) -> None:
    lines = [json.loads(line) for line in (late / "rounds.jsonl").read_text().splitlines()]
    second = lines[1]
    assert second["aborted"]
    assert len(second["survivors"]) == 9
    report = json.loads((late / "report.json").read_text())
    assert report["aggregation"]["aborted"] == report["aggregation"]["announced"] == [2]
    events = [RoundRecord.from_dict({k: v for k, v in line.items() if k != "previous"}).event() for line in lines]
    assert report["privacy"]["epsilon"] == pytest.approx(epsilon_of(events, report["privacy"]["delta"]))
    assert "1 of the sums are counted although the server never had them" in report["privacy"]["statement"]
    assert lines[2]["model_hash"] == second["model_hash"]  # the sum moved nothing
    result = audit(late, opacus=False)
    assert not {f.check: f.evidence for f in result.findings if f.severity == VIOLATION}


def test_it_cannot_be_told_as_one_whose_survivors_never_were(late: Path, tmp_path: Path) -> None:
    def cheat(lines, report) -> None:
        lines[1] |= {"survivors": [], "noise_multiplier": None}
        report["aggregation"]["announced"] = []

    assert (
        "9 of 10 clients uploaded, which is enough for a sum" in found(falsified(late, tmp_path / "a", cheat))["A-08"]
    )

    def stranger(lines, report) -> None:
        lines[1]["survivors"] = sorted([*lines[1]["survivors"], *lines[1]["dropped"]])

    assert (
        "aborted, yet 10 survivors are in a sum, and dropped out"
        in found(falsified(late, tmp_path / "b", stranger))["A-04"]
    )

    def unsaid(lines, report) -> None:
        report["aggregation"]["announced"] = []

    assert "announced" in found(falsified(late, tmp_path / "c", unsaid))["A-33"]
