"""How budget and noise depend on each other, for people who choose them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flora_secure.config import ConfigError
from flora_secure.privacy.accounting import epsilon_of, noise_multiplier_for
from flora_secure.privacy.amplification import CALIBRATION_CELL
from flora_secure.privacy.plan import NoisePlan

EPSILONS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_SAMPLED_POINTS = 8  # of a curve whose every point is a search over privacy losses


@dataclass(frozen=True)
class Curves:
    """``rounds`` and ``epsilons`` spent by one client after each, in the worst case planned for; ``budgets`` and the
    ``multipliers`` z that the same number of rounds needs for each of them."""

    rounds: tuple[int, ...]
    epsilons: tuple[float, ...]
    budgets: tuple[float, ...]
    multipliers: tuple[float, ...]


def curves(plan: NoisePlan, budgets: Sequence[float] = EPSILONS) -> Curves:
    """Both curves of a plan. Raises ConfigError for one without noise, which has neither."""
    if not plan.noisy:
        raise ConfigError("without noise there is no budget to draw; give a finite epsilon")
    events, q = plan.worst_events(), plan.sampling_rate
    points = len(events) if q == 1 else min(len(events), _SAMPLED_POINTS)
    rounds = tuple(sorted({math.ceil((i + 1) * len(events) / points) for i in range(points)}))
    return Curves(
        rounds=rounds,
        epsilons=tuple(epsilon_of(events[:t], plan.delta, cell=CALIBRATION_CELL) for t in rounds),
        budgets=tuple(budgets),
        multipliers=tuple(noise_multiplier_for(e, plan.delta, plan.participations, q) for e in budgets),
    )
