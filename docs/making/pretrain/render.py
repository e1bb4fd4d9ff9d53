"""Procedurally rendered garments, shapes and glyphs: each with the noun that it shows.

Everything is drawn at 4 × and averaged down to 28 × 28, white on black as in Fashion-MNIST; coordinates are 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE, SCALE = 28, 4
Point = tuple[float, float]
_CANVAS = SIZE * SCALE
_FONTS = [ImageFont.load_default(size) for size in (60, 80, 100)]


class Pen:
    """A canvas of intensities; `fill` and `line` take points in the unit square."""

    def __init__(self) -> None:
        self.image = Image.new("L", (_CANVAS, _CANVAS))
        self.draw = ImageDraw.Draw(self.image)

    def fill(self, points: list[Point], ink: int = 255) -> None:
        self.draw.polygon([(x * _CANVAS, y * _CANVAS) for x, y in points], fill=ink)

    def line(self, points: list[Point], width: float, ink: int = 255) -> None:
        pixels = max(1, round(width * _CANVAS))
        self.draw.line([(x * _CANVAS, y * _CANVAS) for x, y in points], fill=ink, width=pixels, joint="curve")

    def oval(self, x: float, y: float, rx: float, ry: float, ink: int = 255) -> None:
        box = ((x - rx) * _CANVAS, (y - ry) * _CANVAS, (x + rx) * _CANVAS, (y + ry) * _CANVAS)
        self.draw.ellipse(box, fill=ink)


def _mirror(left: list[Point]) -> list[Point]:
    """A closed outline, symmetric about x = 0.5, from its left half (top to bottom)."""
    return left + [(1 - x, y) for x, y in reversed(left)]


def _top(pen: Pen, rng: np.random.Generator, sleeve: str, bottom: float, flare: float = 0.0, half: float = 0.2) -> None:
    """Body, neckline and sleeves; `sleeve` is none, short or long, `half` half the body's width."""
    u = rng.uniform
    half *= u(0.85, 1.15)
    neck, top, hem = u(0.05, 0.11), u(0.04, 0.1), half + flare
    waist = half * u(0.85, 1.0)
    shoulder = top + u(0.03, 0.08)
    pen.fill(_mirror([(0.5 - neck, top), (0.5 - half, shoulder), (0.5 - waist, 0.5), (0.5 - hem, bottom)]))
    if sleeve != "none":
        length = u(0.2, 0.34) if sleeve == "short" else u(0.6, 0.85)
        spread = u(0.14, 0.26) if sleeve == "short" else u(0.06, 0.26)
        wide = u(0.12, 0.17) if sleeve == "short" else u(0.07, 0.12)
        for side in (-1, 1):
            x, tip = 0.5 + side * half, 0.5 + side * min(half + spread, 0.48)
            end = shoulder + length
            arm = [(0.5 + side * half * 0.7, top + 0.01), (x, shoulder), (tip, end), (tip - side * wide, end + 0.02)]
            pen.fill([*arm, (0.5 + side * half * 0.85, shoulder + 0.22)])
            if sleeve == "long" and u() < 0.7:  # the gap between arm and body, as a fold's shadow
                pen.line([(0.5 + side * half * 0.9, shoulder + 0.2), (tip - side * wide, end)], 0.012, 110)
    depth = u(0.01, 0.09)
    pen.fill([(0.5 - neck * 0.9, top - 0.02), (0.5 + neck * 0.9, top - 0.02), (0.5, top + depth)], 0)


def _t_shirt(pen: Pen, rng: np.random.Generator) -> None:
    _top(pen, rng, "short", rng.uniform(0.86, 0.97), half=0.23)


def _tank_top(pen: Pen, rng: np.random.Generator) -> None:
    _top(pen, rng, "none", rng.uniform(0.8, 0.95))


def _pullover(pen: Pen, rng: np.random.Generator) -> None:
    _top(pen, rng, "long", rng.uniform(0.85, 0.96), half=0.23)


