"""The sets of `@iconify/json` that may be used, and their icons by name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icon_pack.concepts import CLASSES, concept_of

VERSION = "2.2.535"
LICENCES = frozenset(
    ("MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "OFL-1.1", "Unlicense")
)
LEFT_OUT = frozenset(("Logos", "Flags / Maps", "Programming"))  # categories
PUBLIC = ("material-symbols", "material-symbols-light", "ic", "mdi", "mdi-light")  # Google's and MDI's house style
MOST = 20  # images of a set and class
UNDRAWN = ("<mask", "<animate", "<set ")  # cairosvg takes a mask's black for white, and shows where a motion begins


@dataclass(frozen=True)
class IconSet:
    """A set as `collections.json` describes it. `coloured`: its icons have colours of their own."""

    prefix: str
    name: str
    author: str
    author_page: str
    licence: str
    category: str | None
    coloured: bool


@dataclass(frozen=True)
class Icon:
    """An icon to be drawn. `drawing`: its name less style, equal for variants of one drawing; `box`: of the view, left,
    top, width and height."""

    of: IconSet = field(repr=False)
    name: str
    label: int
    drawing: str
    body: str = field(repr=False)
    box: tuple[float, float, float, float]

    @property
    def order(self) -> bytes:
        """Puts icons in an order that is none, the same for all variants of a drawing at its beginning."""
        return _digest(self.of.prefix, self.drawing) + _digest(self.of.prefix, self.name)


def _digest(*words: str) -> bytes:
    return hashlib.sha256("\n".join(words).encode()).digest()


def read_sets(package: Path) -> list[IconSet]:
    """The sets under a licence that allows this use, of the categories that show things, in the package's order."""
    return [one for one in _described(package) if one.licence in LICENCES and one.category not in LEFT_OUT]


def read_set(package: Path, prefix: str) -> IconSet:
    """The set of that prefix, whatever its licence."""
    return next(one for one in _described(package) if one.prefix == prefix)


def _described(package: Path) -> list[IconSet]:
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    if version != VERSION:
        raise SystemExit(f"{package} is version {version}, not {VERSION}: npm install @iconify/json@{VERSION}")
    table = json.loads((package / "collections.json").read_text(encoding="utf-8"))
    return [
        IconSet(
            prefix,
            about["name"],
            about["author"]["name"],
            about["author"].get("url", ""),
            about["license"]["spdx"],
            about.get("category"),
            bool(about.get("palette")),
        )
        for prefix, about in table.items()
    ]


def read_icons(package: Path, one: IconSet) -> list[Icon]:
    """At most `MOST` icons of each class: one of every drawing first, then a second, and so on.

    Left out: hidden icons, those that are another one turned or flipped, second names of the same drawing, and what
    cairosvg would draw wrong.
    """
    table = json.loads((package / "json" / f"{one.prefix}.json").read_text(encoding="utf-8"))
    found, bodies = list[Icon](), set[str]()
    for name, entry in drawn_entries(table):
        about = concept_of(one.prefix, one.category, name)
        body = entry["body"]
        if about is None or body in bodies or any(element in body for element in UNDRAWN):
            continue
        bodies.add(body)
        found.append(Icon(one, name, *about, body, view_box(table, entry)))
    return [icon for label in range(len(CLASSES)) for icon in _spread([i for i in found if i.label == label])]


def drawn_entries(table: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Names of a set's icons with their drawings, second names too, less the hidden, turned and flipped ones."""
    icons, entries = table["icons"], list(table["icons"].items())
    for name, alias in table.get("aliases", {}).items():
        parent = icons.get(alias["parent"])  # None where the parent is an alias itself
        if parent is not None:
            entries.append((name, {**parent, **alias}))
    return [(n, e) for n, e in entries if not any(e.get(key) for key in ("hidden", "rotate", "hFlip", "vFlip"))]


def view_box(table: dict[str, Any], entry: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, width and height of an icon's view, its own or its set's."""
    left, top = entry.get("left", table.get("left", 0)), entry.get("top", table.get("top", 0))
    return left, top, entry.get("width", table.get("width", 16)), entry.get("height", table.get("height", 16))


def _spread(icons: list[Icon]) -> list[Icon]:
    turn: dict[str, int] = {}
    queue = []
    for icon in sorted(icons, key=lambda icon: icon.order):
        turn[icon.drawing] = turn.get(icon.drawing, -1) + 1
        queue.append((turn[icon.drawing], icon.order, icon))
    return [icon for _, _, icon in sorted(queue, key=lambda entry: entry[:2])[:MOST]]
