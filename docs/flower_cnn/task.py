"""A small CNN on the handwritten digits of scikit-learn, dealt to sites: nothing here knows of secure sums."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Net(nn.Module):
    """Two convolutions and a linear layer; 2,422 values, all floats (GroupNorm has no counters, as BatchNorm has)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(2, 12), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, 8, 8) in 0…1."""
        found: Tensor = self.layers(images)
        return found


def data(part: int, parts: int) -> tuple[Tensor, Tensor]:
    """Images and labels of one of `parts` sites, or, for part −1, those for testing: a fifth of all."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    cut = len(images) // 5
    chosen = order[:cut] if part == -1 else order[cut:][part::parts]
    pixels = torch.tensor(images[chosen] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return pixels, torch.tensor(labels[chosen])


def train(net: Net, images: Tensor, labels: Tensor, rate: float) -> float:
    """Two epochs of SGD; returns the last loss."""
    optimiser, loss = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9), torch.zeros(())
    for _ in range(2):
        for batch in torch.randperm(len(images)).split(32):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            loss.backward()
            optimiser.step()
    return float(loss.detach())


def accuracy(net: Net, images: Tensor, labels: Tensor) -> float:
    """Fraction of right answers."""
    with torch.no_grad():
        return float((net(images).argmax(1) == labels).float().mean())
