"""Draw accuracy and ε over the rounds of a run: `python docs/making/first_run.py RUN docs/first-run.svg`.

The README's picture is that of its own run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "protocols")]

import matplotlib  # noqa: E402

from flora_secure.records.reading import read_run  # noqa: E402

INK, ACCURACY, SPENT = "#444444", "#1f6f8b", "#b5541c"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    run = read_run(arguments.run)
    assert run.report is not None
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "flora-secure", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot

    rounds = [0, *(record.round for record in run.records)]
    accuracy = [100 * run.report.accuracy.warm_start, *(100 * record.accuracy for record in run.records)]
    spent = [0.0, *(record.epsilon or 0.0 for record in run.records)]
    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 3.6), height_ratios=(3, 2))
    upper.plot(rounds, accuracy, color=ACCURACY, marker="o", markersize=3)
    upper.axhline(100 * run.report.accuracy.zero_shot, color=INK, linewidth=0.8, linestyle=":")
    upper.annotate("the frozen model", (rounds[-1], 100 * run.report.accuracy.zero_shot), ha="right", va="bottom")
    upper.set_ylabel("accuracy, %")
    lower.plot(rounds, spent, color=SPENT, marker="o", markersize=3)
    budget = run.report.privacy.target_epsilon
    if budget is not None:
        lower.axhline(budget, color=INK, linewidth=0.8, linestyle=":")
        lower.annotate("budget", (0, budget), ha="left", va="top")
    lower.set_ylabel("ε spent")
    lower.set_xlabel("round")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    figure.set_facecolor("white")
    figure.tight_layout()
    figure.savefig(arguments.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
