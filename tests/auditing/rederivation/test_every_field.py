"""No field of report and log that no check reads: each is falsified, with hashes that fit, in genuine folders."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from falsifying import Table, chained, read, small, written
from federations import prepare, task_of
from test_captioned_audit import with_captions

from flora_secure.auditing import fields
from flora_secure.auditing.findings import VIOLATION
from flora_secure.auditing.folder import audit
from flora_secure.engine.task import Task
from flora_secure.planning.names import COMPETITORS
from flora_secure.records.reading import read_as_far
from flora_secure.records.record import RoundRecord
from flora_secure.records.report import Report

DOCS = Path(__file__).parents[3] / "docs"
LOG = [("log", name) for name in fields.leaves(RoundRecord)]
REPORT = [("report", name) for name in fields.leaves(Report)]


@pytest.fixture(scope="module")
def folders(digits: Task, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs that have every field between them, and each of whose fields has a value of its own."""
    base = tmp_path_factory.mktemp("fields")
    everything = small(data__unseen_classes=("digit 7", "digit 2"))
    adaptive = small(privacy__adaptive_clip=0.5, privacy__epsilon=50.0)
    captions = prepare(small(), with_captions(digits.federation))
    return [
        written(everything, task_of(everything), base / "everything", COMPETITORS),
        written(adaptive, digits, base / "adaptive"),
        written(small(), captions, base / "captions"),
    ]


@pytest.fixture(scope="module", autouse=True)
def counted_once() -> Iterator[None]:
    """Accountants are asked the same again and again: what they said is remembered."""
    from flora_secure.auditing.rederivation import derivation, planned, view_checks

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((view_checks, "cross_check"), (derivation, "poisson_epsilon"), (planned, "plan_noise")):
            patch.setattr(module, name, remembered(getattr(module, name)))
        patch.setattr(derivation.Case, "_second", remembered_second(derivation.Case._second))
        yield


def remembered(function: Any) -> Any:
    known: dict[str, Any] = {}

    @functools.wraps(function)
    def asked(*given: Any, **named: Any) -> Any:
        key = repr((given, sorted(named.items())))
        if key not in known:
            known[key] = function(*given, **named)
        return known[key]

    return asked


def remembered_second(method: Any) -> Any:
    known: dict[str, Any] = {}

    def asked(case: Any, rounds: Any) -> Any:
        key = repr((case.delta, [r.z for r in rounds], [r.record.dimension for r in rounds], len(rounds)))
        if key not in known:
            known[key] = method(case, rounds)
        return known[key]

    return asked


def others(value: Any) -> list[Any]:
    """Other values of the same type: a likely one, one that no run has, and more."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, -7, value - 1, 2 * value + 3]
        case float():
            return [value * 1.003 + 1e-4, -1.5, value / 2 + 1e-3, value * 50 + 3]
        case str():
            return [value + "x", value[:-1], "semi-honest"]
        case list():
            short, twice = (value[:-1], [*value, *value[:1]]) if value else ([0], [1])
            # figures that differ by a rounding are the same in either order
            rounded = all(isinstance(x, float) for x in value) and max(value, default=0) - min(value, default=0) < 1e-9
            return [short, twice, *([] if rounded else [value[::-1]])]
        case dict():
            more = {**value, "x": next(iter(value.values()), 0.5)}
            return [{key: _moved(one) for key, one in value.items()}, {}, more, {**value, "x": 7.5}]
        case _:
            return [-1.5, -1, "x", [0], 1.5, 1]


def _moved(value: Any) -> Any:
    return value + 0.37 if isinstance(value, float) else value + "9" if isinstance(value, str) else value


def holders(table: Any, parts: list[str]) -> list[tuple[Table, str]]:
    """Where a field stands, and its key: in each item of a list."""
    if isinstance(table, list):
        return [found for item in table for found in holders(item, parts)]
    if not isinstance(table, dict):
        return []
    if len(parts) == 1:
        return [(table, parts[0])] if parts[0] in table else []
    return holders(table[parts[0]], parts[1:])


def falsifications(folder: Path, source: str, name: str) -> Iterator[tuple[Any, list[Table], Table]]:
    lines, report = read(folder)
    of: Any = [lines[1]] if source == "log" else report
    for value in others(holders(of, name.split("."))[0][0][name.rpartition(".")[2]]):
        now = copy.deepcopy((lines, report))
        fresh: Any = [now[0][1]] if source == "log" else now[1]
        table, key = holders(fresh, name.split("."))[0]
        if table[key] != value:
            table[key] = value
            yield value, *now


def having(folders: list[Path], source: str, name: str) -> list[Path]:
    """Folders that have the field, those first where it says something."""
    told = []
    for folder in folders:
        lines, report = read(folder)
        if found := holders([lines[1]] if source == "log" else report, name.split(".")):
            table, key = found[0]
            told.append((table[key] in (None, [], {}, 0, 0.0), len(told), folder))
    return [folder for *_, folder in sorted(told)]


def violated(folder: Path, report: Table, name: str) -> bool:
    if name in ("provenance.config_hash", "provenance.rounds_hash"):  # which whoever falsifies the others makes fit
        text, told = (folder / "report.json").read_text(), report["provenance"][name.rpartition(".")[2]]
        (folder / "report.json").write_text(text.replace(told, "0" * 64))
    return any(finding.severity == VIOLATION for finding in audit(folder, opacus=False).findings)


EVERY = pytest.mark.parametrize(("source", "name"), [*LOG, *REPORT], ids=lambda value: str(value))


@EVERY
def test_a_field_that_is_falsified_is_found(folders: list[Path], tmp_path: Path, source: str, name: str) -> None:
    judge(having(folders, source, name)[:1], tmp_path, source, name, 2)


@pytest.mark.slow
@EVERY
def test_a_field_that_is_falsified_is_found_anywhere(
    folders: list[Path], tmp_path: Path, source: str, name: str
) -> None:
    judge(having(folders, source, name), tmp_path, source, name, 4)


def judge(folders: list[Path], tmp_path: Path, source: str, name: str, most: int) -> None:
    listed = (fields.LOG if source == "log" else fields.REPORT)[name]
    tried, passed = 0, []
    for number, original in enumerate(folders):
        work, left = Path(shutil.copytree(original, tmp_path / str(number))), most
        for value, lines, report in falsifications(original, source, name):
            chained(work, lines, report)
            if left and not read_as_far(work).unread:  # else it is of another type
                left, tried = left - 1, tried + 1
                if not violated(work, report, name):
                    passed.append((number, value))
    assert tried, "no folder has it"
    if not listed.checks:
        assert listed.unseen
        assert len(passed) == tried, "a check reads what is listed as not checkable"
    elif listed.unseen:
        assert len(passed) < tried, "no check reads it"
    else:
        assert not passed, passed


def test_every_field_is_listed_once_and_in_the_docs() -> None:
    assert set(fields.LOG) == {name for _, name in LOG}
    assert set(fields.REPORT) == {name for _, name in REPORT}
    assert (DOCS / "fields.md").read_text(encoding="utf-8").rstrip() == fields.table()