def _shirt(pen: Pen, rng: np.random.Generator) -> None:
    _top(pen, rng, "long" if rng.random() < 0.6 else "short", rng.uniform(0.85, 0.96), half=0.21)
    pen.line([(0.5, 0.1), (0.5, 0.9)], 0.01, 120)
    for y in np.linspace(0.2, 0.85, 6):
        pen.oval(0.515, y, 0.008, 0.008, 60)
    for side in (-1, 1):
        pen.fill([(0.5, 0.12), (0.5 + side * 0.12, 0.04), (0.5 + side * 0.11, 0.15)], 200)


def _coat(pen: Pen, rng: np.random.Generator) -> None:
    _top(pen, rng, "long", rng.uniform(0.92, 1.0), flare=rng.uniform(0, 0.05), half=0.21)
    pen.line([(0.5, 0.08), (rng.uniform(0.48, 0.52), 0.98)], rng.uniform(0.015, 0.04), int(rng.integers(0, 90)))
    for side in (-1, 1):
        pen.line([(0.5, 0.35), (0.5 + side * 0.1, 0.05)], 0.015, 100)
        pen.line([(0.5 + side * 0.08, 0.66), (0.5 + side * 0.16, 0.64)], 0.015, 90)


def _dress(pen: Pen, rng: np.random.Generator) -> None:
    sleeve = str(rng.choice(["none", "none", "short", "long"]))
    _top(pen, rng, sleeve, rng.uniform(0.93, 1.0), flare=rng.uniform(0.0, 0.16), half=0.14)


def _skirt(pen: Pen, rng: np.random.Generator) -> None:
    waist, hem = rng.uniform(0.12, 0.2), rng.uniform(0.22, 0.42)
    pen.fill(_mirror([(0.5 - waist, 0.12), (0.5 - hem, rng.uniform(0.7, 0.95))]))


def _legs(pen: Pen, rng: np.random.Generator, bottom: float) -> None:
    u = rng.uniform
    waist, hip, ankle, gap = u(0.1, 0.18), u(0.13, 0.22), u(0.06, 0.12), u(0.01, 0.06)
    foot = hip + u(-0.04, 0.06)
    crotch = 0.04 + (bottom - 0.04) * u(0.25, 0.4)
    for side in (-1, 1):
        inner = foot - ankle if foot - ankle > gap else gap
        leg = [(0.5, 0.04), (0.5 + side * waist, 0.04), (0.5 + side * hip, 0.3), (0.5 + side * foot, bottom)]
        pen.fill([*leg, (0.5 + side * inner, bottom), (0.5, crotch)])


def _trousers(pen: Pen, rng: np.random.Generator) -> None:
    _legs(pen, rng, rng.uniform(0.93, 1.0))


def _shorts(pen: Pen, rng: np.random.Generator) -> None:
    _legs(pen, rng, rng.uniform(0.5, 0.65))


def _sole(pen: Pen, rng: np.random.Generator, ground: float) -> None:
    pen.fill(
        [(0.03, ground - 0.05), (0.97, ground - 0.05), (0.96, ground), (0.04, ground)], int(rng.integers(140, 256))
    )


def _sneaker(pen: Pen, rng: np.random.Generator) -> None:
    u = rng.uniform
    ground, height = u(0.66, 0.78), u(0.24, 0.36)
    throat = u(0.35, 0.5)
    toe = [(0.75, ground - height * 0.5), (0.93, ground - height * 0.35), (0.97, ground - 0.05), (0.03, ground - 0.05)]
    pen.fill(
        [
            (0.04, ground - height * u(0.8, 1.1)),
            (throat - 0.12, ground - height * 0.85),
            (throat, ground - height),
            *toe,
        ]
    )
    _sole(pen, rng, ground)
    for k in range(4):
        x = throat + 0.03 + 0.06 * k
        pen.line([(x, ground - height * (0.9 - 0.1 * k)), (x - 0.06, ground - height * 0.6)], 0.015, 90)


def _sandal(pen: Pen, rng: np.random.Generator) -> None:
    u = rng.uniform
    ground, heel, thick = u(0.7, 0.85), u(0.0, 0.25), u(0.03, 0.07)
    top = [(0.04, ground - heel - 0.04), (0.35, ground - heel - 0.02), (0.65, ground - 0.06), (0.97, ground - 0.05)]
    pen.fill(top + [(x, y + thick) for x, y in reversed(top)])
    if heel > 0.08:
        pen.fill([(0.04, ground - heel), (0.16, ground - heel), (0.1, ground), (0.06, ground)])
    for _ in range(int(rng.integers(2, 6))):
        a, b = sorted(u(0.05, 0.95, 2))
        base = ground - heel * max(0.0, 1 - a / 0.65) - 0.03
        pen.line(
            [(a, base), ((a + b) / 2, base - u(0.08, 0.3)), (b, ground - heel * max(0.0, 1 - b / 0.65) - 0.04)],
            u(0.02, 0.06),
        )


