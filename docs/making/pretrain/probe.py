"""The two measures of a CLIP: zero-shot accuracy and a linear probe. Both in percent."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy


def linear_probe(features: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor) -> float:
    """Accuracy on `test` of logistic regression fitted to normalised `features` (n, d) by 200 steps of L-BFGS.

    The penalty is 1e-4 times the squared norm of the weights, on features scaled to a norm of √d.
    """
    scale = math.sqrt(features.shape[1])
    x = torch.cat([features * scale, torch.ones(len(features), 1)], 1)
    weight = torch.zeros(x.shape[1], int(labels.max()) + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(x @ weight, labels) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        return accuracy(test * scale @ weight[:-1] + weight[-1], test_labels)


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows of `scores` (n, classes) whose largest entry is the label."""
    return 100 * (scores.argmax(1) == labels).float().mean().item()
