"""Figures as PNG or SVG, by matplotlib (the extra ``plot``)."""

from __future__ import annotations

from pathlib import Path

from flora_secure.curves import Curves
from flora_secure.errors import InputError


class PlotError(InputError):
    """A figure that cannot be drawn or written."""


def plot_budget(curves: Curves, target: float, path: Path) -> None:
    """ε over rounds beside z over ε, written to ``path`` (its ending says the format).

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
        raise PlotError(f"plot {path} cannot be written: {reason}; name a file such as budget.png") from None
