"""Pictures of embedded icons with their names, to see how many labels are wrong: `python docs/making/icon_sheets.py`.

Fifteen of each class, of all three pieces, a row a class. docs/data-card-icons.md counts those of seed 1.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from flora_secure.data.embedded.icons import ICONS_FOLDER, NAMES  # noqa: E402
from flora_secure.data.embedded.packed import read_pack  # noqa: E402

EACH, ROWS = 15, 5  # icons of a class; classes on a sheet
SIDE, WIDTH, HEIGHT = 64, 90, 98  # of an icon, and of its place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    pieces = read_pack(ICONS_FOLDER).values()
    images, labels = (np.concatenate([getattr(piece, part) for piece in pieces]) for part in ("images", "labels"))
    names = lzma.decompress((ICONS_FOLDER / NAMES).read_bytes()).decode().splitlines()
    rng = np.random.default_rng(options.seed)
    rows = [np.sort(rng.choice(np.flatnonzero(labels == label), EACH, replace=False)) for label in np.unique(labels)]
    for start in range(0, len(rows), ROWS):
        sheet = Image.new("L", (EACH * WIDTH, ROWS * HEIGHT), 60)
        draw = ImageDraw.Draw(sheet)
        for y, row in enumerate(rows[start : start + ROWS]):
            for x, place in enumerate(row.tolist()):
                sheet.paste(Image.fromarray(images[place]).resize((SIDE, SIDE), Image.Resampling.NEAREST),
                            (x * WIDTH, y * HEIGHT))  # fmt: skip
                for line, text in enumerate(textwrap.wrap(names[place], 15)[:3]):
                    draw.text((x * WIDTH, y * HEIGHT + SIDE + 10 * line), text, fill=230, font_size=9)
        sheet.save(options.out / f"icons-{start // ROWS}.png")


if __name__ == "__main__":
    main()
