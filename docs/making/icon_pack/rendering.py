"""From an icon's vectors to 28 × 28 grey pixels, white on black."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import cairocffi
import cairosvg
import numpy as np
from PIL import Image

from icon_pack.package import Icon

LARGE, SMALL = 112, 28  # drawn at, and scaled to by means of 4 × 4 pixels
LEAST, MOST = 4.0, 235.0  # mean grey of a picture that shows something


def versions() -> dict[str, str]:
    """What the pixels depend on."""
    return {"cairosvg": cairosvg.__version__, "cairo": cairocffi.cairo_version_string()}


def render(icons: Sequence[Icon]) -> list[np.ndarray | None]:
    """uint8 (28, 28) of each icon, `None` where cairosvg cannot draw it or nothing is to be seen."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(_render, icons, chunksize=64))


def _render(icon: Icon) -> np.ndarray | None:
    box = " ".join(f"{number:g}" for number in icon.box)
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{LARGE}" height="{LARGE}" viewBox="{box}">{icon.body.replace("currentColor", "#000")}</svg>'
    )
    try:
        png = cairosvg.svg2png(bytestring=picture.encode(), output_width=LARGE, output_height=LARGE)
    except Exception as error:  # whatever an icon makes of the library; it is counted and named
        print(f"not drawn: {icon.of.prefix}:{icon.name}: {error!r:.80}", flush=True)
        return None
    red, green, blue, alpha = np.moveaxis(np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), np.int64), -1, 0)
    # one colour: what is covered; several: how dark on white paper, so that outlines are white in both
    ink = alpha * 1000
    if icon.of.coloured:
        ink = alpha * (255_000 - (299 * red + 587 * green + 114 * blue)) // 255
    fold = LARGE // SMALL
    sums = ink.reshape(SMALL, fold, SMALL, fold).sum((1, 3))
    grey = ((sums + fold * fold * 500) // (fold * fold * 1000)).astype(np.uint8)
    return grey if LEAST <= grey.mean() <= MOST else None
