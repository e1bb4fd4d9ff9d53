"""Icons for the pretraining, with what their names say: none of a client's or a test's, and none like them.

Three kinds of sets of `@iconify/json`, all free: the public house styles of the embedded icons with all that they
draw; sets of emoji, of which the embedded icons hold the twenty things and the pretraining the rest; and, to measure
by and not to train on, sets of which the embedded icons hold nothing. What equals an image of the clients or of the
tests, or is near one as docs/data-card-icons.md measures it, is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from icon_pack.concepts import CLASSES, STYLE, concept_of
from icon_pack.package import LICENCES, PUBLIC, UNDRAWN, Icon, IconSet, drawn_entries, read_set, view_box
from icon_pack.rendering import render
from icon_pack.splits import is_near

OTHERS = (  # house styles of nobody in the embedded icons, to measure by
    *("line-md", "eos-icons", "formkit", "codex", "fad", "wi", "meteocons", "medical-icon", "ginetex", "topcoat"),
    *("pinhead", "maki", "temaki", "roentgen", "osmic"),
)
EMOJI = ("noto", "twemoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "emojione", "fxemoji")
NONE = len(CLASSES)  # the label of what is none of the twenty things
MOST, MOST_KNOWN = 3, 8  # pictures of one drawing in a set; of the twenty things
_SILENT = re.compile(r"^(flag-|.*skin-tone|.*-tone[0-9]?$|keycap|regional-indicator)")  # differ by colour alone


@dataclass(frozen=True, eq=False)
class Pictures:
    """`images` uint8 (n, 28, 28), what each shows, its label (`NONE` for all but the twenty things), its set."""

    images: np.ndarray
    nouns: list[str]
    labels: np.ndarray
    sets: np.ndarray


def public_icons(package: Path, hidden: np.ndarray, cache: Path) -> Pictures:
    """All pictures that may be seen, drawn from the npm package's folder `package` or read from `cache`.

    `hidden` uint8 (n, 28, 28) are the images of clients and tests.
    """
    if not cache.exists():
        icons = [icon for prefix in (*PUBLIC, *OTHERS, *EMOJI) for icon in _of(package, read_set(package, prefix))]
        drawn = render(icons)
        kept, seen = [], set()
        for place, image in enumerate(drawn):
            if image is not None and (key := (image.tobytes(), _noun(icons[place]))) not in seen:
                seen.add(key)
                kept.append(place)
        images = np.stack([drawn[place] for place in kept])
        near = is_near(images, hidden)
        print(f"{len(icons):,} icons, {len(kept):,} drawn, {near.sum():,} near a hidden image", flush=True)
        kept = [place for place, close in zip(kept, near, strict=True) if not close]
        np.savez_compressed(
            cache,
            images=images[~near],
            nouns=[_noun(icons[place]) for place in kept],
            labels=[icons[place].label for place in kept],
            sets=[icons[place].of.prefix for place in kept],
        )
    with np.load(cache) as file:
        return Pictures(file["images"], file["nouns"].tolist(), file["labels"], file["sets"])


def _of(package: Path, one: IconSet) -> list[Icon]:
    """At most `MOST` pictures of each drawing; of emoji those that are none of the twenty things."""
    assert one.licence in LICENCES
    table = json.loads((package / "json" / f"{one.prefix}.json").read_text(encoding="utf-8"))
    found: dict[str, list[Icon]] = {}
    for name, entry in drawn_entries(table):
        about = concept_of(one.prefix, one.category, name)
        words = _words(name)
        if any(element in entry["body"] for element in UNDRAWN) or not words:
            continue
        if one.prefix in EMOJI and (about is not None or _SILENT.match(name)):
            continue
        label, drawing = about or (NONE, "-".join(words))
        found.setdefault(drawing, []).append(Icon(one, name, label, drawing, entry["body"], view_box(table, entry)))
    return [
        icon
        for icons in found.values()
        for icon in sorted(icons, key=_order)[: MOST if icons[0].label == NONE else MOST_KNOWN]
    ]


def _order(icon: Icon) -> bytes:
    return hashlib.sha256(icon.name.encode()).digest()


def _words(name: str) -> list[str]:
    """A name's words less those of style, and numbers."""
    return [word for word in re.split(r"[-_]", name) if word not in STYLE and not re.fullmatch(r"\d+(px|x\d+)?", word)]


def _noun(icon: Icon) -> str:
    return CLASSES[icon.label] if icon.label != NONE else icon.drawing.replace("-", " ")
