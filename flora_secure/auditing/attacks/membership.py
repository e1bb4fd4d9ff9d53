"""Membership: did this client (or image) take part? A likelihood ratio against shadow federations.

LiRA (Carlini et al. 2022, 2112.03570): of each target the score is a Gaussian among the shadows that it is in, another
among those that it is not, and the logarithm of their ratio is what a federation is judged by; each shadow is judged by
the others. Both Gaussians share one variance, since there are few shadows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flora_secure.auditing.attacked import BOUNDED, CONTROL, MEMBERSHIP, SHOWN, Outcome
from flora_secure.auditing.attacks.shadows import Confidence, Shadow, shadow
from flora_secure.auditing.attacks.statistics import Allowed, Curve, Floats, measured
from flora_secure.data.notes import Notes
from flora_secure.engine.task import Task
from flora_secure.planning.config import RunConfig

RATE = 0.01  # of false positives, at which true ones are counted: fixed beforehand
_TOLD = 16  # shadows after which it says how far it is
_MOST_TARGETS = 2000  # images whose curves are drawn, of unit `example`
SUMS, ADAPTER = "sums of all rounds", "released adapter"


@dataclass(frozen=True, eq=False)
class Membership:
    """What membership came to: `outcomes`, and the curve of each object, with noise (True) and without."""

    outcomes: list[Outcome]
    curves: dict[tuple[str, bool], Curve]


def confidence_of(config: RunConfig, task: Task) -> Confidence:
    """How sure adapters are of the private images, target by target: clients or, of unit `example`, images."""
    data = task.federation.dataset
    owners = np.arange(len(data.private))
    if config.privacy.unit == "client":
        for client, part in enumerate(task.federation.clients):
            owners[part] = client
    scorer = task.made.frame.evaluator(data.private, None, Notes())
    targets = len(task.federation.clients) if config.privacy.unit == "client" else len(owners)
    return Confidence(scorer, owners, targets, config.training.logit_scale)


def membership(
    config: RunConfig, task: Task, allowed: Allowed, shadows: int, seed: int, say: Callable[[str], None]
) -> Membership:
    """Attack `shadows` federations without noise and, where the run has noise, as many with it."""
    sure = confidence_of(config, task)
    outcomes, curves = list[Outcome](), dict[tuple[str, bool], Curve]()
    for noise in (False, True) if config.privacy.epsilon < math.inf else (False,):
        found = []
        for number in range(shadows):
            said = f"ε {config.privacy.epsilon:g}" if noise else "no noise"
            if number % _TOLD == 0:
                say(f"membership, {said}: shadow federations from {number + 1} of {shadows} …")
            found.append(shadow(config, task, sure, _seed(seed, number), noise=noise))
        for what, scores in _scores(found).items():
            ratios, inside = likelihoods(scores, np.array([one.inside for one in found]))
            rng = np.random.default_rng([seed, 4])
            if ratios.shape[1] > _MOST_TARGETS:
                some = rng.choice(ratios.shape[1], _MOST_TARGETS, replace=False)
                ratios, inside = ratios[:, some], inside[:, some]
            curve, figures = measured(ratios, inside, (RATE,), rng)
            curves[what, noise] = curve
            outcomes += [
                _outcome(config, allowed, what, rate, figure, inside.size, noise=noise)
                for rate, figure in figures.items()
            ]
    return Membership(outcomes, curves)


def _seed(seed: int, number: int) -> int:
    """The shadows' seeds, far from the run's own small ones."""
    return int(np.random.SeedSequence([seed, 3, number]).generate_state(1)[0])


def _scores(found: list[Shadow]) -> dict[str, Floats]:
    """Object → the scores (shadows, targets)."""
    scores = {ADAPTER: np.array([one.by_adapter for one in found])}
    by_sums = [one.by_sums for one in found if one.by_sums is not None]
    return ({SUMS: np.array(by_sums)} if by_sums else {}) | scores


def likelihoods(scores: Floats, inside: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
    """Log likelihood ratios (shadows, targets) of in over out, each shadow against the others; and the coins.

    Targets that the others do not have on both sides twice tell nothing and are left out.
    """
    ratios = np.empty_like(scores)
    known = np.ones(scores.shape[1], bool)
    for number in range(len(scores)):
        others = np.arange(len(scores)) != number
        values, coins = scores[others], inside[others]
        ins, outs = coins.sum(axis=0), (~coins).sum(axis=0)
        known &= (ins >= 2) & (outs >= 2)
        mean_in = (values * coins).sum(axis=0) / np.maximum(ins, 1)
        mean_out = (values * ~coins).sum(axis=0) / np.maximum(outs, 1)
        squares = ((values - np.where(coins, mean_in, mean_out)) ** 2).sum(axis=0)
        variance = np.maximum(squares / max(1, len(values) - 2), 1e-300)
        ratios[number] = ((scores[number] - mean_out) ** 2 - (scores[number] - mean_in) ** 2) / (2 * variance)
    return ratios[:, known], inside[:, known]


def _outcome(
    config: RunConfig,
    allowed: Allowed,
    what: str,
    rate: float | None,
    figure: tuple[float, float, float],
    trials: int,
    *,
    noise: bool,
) -> Outcome:
    value, low, high = figure
    bound = allowed.area if rate is None else allowed.true(rate)
    who = "clients" if config.privacy.unit == "client" else "images"
    return Outcome(
        attack=MEMBERSHIP,
        target=f"{who}, ε {config.privacy.epsilon:g}" if noise else f"{who}, no noise",
        object=what,
        measure="area under the curve" if rate is None else f"true positives at {rate:.0%} false ones",
        value=value,
        low=low,
        high=high,
        chance=0.5 if rate is None else rate,
        allowed=bound if noise else None,
        # an area that is above chance is what shows that the attack works
        role=BOUNDED if noise else CONTROL if rate is None else SHOWN,
        trials=trials,
        candidates=None,
        rank=None,
        rank_by_chance=None,
        p=None,
    )
