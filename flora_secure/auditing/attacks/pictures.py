"""What attacks found, as pictures: retrieved images beside the true ones, curves of membership, sites beside chance."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flora_secure.auditing.attacked import BOUNDED, CONTROL, HIDDEN, Outcome
from flora_secure.auditing.attacks.membership import ADAPTER, SUMS
from flora_secure.auditing.attacks.reconstruction import SIZES, Trial
from flora_secure.auditing.attacks.statistics import Allowed, Curve
from flora_secure.data.dataset import Split
from flora_secure.data.files.decoding import decode
from flora_secure.data.images import EncodedImages
from flora_secure.model.clip import Clip
from flora_secure.records.durable import PRIVATE, replace_file

_OBJECTS = ("clean update", "one noise share", "masked upload", "sum", "released adapter")
_ROWS = 2  # clients of each size that are shown: the first of them, whatever was found
_SHOWN_SIZES = SIZES[:3]
_RIGHT, _WRONG, _SOFT = "#1a7f37", "#d0d7de", "#57606a"
_COLOURS = {SUMS: "#0b5cad", ADAPTER: "#a8480a"}


def _save(figure: Figure, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    replace_file(path, data.getvalue(), mode=PRIVATE)


def _style() -> Mapping[str, object]:
    return {**matplotlib.rcParamsDefault, "backend": "agg", "font.size": 9.0, "axes.spines.top": False,
            "axes.spines.right": False, "text.parse_math": False}  # fmt: skip


def draw_reconstruction(
    trials: Mapping[int, Sequence[Trial]], candidates: int, private: Split, clip: Clip, path: Path
) -> None:
    """True images of a few clients, and for each object the image that the attack took for one of them among so many
    `candidates`, with the rank of the best of the true ones. Raises `OSError` where `path` cannot be written."""
    shown = [(size, trial) for size in _SHOWN_SIZES for trial in trials[size][:_ROWS]]
    objects = [name for name in _OBJECTS if shown and name in shown[0][1].found]
    with matplotlib.rc_context(_style()):  # type: ignore[arg-type]
        figure = Figure(figsize=(1.55 * (1 + len(objects)) + 0.4, 1.75 * len(shown) + 1.0), layout="constrained")
        figure.suptitle(f"The image that explains best what was seen, among {candidates:,} private ones", fontsize=11)
        grid = figure.subplots(len(shown), 1 + len(objects), squeeze=False)
        for cells, (size, trial) in zip(grid, shown, strict=True):
            pixels = _pixels(private, clip, trial.images)
            _cell(cells[0], _mosaic(pixels), f"client of {size} image{'s' * (size > 1)}", _WRONG)
            for cell, what in zip(cells[1:], objects, strict=True):
                place = trial.found[what]
                right, rank = place in trial.images, trial.ranks[what]
                picture = _mosaic(_pixels(private, clip, np.array([place])))
                _cell(cell, picture, "found" if right else f"right one: rank {rank:,}", _RIGHT if right else _WRONG)
        for cell, title in zip(grid[0], ("true images", *objects), strict=True):
            cell.set_title(title, fontsize=9)
        _save(figure, path)


def _cell(cell: Axes, picture: NDArray[np.uint8], below: str, colour: str) -> None:
    cell.imshow(picture, cmap="gray", vmin=0, vmax=255)
    cell.set_xticks([])
    cell.set_yticks([])
    cell.set_xlabel(below, fontsize=8, color=colour if colour == _RIGHT else _SOFT)
    for spine in cell.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5 if colour == _RIGHT else 1.0)


def _pixels(private: Split, clip: Clip, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    images = private.at(places).images
    if isinstance(images, EncodedImages):
        return np.concatenate(list(decode(images, clip.shape, len(places))))
    return images


def _mosaic(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (n, H, W[, 3]) as one, side by side and below each other, on white; as many rows as columns."""
    columns = math.ceil(math.sqrt(len(pixels)))
    height, width = pixels.shape[1:3]
    whole = np.full((columns * (height + 1) - 1, columns * (width + 1) - 1, *pixels.shape[3:]), 255, np.uint8)
    for number, one in enumerate(pixels):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        whole[top : top + height, left : left + width] = one
    return whole


def draw_membership(curves: Mapping[tuple[str, bool], Curve], allowed: Allowed, who: str, path: Path) -> None:
    """True over false positives, both in logarithms, beside what ε allows. Raises `OSError` as `draw_reconstruction`.

    `who`: what takes part or not, "client" or "image".
    """
    false = np.logspace(-3, 0, 200)
    with matplotlib.rc_context(_style()):  # type: ignore[arg-type]
        figure = Figure(figsize=(6.4, 5.2), layout="constrained")
        axes = figure.subplots()
        axes.loglog(false, false, color=_SOFT, linestyle=":", linewidth=1, label="guessing")
        if allowed.epsilon < math.inf:
            most = [allowed.true(x) for x in false.tolist()]
            axes.loglog(
                false, most, color="#1b1f24", linewidth=2, label=f"the most that ε = {allowed.epsilon:.3g} allows"
            )
            axes.fill_between(false, most, 1, color="#d0d7de", alpha=0.35, linewidth=0)
        for (what, noise), curve in curves.items():
            seen = f"{what}, ε = {allowed.epsilon:.3g}" if noise else f"{what}, no noise"
            true = [curve.at(x) for x in false.tolist()]
            style = "-" if noise else "--"
            axes.loglog(false, true, color=_COLOURS[what], linestyle=style, linewidth=1.6, label=seen)
        axes.set(xlim=(1e-3, 1), ylim=(1e-3, 1.05))
        axes.set_xlabel(f"{who}s that took no part and are taken for members")
        axes.set_ylabel(f"{who}s that took part and are found")
        ticks, words = (1e-3, 1e-2, 1e-1, 1), ("0.1 %", "1 %", "10 %", "100 %")
        axes.set_xticks(ticks, words)
        axes.set_yticks(ticks, words)
        axes.minorticks_off()
        axes.set_title(f"Did this {who} take part? Membership by shadow federations", fontsize=11)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.95)
        _save(figure, path)


def draw_sites(outcomes: Sequence[Outcome], path: Path) -> None:
    """How often the right site was named, with its interval, beside chance. Raises `OSError` as
    `draw_reconstruction`."""
    colours = {CONTROL: "#a8480a", HIDDEN: "#1a7f37", BOUNDED: "#0b5cad"}
    with matplotlib.rc_context(_style()):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.2, 0.42 * len(outcomes) + 1.4), layout="constrained")
        axes = figure.subplots()
        for place, one in enumerate(outcomes):
            colour = colours.get(one.role, _SOFT)
            axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2.5)
            axes.plot(one.value, place, "o", color=colour)
            axes.plot([one.chance, one.chance], [place - 0.35, place + 0.35], color="#1b1f24", linewidth=1.2)
        axes.plot([], [], color="#1b1f24", linewidth=1.2, label="chance")
        axes.set_yticks(range(len(outcomes)), [f"{one.object} ({one.target})" for one in outcomes])
        axes.invert_yaxis()
        axes.set(xlim=(-0.02, 1), xlabel="sites named rightly, with an interval of 99.9 %")
        axes.set_title("Whose data is it? By other images of every site", fontsize=11)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
        _save(figure, path)