def _boot(pen: Pen, rng: np.random.Generator, height: float) -> None:
    u = rng.uniform
    ground, shaft, heel = u(0.9, 0.98), u(0.4, 0.56), u(0.03, 0.16)
    top = ground - height
    upper = [(u(0.06, 0.14), top), (shaft, top + u(-0.03, 0.03)), (shaft + u(-0.02, 0.05), ground - 0.34)]
    pen.fill([*upper, (0.9, ground - 0.2), (0.96, ground - 0.04), (0.35, ground - 0.04), (0.05, ground - heel)])
    pen.fill([(0.05, ground - heel), (0.28, ground - heel), (0.24, ground), (0.07, ground)])
    pen.line([(0.3, ground - 0.02), (0.96, ground - 0.02)], 0.03, int(rng.integers(120, 256)))


def _ankle_boot(pen: Pen, rng: np.random.Generator) -> None:
    _boot(pen, rng, rng.uniform(0.6, 0.78))


def _tall_boot(pen: Pen, rng: np.random.Generator) -> None:
    _boot(pen, rng, rng.uniform(0.86, 0.92))


def _bag(pen: Pen, rng: np.random.Generator) -> None:
    u = rng.uniform
    half, top, bottom, taper = u(0.28, 0.46), u(0.3, 0.5), u(0.75, 0.96), u(-0.08, 0.08)
    pen.fill(_mirror([(0.5 - half + taper, top), (0.5 - half, bottom)]))
    if u() < 0.85:
        grip, rise = u(0.1, half), u(0.02, top)
        pen.line(
            [(0.5 - grip, top), (0.5 - grip * 0.7, rise), (0.5 + grip * 0.7, rise), (0.5 + grip, top)], u(0.02, 0.06)
        )
    if u() < 0.5:
        pen.line([(0.5 - half, top + u(0.05, 0.2)), (0.5 + half, top + u(0.05, 0.2))], 0.02, 90)
    if u() < 0.4:
        pen.oval(0.5, u(0.55, 0.7), 0.04, 0.04, 60)


def _hat(pen: Pen, rng: np.random.Generator) -> None:
    u = rng.uniform
    y, rx = u(0.55, 0.7), u(0.2, 0.3)
    pen.oval(0.5, y, rx, u(0.2, 0.4))
    pen.fill([(0, y), (1, y), (1, 1), (0, 1)], 0)
    pen.oval(0.5, y, u(0.35, 0.48), u(0.04, 0.09))


def _sock(pen: Pen, rng: np.random.Generator) -> None:
    u = rng.uniform
    x, w = u(0.2, 0.4), u(0.16, 0.24)
    pen.line([(x, 0.05), (x, 0.75), (u(0.75, 0.9), 0.85)], w)


def _polygon(sides: int, inner: float = 1.0) -> Callable[[Pen, np.random.Generator], None]:
    def paint(pen: Pen, rng: np.random.Generator) -> None:
        radius, turn = rng.uniform(0.25, 0.48), rng.uniform(0, 2 * math.pi)
        count = sides * (2 if inner < 1 else 1)
        radii = [radius * (inner if inner < 1 and k % 2 else 1.0) for k in range(count)]
        angles = [turn + 2 * math.pi * k / count for k in range(count)]
        pen.fill([(0.5 + r * math.cos(a), 0.5 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)])

    return paint


def _circle(pen: Pen, rng: np.random.Generator) -> None:
    radius = rng.uniform(0.2, 0.48)
    pen.oval(0.5, 0.5, radius, radius)


def _ring(pen: Pen, rng: np.random.Generator) -> None:
    radius = rng.uniform(0.25, 0.48)
    inner = radius * rng.uniform(0.4, 0.8)
    pen.oval(0.5, 0.5, radius, radius)
    pen.oval(0.5, 0.5, inner, inner, 0)


