"""The audit by canaries: the noise and the clip as the released sums have them, without trust in the code that ran."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np

from flora_secure.auditing.canaries.bounds import f_dp, one_run, one_shot
from flora_secure.auditing.canaries.fit import LEVEL, fit
from flora_secure.auditing.canaries.scores import Scores, scores_of
from flora_secure.auditing.canaries.secret import Canaries, beside, read_canaries
from flora_secure.auditing.findings import Block, Finding, Measurement, judged
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.errors import RunFolderError

NAME = "canaries"
SIGNIFICANCE = 0.05  # of the bounds on ε
GUESSED = 4  # of so many canaries one is guessed, as was fixed beforehand
_COMMITTED = ("The canaries are those that the run began with", "The canaries are not those that the run began with")
_SUMS = ("The canaries' sums are those of the log", "Some sums are missing, or not those of the log")
_FITS = ("The canaries' scores are those of noise and clip as claimed", "The canaries' scores are not as claimed")
_BOUND = ("The canaries refute no claim of ε", "The canaries refute the claimed ε")
_CODE = "ask for the client code that was run: it clips or draws noise otherwise than planned"
_UNSEEN = "The noise itself is not seen here."


def block(case: Case, given: Path | None = None) -> Block:
    """The audit of a run by its canaries, whose file is `given`, or lies beside the folder."""
    if case.config_unread:
        return Block.skipped(NAME, "config.toml could not be read, which says whether there are any", [_UNSEEN])
    configured = case.config.evidence.canaries
    if not configured:
        return Block.skipped(NAME, "the run has none", [_UNSEEN])
    path = beside(case.path) if given is None else given
    try:
        canaries = read_canaries(path)
    except RunFolderError as error:
        return Block.skipped(NAME, f"the file of their coins is needed: {error}", [_UNSEEN])
    committed = _committed(case, canaries, str(path))
    if committed.where:
        return _made([committed], [])
    scores = scores_of(case, canaries)
    read = judged("C-02", _SUMS, scores.problems, f"{scores.rounds} sums", "ask for the sums as they were released")
    inside = int(scores.inside.sum())
    if min(inside, len(scores.inside) - inside) < 2:
        why = f"{inside} canaries are in and {len(scores.inside) - inside} out, in {scores.rounds} sums"
        return dataclasses.replace(_made([committed, read], []), left_out=f"2 of each are needed: {why}")
    compared = fit(scores, "sums/")
    fine = f"{inside} in and {len(scores.inside) - inside} out, {scores.rounds} rounds"
    fits = judged("C-03", _FITS, compared.problems, f"{fine}; {LEVEL:.0%} false alarms", _CODE)
    bounded, measurements = _bounds(case, scores)
    return _made([committed, read, fits, bounded], [*compared.measurements, *measurements])


def _committed(case: Case, canaries: Canaries, where: str) -> Finding:
    config, problems = case.config, []
    if canaries.commitment != config.evidence.canary_commitment:
        problems.append((where, f"its SHA-256 is {canaries.commitment:.12}…, and config.toml has another"))
    wanted = config.evidence.canaries, config.clients - config.evidence.canaries
    if (canaries.count, canaries.first) != wanted:
        problems.append(
            (
                where,
                f"{canaries.count} canaries after {canaries.first} clients, configured are {wanted[0]} and {wanted[1]}",
            )
        )
    remedy = "ask for the file that was written beside the run folder when the run began"
    return judged("C-01", _COMMITTED, problems, f"SHA-256 {canaries.commitment:.12}… in config.toml", remedy)


def _bounds(case: Case, scores: Scores) -> tuple[Finding, list[Measurement]]:
    """The claim of ε against the bound by f-DP, and what all methods say of ε."""
    count, delta, claimed = len(scores.values), case.delta, case.server
    guesses, ratios = max(1, count // GUESSED), scores.ratios
    surest = np.argsort(-np.abs(ratios), kind="stable")[:guesses]
    right = int(np.sum((ratios > 0)[surest] == scores.inside[surest]))
    (low, most), (any_low, any_most) = (
        [method(count, guesses, number, delta, SIGNIFICANCE) for number in (right, guesses)]
        for method in (f_dp, one_run)
    )
    here, shifts = scores.values[scores.inside], scores.shifts[scores.inside]
    deviation = max(float((here - shifts).std(ddof=1)), 1e-3)  # of rounds that are not all the same
    guessed = f"{right} of the {guesses} surest guesses about {count} canaries are right, as many as fixed beforehand"
    problems = (
        [("sums/", f"ε is at least {low:.4g} at δ = {delta:g}, claimed is {claimed:.4g}")] if low > claimed else []
    )
    told = f"{guessed}; ε ≥ {low:.4g}, claimed {claimed:.4g}, at most {most:.4g} could show"
    finding = judged("C-04", _BOUND, problems, told, _CODE)
    return finding, [
        Measurement(
            name="ε, lower bound by f-DP",
            value=low,
            low=low,
            high=None,
            ceiling=_finite(most),
            false_alarm=SIGNIFICANCE,
            assumption=f"{guessed}; the mechanism is Gaussian (2410.22235), 95 % confidence",
            alarm=bool(problems),
        ),
        Measurement(
            name="ε, lower bound in one run",
            value=any_low,
            low=any_low,
            high=None,
            ceiling=_finite(any_most),
            false_alarm=SIGNIFICANCE,
            assumption="the same guesses; any mechanism (2305.08846), 95 % confidence; nothing is demanded of it",
            alarm=False,
        ),
        Measurement(
            name="ε, one-shot estimate",
            value=one_shot(float(here.mean()), deviation, delta),
            low=None,
            high=None,
            ceiling=None,
            false_alarm=None,
            assumption="scores of those in are Gaussian with their measured mean and variance (2302.03098)",
            alarm=False,
        ),
    ]


def _finite(value: float) -> float | None:
    return value if value < math.inf else None


def _made(findings: list[Finding], measurements: list[Measurement]) -> Block:
    return Block(
        name=NAME,
        left_out=None,
        findings=findings,
        measurements=measurements,
        checked=[
            "Noise and clip are measured in the released sums, along directions that nobody but the owner of the coins "
            "knew, and no code of the run is trusted for it.",
        ],
        assumed=[
            "Coins and directions were drawn at random and nobody who ran clients or server used them; config.toml, "
            "which the log's first line is bound to, has their hash.",
            "Canaries are treated as all other clients: code that knows its canaries can serve them alone.",
            "The sums are those that were released: the log has their hashes.",
        ],
        uncovered=[
            "Whether the noise is secret: a key that is known gives noise of the right size.",
            "Noise that is a few per cent too small: the noise meter of a simulation sees that.",
        ],
    )
