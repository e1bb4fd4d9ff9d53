"""A figure of matplotlib's as SVG inside a page: in the page's own colours, light or dark, and its text is text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from flora_secure.boundary.foreign import printable

# what charts draw with, and the page's name for it; style.css has the values, for light and for dark
INK, SOFT, LINE, GROUND = "#1b1f24", "#57606a", "#d0d7de", "#ffffff"
SERIES = ("#0b5cad", "#a8480a", "#1a7f37", "#8250df")
VARIABLES = {
    INK: "ink", SOFT: "soft", LINE: "line", GROUND: "ground",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES, 1)},
}  # fmt: skip
_COLOUR = re.compile("|".join(VARIABLES))
_TAG = re.compile(r"<[^>]*>")  # matplotlib escapes both signs in texts and in attributes
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it is searched, read aloud, and drawn in the page's fonts
    "svg.hashsalt": "flora-secure",  # ids follow from what is drawn
    "text.parse_math": False,  # a class may be called $\x$
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@contextmanager
def drawing() -> Iterator[None]:
    """Figures made in here look the same whatever the user's own matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks: the page's fonts draw them
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def inline(figure: Figure, name: str, says: str) -> Markup:
    """The figure as an `<svg>` as wide as its place. `name`: begins its ids, which a page has once; `says`: what it
    shows, for those who do not see it."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=_NO_METADATA)
    drawn = text.getvalue()
    size = re.search(r'viewBox="[^"]*"', drawn)
    assert size is not None
    body = drawn[drawn.index(">", size.start()) + 1 : drawn.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # would be the whole page's; style.css has it
    body = _TAG.sub(lambda tag: _fitted(tag[0], name), body)
    root = (
        f'<svg role="img" aria-label="{escape(printable(says))}" {size[0]} xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(f"{root}{body}</svg>")  # noqa: S704 (matplotlib escapes what it writes)


def _fitted(tag: str, name: str) -> str:
    tag = _REFERENCE.sub(lambda found: f"{found[1]}{name}-", tag)
    return _COLOUR.sub(lambda found: f"var(--{VARIABLES[found[0]]})", tag)
