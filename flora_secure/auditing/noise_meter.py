"""The noise meter: what a simulation measured of the noise in its sums, against what is claimed."""

from __future__ import annotations

import math
from statistics import NormalDist

from scipy.special import chdtr, chdtrc, chdtri

from flora_secure.auditing.findings import Block, Finding, Measurement, judged, unchecked
from flora_secure.auditing.rederivation.derivation import Case
from flora_secure.records.record import RoundRecord

NAME = "noise meter"
DEVIATIONS = 3.3  # of all rounds together, beyond which there is an alarm
_ROUNDS = 1e-3  # false alarms of all rounds alone, together
_MOST = 1e12  # times the claim; coordinates
_POOLED = ("The noise in the sums is what is claimed", "The noise in the sums is not what is claimed")
_SINGLE = ("No round's noise stands out", "A round's noise is not what is claimed")
_REMEDY = "ask for the client code that was run: it clips, rotates or draws noise otherwise than planned"
_ASSUMED = "the ratios are those that the simulation wrote"


def block(case: Case) -> Block:
    """The audit of the ratios in the log, pooled over rounds and coordinates, and of each round alone."""
    measured = [r for r in case.records if r.noise_ratio is not None]
    if not measured:
        return Block.skipped(NAME, _why_not(case), ["The noise itself is not seen here."])
    if odd := [r.round for r in measured if not (0 <= _ratio(r) < _MOST and 0 < r.dimension < _MOST)]:
        return Block.skipped(NAME, f"round {odd[0]} has a ratio or a length that no round can have")
    coordinates = sum(r.dimension for r in measured)
    square = math.fsum(r.dimension * _ratio(r) ** 2 for r in measured) / coordinates
    apart = DEVIATIONS * math.sqrt(2 / coordinates)  # the variance of a mean of squares of Gaussians is 2/N
    false_alarm = float(chdtrc(coordinates, coordinates * (1 + apart)))
    false_alarm += float(chdtr(coordinates, coordinates * (1 - apart)))
    problems = []
    if not abs(square - 1) <= apart:
        problems.append(("rounds.jsonl", f"{math.sqrt(square):.4f} times the claimed noise, {_off(square, apart)}"))
    tail = _ROUNDS / (2 * len(measured))
    single = [
        (f"rounds.jsonl, round {r.round}", f"{_ratio(r):.4f} times the claimed noise")
        for r in measured
        if not chdtri(r.dimension, 1 - tail) <= r.dimension * _ratio(r) ** 2 <= chdtri(r.dimension, tail)
    ]
    fine = f"{math.sqrt(square):.4f} times the claim over {len(measured)} rounds and {coordinates:,} coordinates"
    findings = [
        judged("N-01", _POOLED, problems, fine, _REMEDY),
        judged("N-02", _SINGLE, single, f"{len(measured)} rounds, {_ROUNDS:g} false alarms in all", _REMEDY),
        *_unmeasured(case, len(measured)),
    ]
    reach = NormalDist().inv_cdf(0.975) * math.sqrt(2 / coordinates)
    ratio = Measurement(
        name="noise in the sums ÷ claim",
        value=math.sqrt(square),
        low=math.sqrt(square * max(0.0, 1 - reach)),
        high=math.sqrt(square * (1 + reach)),
        ceiling=None,
        false_alarm=false_alarm + _ROUNDS,
        assumption=f"{_ASSUMED}; 95 % interval",
        alarm=bool(problems or single),
    )
    return Block(
        name=NAME,
        left_out=None,
        findings=findings,
        measurements=[ratio],
        checked=[
            f"The noise of {len(measured)} sums, all of it together and each round alone, has the claimed size.",
            "A client that clips nothing, or another rotation or scale than planned, would have shown as noise too.",
        ],
        assumed=[
            "The ratios are those that the simulation wrote: the plain sums are in no file, so that nobody can derive "
            "them again, and who writes a log can write any ratio.",
            "The noise of a coordinate is Gaussian and independent of the others'.",
        ],
        uncovered=[
            "Whether the noise is secret, and drawn afresh for each upload: keys that are known or repeated between "
            "rounds give noise of the right size.",
            *(
                ["Whether single examples' gradients were clipped: the meter sees their sums."]
                if case.config.privacy.unit == "example"
                else []
            ),
        ],
    )


def _ratio(record: RoundRecord) -> float:
    assert record.noise_ratio is not None
    return record.noise_ratio


def _off(square: float, apart: float) -> str:
    return f"{(square - 1) / apart * DEVIATIONS:+.1f} standard deviations of its variance, {DEVIATIONS} are allowed"


def _why_not(case: Case) -> str:
    if not case.noisy:
        return "the run claims no noise"
    return "no round has a ratio of noise: only a simulation in one process, which has the plain sums, can measure it"


def _unmeasured(case: Case, measured: int) -> list[Finding]:
    """A warning where a round with a sum has no ratio though others have."""
    summed = sum(r.summed for r in case.records)
    if summed == measured:
        return []
    return [unchecked("N-03", ("Every sum was measured", ""), f"{summed - measured} of {summed} sums have no ratio")]
