"""Make the embedded icons from an npm package: `python docs/making/pack_icons.py --package node_modules/@iconify/json`.

Needs `npm install --ignore-scripts @iconify/json@2.2.535`, `pip install cairosvg pillow` and Debian's libcairo2; the
bytes come out the same with the versions that the manifest names. docs/data-card-icons.md says what is taken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "making")]

from icon_pack.concepts import CLASSES  # noqa: E402
from icon_pack.package import PUBLIC, VERSION, Icon, IconSet, read_icons, read_sets  # noqa: E402
from icon_pack.rendering import render, versions  # noqa: E402
from icon_pack.splits import Pieces, split  # noqa: E402

from flora_secure.data.embedded.icons import ICONS_FOLDER, NAMES  # noqa: E402
from flora_secure.data.embedded.packed import MANIFEST, pack_piece  # noqa: E402

PACKAGE = Path("node_modules/@iconify/json")
CHANGED = "rasterised to 28 × 28 grey pixels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder of @iconify/json")
    parser.add_argument("--out", type=Path, default=ICONS_FOLDER)
    options = parser.parse_args()
    listed = [icon for one in read_sets(options.package) for icon in read_icons(options.package, one)]
    drawn = render(listed)
    icons = [icon for icon, image in zip(listed, drawn, strict=True) if image is not None]
    images = np.stack([image for image in drawn if image is not None])
    pieces = split(icons, images)
    dropped = {"not drawn, or nothing to be seen": len(listed) - len(icons), **pieces.dropped}
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out, icons, images, pieces, dropped)
    for reason, count in dropped.items():
        print(f"left out {count:,}: {reason}")


def write(folder: Path, icons: list[Icon], images: np.ndarray, pieces: Pieces, dropped: dict[str, int]) -> None:
    """Three pieces, the names of all icons in the order of the pieces, the manifest and the notice."""
    parts = {"public": pieces.public, "private": pieces.private, "test": pieces.test}
    order = np.concatenate([*parts.values()])
    sets = list(dict.fromkeys(icon.of for icon in (icons[place] for place in np.sort(order))))
    labels = np.array([icon.label for icon in icons])
    of = np.array([sets.index(icon.of) if icon.of in sets else -1 for icon in icons])
    unseen = np.isin(np.arange(len(icons)), pieces.unseen_test)
    entries, start = {}, 0
    for name, part in parts.items():
        packed = pack_piece(images[part], labels[part], of[part], unseen[part])
        (folder / f"{name}.xz").write_bytes(packed)
        entries[name] = {
            "file": f"{name}.xz",
            "origin": "icons",
            "range": [start, start + len(part)],
            "shape": list(images.shape[1:]),
            "classes": np.bincount(labels[part], minlength=len(CLASSES)).tolist(),
            "bytes": len(packed),
            "sha256": hashlib.sha256(packed).hexdigest(),
        }
        start += len(part)
        print(f"{name}: {len(part):,} images, {len(packed) / 1e6:.2f} MB")
    names = "".join(f"{icons[place].of.prefix}:{icons[place].name}\n" for place in order)
    (folder / NAMES).write_bytes(lzma.compress(names.encode()))
    manifest = {
        "name": "Icons of twenty things",
        "source": f"npm package @iconify/json {VERSION}",
        "changed": CHANGED,
        "rendered_with": versions(),
        "class_names": CLASSES,
        "sets": [
            {"prefix": one.prefix, "name": one.name, "author": one.author, "licence": one.licence} for one in sets
        ],
        "public_sets": PUBLIC,
        "unseen_authors": pieces.unseen_authors,
        "unseen_private_images": sum(icons[place].of.author in pieces.unseen_authors for place in pieces.private),
        "unseen_test_images": len(pieces.unseen_test),
        "dropped": dropped,
        "pieces": entries,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8", newline="\n")
    (folder / "NOTICE").write_text(notice(sets), encoding="utf-8", newline="\n")


def notice(sets: list[IconSet]) -> str:
    """Whose icons the pack holds, under which licence, and what was done to them."""
    package = f"the npm package @iconify/json {VERSION}"
    head = f"""The images of this folder are icons of {len(sets)} sets, taken from {package}.
They were {CHANGED}; nothing else of the sets is here. Each set stays under its own licence, © its
author: texts in LICENSES/, Apache-2.0 in the LICENSE of flora-secure,
CC-BY-4.0 and CC-BY-3.0 at https://creativecommons.org/licenses/by/4.0/ and https://creativecommons.org/licenses/by/3.0/,
the Unlicense at https://unlicense.org. {NAMES} has the name of each icon.

set | name | author | licence | source
"""
    lines = (f"{one.prefix} | {one.name} | {one.author} | {one.licence} | {one.author_page}\n" for one in sets)
    return head + "".join(lines)


if __name__ == "__main__":
    main()
