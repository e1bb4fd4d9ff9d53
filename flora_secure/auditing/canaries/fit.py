"""Scores of canaries against the Gaussians that the run claims."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import chdtri

from flora_secure.auditing.canaries.scores import Scores
from flora_secure.auditing.findings import Measurement

LEVEL = 0.01  # false alarms of the whole fit
_TESTS = 6  # tails: mean of those in, mean of those out, variance, each from below and above
_TAIL = LEVEL / _TESTS
_ASSUMED = f"scores are Gaussian and independent; {1 - 2 * _TAIL:.1%} interval".replace("%", " %")


@dataclass(frozen=True)
class Fit:
    """Means and variance of scores, and what is wrong with them: (where, what) each."""

    measurements: list[Measurement]
    problems: list[tuple[str, str]]


def fit(scores: Scores, where: str) -> Fit:
    """Compare with the claim; at least 2 canaries have to be in, and 2 out.

    Every tail has a sixth of `LEVEL`. Means are judged by the claimed variance, or the measured one where it is larger.
    """
    inside, centred = scores.inside, scores.values - np.where(scores.inside, scores.shifts, 0.0)
    here, there = centred[inside], centred[~inside]
    freedom = len(centred) - 2
    square = float(((here - here.mean()) ** 2).sum() + ((there - there.mean()) ** 2).sum()) / freedom
    deviation, far = math.sqrt(max(1.0, square)), -NormalDist().inv_cdf(_TAIL)
    problems = []
    claimed = float(scores.shifts[inside].mean())
    reach_in, reach_out = (far * deviation / math.sqrt(len(group)) for group in (here, there))
    mean_in, mean_out = float(here.mean()), float(there.mean())
    if abs(mean_in) > reach_in:
        problems.append(
            (where, f"canaries that are in move the sums by {1 + mean_in / claimed:.3f} times the clip norm")
        )
    if abs(mean_out) > reach_out:
        problems.append((where, f"canaries that are out move the sums by {mean_out / claimed:.3f} times the clip norm"))
    low, high = (float(chdtri(freedom, tail)) / freedom for tail in (1 - _TAIL, _TAIL))
    most = (1 + scores.spread) * high
    if square < low:
        problems.append((where, f"the noise along their directions is {math.sqrt(square):.3f} times what is claimed"))
    if square > most:
        text = f"{math.sqrt(square):.3f} times what is claimed, more than noise and clipped updates can be"
        problems.append((where, f"what is along their directions is {text}"))
    return Fit(
        [
            _measurement(
                "canaries in: shift ÷ clip norm", 1 + mean_in / claimed, reach_in / claimed, abs(mean_in) > reach_in
            ),
            _measurement("canaries out: shift ÷ clip norm", mean_out / claimed, reach_out / claimed,
                         abs(mean_out) > reach_out),
            Measurement(
                name="noise along canaries ÷ claim",
                value=math.sqrt(square),
                low=math.sqrt(square / high),
                high=math.sqrt(square / low),
                ceiling=None,
                false_alarm=2 * _TAIL,
                assumption=f"{_ASSUMED}; real clients, clipped, add at most {scores.spread:.3g} to a variance of 1",
                alarm=not low <= square <= most,
            ),
        ],
        problems,
    )  # fmt: skip


def _measurement(name: str, value: float, reach: float, alarm: bool) -> Measurement:
    return Measurement(
        name=name,
        value=value,
        low=value - reach,
        high=value + reach,
        ceiling=None,
        false_alarm=2 * _TAIL,
        assumption=_ASSUMED,
        alarm=alarm,
    )
