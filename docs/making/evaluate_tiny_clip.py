"""Zero-shot and linear-probe accuracy of the embedded model: `python docs/making/evaluate_tiny_clip.py`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import normalize

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs/making")]

from pretrain.probe import accuracy, linear_probe  # noqa: E402

from flora_secure.data.sources import load_dataset  # noqa: E402
from flora_secure.model.clip import class_prompts  # noqa: E402
from flora_secure.model.image_views import ImageViews  # noqa: E402
from flora_secure.model.loading import load_clip  # noqa: E402


def evaluate(dataset: str = "clothes", data_root: str | None = None, weights: str | None = None) -> dict[str, float]:
    """Zero-shot on the test images, and the probe from all private images and from the public ones, in percent.

    Each for an image alone, for it with its mirror image (what a simulation of clothes embeds), and for all views.
    """
    data, clip = load_dataset(dataset, data_root), load_clip("tiny", weights)
    labels = [torch.from_numpy(split.labels) for split in (data.private, data.public, data.test)]
    text = clip.pooled_class_features(class_prompts(data.class_names, data.templates)) @ clip.text_projection
    found = {}
    for views in dict.fromkeys((ImageViews(), ImageViews(data.mirror), ImageViews(data.mirror, crops=4))):
        suffix = "" if views.count == 1 else f"_{views.count}_views"
        start = time.monotonic()
        private, public, test = (
            clip.image_features(s.images, views=views) for s in (data.private, data.public, data.test)
        )
        seconds = time.monotonic() - start
        found |= {
            f"zero_shot{suffix}": accuracy(test @ normalize(text, dim=-1).T, labels[2]),
            f"probe_private{suffix}": linear_probe(private, labels[0], test, labels[2]),
            f"probe_public{suffix}": linear_probe(public, labels[1], test, labels[2]),
            f"images_per_second{suffix}": (len(private) + len(public) + len(test)) / seconds,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="clothes")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--weights", default=None, help="the folder of another pretraining, not the embedded weights")
    arguments = parser.parse_args()
    print(
        json.dumps(
            {k: round(v, 2) for k, v in evaluate(arguments.dataset, arguments.data_root, arguments.weights).items()}
        )
    )


if __name__ == "__main__":
    main()
