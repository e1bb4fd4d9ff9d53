"""How budget and noise depend on each other, for people who choose them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flora_secure.errors import ConfigError, PlotError
from flora_secure.privacy.accounting import epsilon_of, noise_multiplier_for
from flora_secure.privacy.amplification import CALIBRATION_CELL
from flora_secure.privacy.noise_plan import NoisePlan

EPSILONS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_SAMPLED_POINTS = 8  # of a curve whose every point is a search over privacy losses


@dataclass(frozen=True)
class Curves:
    """`rounds` and `epsilons` spent by one client after each, in the worst case planned for; `budgets` and the
    `multipliers` z that the same number of rounds needs for each of them."""

    rounds: tuple[int, ...]
    epsilons: tuple[float, ...]
    budgets: tuple[float, ...]
    multipliers: tuple[float, ...]


def curves(plan: NoisePlan, budgets: Sequence[float] = EPSILONS) -> Curves:
    """Both curves of a plan. Raises ConfigError for one without noise, which has neither."""
    if not plan.noisy:
        raise ConfigError("without noise there is no budget to draw; give a finite `privacy.epsilon`")
    events, q = plan.worst_events(), plan.sampling_rate
    points = len(events) if q == 1 else min(len(events), _SAMPLED_POINTS)
    rounds = tuple(sorted({math.ceil((i + 1) * len(events) / points) for i in range(points)}))
    return Curves(
        rounds=rounds,
        epsilons=tuple(epsilon_of(events[:t], plan.delta, cell=CALIBRATION_CELL) for t in rounds),
        budgets=tuple(budgets),
        multipliers=tuple(noise_multiplier_for(e, plan.delta, plan.participations, q) for e in budgets),
    )


def plot_budget(curves: Curves, target: float, path: Path) -> None:
    """ε over rounds beside z over ε, written to `path` (its ending says the format).

    Raises PlotError without matplotlib, for an unknown ending, and where nothing can be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise PlotError("a plot needs matplotlib: pip install 'flora-secure[plot]'") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    spent, noise = figure.subplots(1, 2)
    spent.plot(curves.rounds, curves.epsilons, marker="." if len(curves.rounds) < 50 else None)
    spent.axhline(target, linestyle="--", color="grey")
    spent.annotate(
        f"budget {target:.3g}", (curves.rounds[0], target), xytext=(0, -12), textcoords="offset points", color="grey"
    )
    spent.set(xlabel="rounds of one client", ylabel="ε spent", title="Budget over rounds", ylim=(0, target * 1.08))
    noise.loglog(curves.budgets, curves.multipliers, marker=".")
    noise.set(xlabel="ε", ylabel="noise multiplier z", title=f"Noise for {curves.rounds[-1]} rounds")
    noise.set_xticks(curves.budgets, [f"{budget:g}" for budget in curves.budgets])
    noise.set_yticks(curves.multipliers, [f"{multiplier:.3g}" for multiplier in curves.multipliers])
    noise.minorticks_off()
    spent.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (spent, noise):
        axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).split("(")[0].strip()
        raise PlotError(f"`plot` {path} cannot be written: {reason}; name a file such as budget.png") from None
