"""What the icons are as a task, without any federation: `python docs/studies/icons_baselines.py`.

The embedded model as it is, and linear probes on plain features from public labels alone, from all private images in
one place, from both, and from one client's images alone; on either test split. The probe's penalty is that of the
pretraining's own measure (`docs/making/pretrain/probe.py`); nothing is chosen on test images.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "making"))

from pretrain.probe import accuracy, linear_probe

from flora_secure.data.dataset import Dataset, Split
from flora_secure.data.embedded.icons import ICONS_FOLDER
from flora_secure.data.embedded.packed import MANIFEST, read_pack
from flora_secure.data.sources import load_dataset
from flora_secure.model.clip import class_prompts
from flora_secure.model.image_views import ImageViews
from flora_secure.model.loading import load_clip
from flora_secure.planning.sections import Test

LARGEST = 15  # clients


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for test in get_args(Test):
        data = load_dataset("icons", test=test)
        private, public, held = (torch.from_numpy(s.labels) for s in (data.private, data.public, data.test))
        print(f"test {test}: {len(private):,} private, {len(public):,} public, {len(held):,} test images", flush=True)
        common = np.bincount(data.test.labels).max() / len(held)
        print(f"  one in {len(data.class_names)}: {1 / len(data.class_names):.1%}, the commonest class: {common:.1%}")
        print(f"  zero-shot of the embedded model: {zero_shot(data):.1f}%", flush=True)
        for name, features in (("pixels", pixels), ("gradients and pixels", gradients)):
            a, b, c = (features(split) for split in (data.private, data.public, data.test))
            found = {
                "public labels alone": linear_probe(b, public, c, held),
                "all private images in one place": linear_probe(a, private, c, held),
                "both": linear_probe(torch.cat([a, b]), torch.cat([private, public]), c, held),
            }
            print(f"  probe on {name}: " + ", ".join(f"{what} {v:.1f}%" for what, v in found.items()), flush=True)
        if test == "default":
            weighted, largest = alone(data, a, c)
            print(
                f"  one client alone, on its own test images: {weighted:.1f}% weighted, {largest:.1f}% of the", end=""
            )
            print(f" {LARGEST} largest", flush=True)


def zero_shot(data: Dataset) -> float:
    """Of the embedded model, with the views of an image that a run embeds."""
    clip = load_clip("tiny")
    text = clip.pooled_class_features(class_prompts(data.class_names, data.templates)) @ clip.text_projection
    images = clip.image_features(data.test.images, views=ImageViews(data.mirror))
    return accuracy(images @ normalize(text, dim=-1).T, torch.from_numpy(data.test.labels))


def alone(data: Dataset, features: torch.Tensor, test: torch.Tensor) -> tuple[float, float]:
    """Accuracy of each client's own probe on the test images of its own set: the mean over all these test images, and
    over those of the clients with most images."""
    assert data.owners is not None
    labels, held = torch.from_numpy(data.private.labels), torch.from_numpy(data.test.labels)
    sets = json.loads((ICONS_FOLDER / MANIFEST).read_text(encoding="utf-8"))["sets"]
    client_of = {name: client for client, name in enumerate(data.owners.names)}
    of = data.owners.of
    of_test = np.array([client_of[sets[one]["prefix"]] for one in read_pack(ICONS_FOLDER)["test"].columns[0]])
    size = np.bincount(of)
    largest = np.argsort(-size, kind="stable")[:LARGEST]
    right, right_of_largest = [0.0, 0], [0.0, 0]
    for client in range(len(size)):
        own, theirs = of == client, of_test == client
        if theirs.any():
            count = int(theirs.sum())
            share = linear_probe(features[own], labels[own], test[theirs], held[theirs])
            for tally in (right, right_of_largest) if client in largest else (right,):
                tally[0] += share * count
                tally[1] += count
    return right[0] / right[1], right_of_largest[0] / right_of_largest[1]


def pixels(split: Split) -> torch.Tensor:
    """The 784 pixels, centred on their mean, of unit norm."""
    flat = np.asarray(split.images).reshape(len(split), -1).astype(np.float32)
    return normalize(torch.from_numpy(flat - flat.mean(1, keepdims=True)), dim=-1)


def gradients(split: Split) -> torch.Tensor:
    """Histograms of gradients, 7 × 7 cells of 8 directions, beside pixels of half the size; each of unit norm."""
    images = np.asarray(split.images).astype(np.float32)
    dy, dx = np.gradient(images, axis=(1, 2))
    size, turn = np.hypot(dx, dy), np.arctan2(dy, dx) / (2 * np.pi) * 8 % 8
    cells = [
        (size * np.clip(1 - np.abs((turn - k + 4) % 8 - 4), 0, None)).reshape(-1, 7, 4, 7, 4).sum((2, 4))
        for k in range(8)
    ]
    histogram = torch.from_numpy(np.sqrt(np.stack(cells, -1).reshape(len(images), -1)))
    half = torch.from_numpy(images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(len(images), -1))
    return normalize(torch.cat([normalize(histogram, dim=-1), normalize(half, dim=-1)], 1), dim=-1)


if __name__ == "__main__":
    main()
