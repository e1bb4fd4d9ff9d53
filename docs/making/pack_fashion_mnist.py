"""Re-create the data set clothes from the files of Fashion-MNIST: `python docs/making/pack_fashion_mnist.py`.

Takes the first 20,000 training images for the clients, the last 10,000 as the public slice, and the first 4,000 test
images; stops if any image occurs twice. docs/data-card.md says why these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from flora_secure.data.embedded.packed import MANIFEST, pack_piece  # noqa: E402
from flora_secure.data.fixed import CLOTHES_FOLDER, fashion_mnist_folder, read_fashion_mnist  # noqa: E402

PIECES = {"private": ("train", 0, 20_000), "public": ("train", 50_000, 60_000), "test": ("t10k", 0, 4_000)}
ABOUT = {
    "name": "Fashion-MNIST, a subset",
    "source": "https://github.com/zalandoresearch/fashion-mnist",
    "paper": "Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747",
    "licence": "MIT, Copyright (c) 2017 Zalando SE",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="folder with the four IDX files; default: Debian's")
    parser.add_argument("--out", type=Path, default=CLOTHES_FOLDER)
    arguments = parser.parse_args()
    folder = fashion_mnist_folder(arguments.data_root)
    originals = {part: read_fashion_mnist(folder, part) for part in ("train", "t10k")}
    arguments.out.mkdir(parents=True, exist_ok=True)
    entries, seen = {}, set()
    for name, (origin, start, stop) in PIECES.items():
        images, labels = (array[start:stop] for array in originals[origin])
        contents = {image.tobytes() for image in images}
        if len(contents) != len(images) or seen & contents:
            sys.exit(f"an image of the {name} piece occurs twice: choose other ranges")
        seen |= contents
        packed = pack_piece(images, labels)
        (arguments.out / f"{name}.xz").write_bytes(packed)
        entries[name] = {
            "file": f"{name}.xz",
            "origin": origin,
            "range": [start, stop],
            "shape": list(images.shape[1:]),
            "classes": np.bincount(labels, minlength=10).tolist(),
            "bytes": len(packed),
            "sha256": hashlib.sha256(packed).hexdigest(),
        }
        print(f"{name}: {len(images)} images, {len(packed) / 1e6:.2f} MB")
    manifest = json.dumps({**ABOUT, "pieces": entries}, indent=2)
    (arguments.out / MANIFEST).write_text(manifest + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