def _cross(pen: Pen, rng: np.random.Generator) -> None:
    width, reach = rng.uniform(0.06, 0.25), rng.uniform(0.3, 0.48)
    pen.line([(0.5 - reach, 0.5), (0.5 + reach, 0.5)], width)
    pen.line([(0.5, 0.5 - reach), (0.5, 0.5 + reach)], width)


def _glyph(letter: str) -> Callable[[Pen, np.random.Generator], None]:
    def paint(pen: Pen, rng: np.random.Generator) -> None:
        font = _FONTS[int(rng.integers(len(_FONTS)))]
        stroke = int(rng.integers(0, 5))
        pen.draw.text((_CANVAS / 2, _CANVAS / 2), letter, fill=255, font=font, anchor="mm", stroke_width=stroke)

    return paint


GARMENTS: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "t-shirt": _t_shirt,
    "trousers": _trousers,
    "pullover": _pullover,
    "dress": _dress,
    "coat": _coat,
    "sandal": _sandal,
    "shirt": _shirt,
    "sneaker": _sneaker,
    "bag": _bag,
    "ankle boot": _ankle_boot,
    "tank top": _tank_top,
    "skirt": _skirt,
    "shorts": _shorts,
    "tall boot": _tall_boot,
    "hat": _hat,
    "sock": _sock,
}
SHAPES: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "circle": _circle,
    "ring": _ring,
    "cross": _cross,
    "triangle": _polygon(3),
    "square": _polygon(4),
    "hexagon": _polygon(6),
    "star": _polygon(5, 0.45),
}
GLYPHS = {f"letter {c}": _glyph(c.upper()) for c in "abcdefghijklmnopqrstuvwxyz"} | {
    f"digit {c}": _glyph(c) for c in "0123456789"
}
NOUNS: dict[str, Callable[[Pen, np.random.Generator], None]] = {**GARMENTS, **SHAPES, **GLYPHS}


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Intensity of the cloth, (28, 28) in 0..1: a shade, a soft gradient and, half the time, a pattern."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    cloth = rng.uniform(0.25, 1.0) + rng.uniform(-0.25, 0.25) * (x - 0.5) + rng.uniform(-0.25, 0.25) * (y - 0.5)
    period, phase, depth = rng.uniform(2.5, 9) / SIZE, rng.uniform(0, 7), rng.uniform(0.2, 0.8)
    wave_x, wave_y = np.sin(2 * np.pi * x / period + phase), np.sin(2 * np.pi * y / period + phase)
    pattern = int(rng.integers(0, 10))
    if pattern == 0:
        cloth = cloth * (1 - depth * (wave_x > 0))
    elif pattern == 1:
        cloth = cloth * (1 - depth * (wave_y > 0))
    elif pattern == 2:
        cloth = cloth * (1 - depth * (wave_x * wave_y > 0))
    elif pattern == 3:  # a print on the chest
        box = (abs(x - rng.uniform(0.4, 0.6)) < rng.uniform(0.05, 0.15)) & (
            abs(y - rng.uniform(0.3, 0.6)) < rng.uniform(0.05, 0.15)
        )
        cloth = np.where(box, rng.uniform(0, 1), cloth)
    elif pattern == 4:
        cloth = np.where(y > rng.uniform(0.3, 0.7), cloth * (1 - depth), cloth)
    return np.clip(cloth + rng.normal(0, rng.uniform(0, 0.08), (SIZE, SIZE)), 0.02, 1)


def render(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """`count` images, uint8 (count, 28, 28), and the noun of each: 75 % garments, 10 % shapes, 15 % glyphs."""
    rng = np.random.default_rng(seed)
    kinds = [list(GARMENTS), list(SHAPES), list(GLYPHS)]
    images, nouns = np.empty((count, SIZE, SIZE), np.uint8), []
    for i in range(count):
        group = kinds[int(rng.choice(3, p=[0.75, 0.1, 0.15]))]
        noun = group[int(rng.integers(len(group)))]
        pen = Pen()
        NOUNS[noun](pen, rng)
        ink = np.asarray(pen.image.reduce(SCALE), np.float64) / 255
        images[i] = np.round(255 * ink * _texture(rng))
        nouns.append(noun)
    return images, nouns
