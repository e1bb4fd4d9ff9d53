"""F-19: the figures of a foreign log by accountants that share no code with the first."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass

from flora_secure.auditing.findings import Finding, judged, unchecked
from flora_secure.auditing.foreign.case import VIEWS, WORDS, ForeignCase
from flora_secure.auditing.foreign.costs import Step, tight
from flora_secure.auditing.foreign.log import REPLACE_ONE, SPARSE, ZERO_OUT
from flora_secure.auditing.foreign.views import Reading, amplifies, steps_of
from flora_secure.privacy.cross_check import (
    PRV,
    PRV_MODULE,
    TOLERANCE,
    CrossCheckError,
    accountant_versions,
    cross_check,
    cross_check_outsiders,
)
from flora_secure.privacy.events import RoundEvent

_MOST_ROUNDS, _MOST_EPSILON = 10_000, 50.0
_MOST_KINDS = 20  # of different sampled steps, of which each takes an accountant a tenth of a second or more
_SIGMA = 1000.0  # grid units: so fine a grid has no aliasing
_TITLE = ("Accountants agree about these rounds", "Accountants do not agree about these rounds")


@dataclass(frozen=True)
class Agreement:
    """The finding; the versions of the packages that were asked; accountants that were not, and why."""

    finding: Finding
    versions: dict[str, str]
    left_out: dict[str, str]


def agreement(case: ForeignCase, *, opacus: bool) -> Agreement:
    """Every finite view counted again: by the closed form, PLD, RDP and, where examples are sampled and it is
    installed, Opacus' PRV; cohorts by quadrature and FFT."""
    wanted = opacus and importlib.util.find_spec(PRV_MODULE.partition(".")[0]) is not None
    left_out = {} if wanted else {PRV: "not asked for" if opacus is False else "opacus is not installed"}
    apart, seen, why = [], dict[str, float](), "no figure is finite"
    if case.log.mechanism == SPARSE:
        why = "pure ε adds up: there is one way to count it"
    done = set[frozenset[tuple[Step, int]]]()
    for view in VIEWS:
        steps = _counted(case, view) if case.countable and math.isfinite(case.views[view]) else None
        if not steps or case.log.mechanism == SPARSE or (same := frozenset(steps.items())) in done:
            continue
        done.add(same)
        if sum(steps.values()) > _MOST_ROUNDS or case.views[view] > _MOST_EPSILON:
            why = f"more than {_MOST_ROUNDS:,} rounds or an ε above {_MOST_EPSILON:g} is counted once"
            continue
        if len(steps) > _MOST_KINDS and not all(step.plain for step in steps):
            why = f"more than {_MOST_KINDS} different sampled steps are counted once"
            continue
        try:
            found = _again(steps, case.delta, case.log.adjacency == REPLACE_ONE, opacus=wanted)
        except CrossCheckError as error:
            apart.append((WORDS[view], str(error)))
            continue
        if found is None:
            why = "replacing a sampled unit is counted by one accountant here"
            continue
        seen |= found
        first = next(iter(found.values()))
        if abs(first - case.views[view]) > TOLERANCE:
            apart.append((WORDS[view], f"{case.views[view]:.6g} here, {first:.6g} by {next(iter(found))}"))
    versions = accountant_versions(seen or ["closed form"])
    if not seen and not apart:
        return Agreement(unchecked("F-19", _TITLE, why), versions, left_out)
    finding = judged("F-19", _TITLE, apart, ", ".join(seen), "publish neither figure")
    return Agreement(finding, versions, left_out)


def _counted(case: ForeignCase, view: str) -> Mapping[Step, int] | None:
    """The steps that a view's figure was counted from: sampled, or not where that is less."""
    steps = steps_of(case.log, view)
    word = case.log.adjacency or ZERO_OUT
    if steps and amplifies(case.log, view) and tight(steps, case.delta, word) > case.views[view]:
        return steps_of(case.log, view, Reading(amplified=False))
    return steps


def _again(steps: Mapping[Step, int], delta: float, replaced: bool, *, opacus: bool) -> dict[str, float] | None:
    if replaced and not all(step.plain for step in steps):
        return None
    events = [_event(step, replaced) for step, count in steps.items() for _ in range(count)]
    if any(step.kept < step.among for step in steps):
        return cross_check_outsiders(events, delta)
    return cross_check(events, delta, opacus=opacus and any(step.rate < 1 for step in steps))


def _event(step: Step, replaced: bool) -> RoundEvent:
    z = step.z / 2 if replaced else step.z
    return RoundEvent(
        round=1,
        survivors=step.kept,
        colluders=0,
        sigma_local=_SIGMA,
        scale=_SIGMA * math.sqrt(step.kept) / z,
        clip_norm=1.0,
        dimension=1,
        sampling_rate=step.rate,
        population=step.among if step.kept < step.among else None,
    )
