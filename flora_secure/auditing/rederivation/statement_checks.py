"""A-30: the statement says what the log implies."""

from __future__ import annotations

from collections import Counter

from flora_secure.auditing.findings import Finding, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.auditing.rederivation.report_checks import rates_of
from flora_secure.planning.masking import name_of
from flora_secure.planning.noise import protected_units
from flora_secure.planning.selection import corrupt_clients
from flora_secure.privacy.cross_check import PRV
from flora_secure.privacy.ledger import BudgetExceededError, Ledger, LedgerError
from flora_secure.privacy.noise_plan import NoisePlan
from flora_secure.records.report import Report
from flora_secure.records.statement import statement


def words(case: Case) -> Finding:
    """A-30: the statement is, word by word, the one that the log implies."""
    title = ("The statement is the one that the log implies", "The statement is not the one that the log implies")
    if case.report is None:
        return unchecked("A-30", title, case.no_report)
    if case.planned.noise is None:
        return unchecked("A-30", title, f"no statement can be made without a plan: {case.planned.why_none}")
    try:
        expected = dict(_paragraphs(_statement(case, case.report, case.planned.noise)))
    except (BudgetExceededError, LedgerError, ValueError) as error:
        return unchecked("A-30", title, f"no statement can be made from these rounds: {error}")
    if "Accounting" in expected:
        expected["Accounting"] = _accounting(expected["Accounting"], case.report)
    paragraphs = _paragraphs(case.report.privacy.statement)
    told = dict(paragraphs)
    # a false paragraph before the true one would be read first, and the dictionary would not have it
    often = Counter(label for label, _ in paragraphs)
    problems = [("report.json", f"paragraph {label!r:.60} occurs {n} times") for label, n in often.items() if n > 1]
    for label in [*expected, *(label for label in told if label not in expected)]:
        if told.get(label) != expected.get(label):
            problems.append(("report.json", _difference(label, told.get(label), expected.get(label))))
    if case.noisy and case.released and f"epsilon = {case.server:.4f}" not in told.get("Guarantee", ""):
        problems.append(("report.json", f"the guarantee does not state epsilon = {case.server:.4f}"))
    return judged(
        "A-30", title, problems, f"all {len(expected)} paragraphs equal word by word",
        "print the statement that follows from the rounds",
    )  # fmt: skip


def _statement(case: Case, report: Report, plan: NoisePlan) -> str:
    config = case.config
    ledger = Ledger(config.privacy.epsilon, case.delta)
    for record in case.records:
        if record.exposed:  # its uploads were sent, and count for epsilon_local
            ledger.authorise(record.exposed_event())
            ledger.expose()
        elif record.released:
            ledger.authorise(record.event())
            ledger.record(record.event())
    clipped, wrapped = rates_of(case)
    return statement(
        plan,
        ledger,
        cross_check={},
        profile=config.aggregation.secagg,
        secret_noise=not config.privacy.simulation_noise,
        unit=config.privacy.unit,
        population=protected_units(config, case.planned.images),
        aborted_rounds=sum(not record.released for record in case.records),
        lost_rounds=[record.round for record in case.records if record.lost],
        announced_rounds=sum(record.announced for record in case.records),
        clip_rate=clipped,
        overflow_rate=wrapped,
        corrupt=corrupt_clients(config),
        counted=config.aggregation.masks == "counted",
        suite=None if config.aggregation.secagg == "off" else name_of(case.planned.suite),
        canaries=config.evidence.canaries,
        compared=report.competitors.of_private_data,
    )


def _accounting(paragraph: str, report: Report) -> str:
    """The derived `paragraph` with the report's own cross-checks, which A-27 judges, and the versions it ran with,
    which the log cannot tell: they have to be those of its provenance."""
    checks, versions = report.privacy.cross_check, report.provenance.versions
    others = "; ".join(f"{name} {epsilon:.4f}" for name, epsilon in checks.items()) or "none made"
    packages = ["dp-accounting", *(["opacus"] if PRV in checks else [])]
    software = ", ".join(f"{name} {versions.get(name)}" for name in packages)
    return f"{paragraph.partition(' Cross-checks: ')[0]} Cross-checks: {others}. Software: {software}."


def _paragraphs(text: str) -> list[tuple[str, str]]:
    """Label and paragraph; what has no label of the statement is none of its paragraphs."""
    return [(paragraph.partition(".")[0].partition(" (")[0], paragraph) for paragraph in text.split("\n\n")]


def _difference(label: str, told: str | None, expected: str | None) -> str:
    if told is None or expected is None:
        return f"paragraph {label!r:.60} is {'missing' if told is None else 'not one of this run'}"
    place = next(
        (i for i, (a, b) in enumerate(zip(told, expected, strict=False)) if a != b), min(len(told), len(expected))
    )
    start = max(place - 30, 0)
    return f"{label!r:.60} says {told[start : place + 30]!r}, the log {expected[start : place + 30]!r}"
