"""Random views of images, and the targets (gradient histograms and coarse pixels) that the embedding must predict."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812

MEAN, STD = 0.286, 0.353  # of the public images, as the image tower takes them
CELLS, BINS = 7, 8
TARGETS = CELLS * CELLS * BINS + 14 * 14


def augment(images: torch.Tensor, rng: torch.Generator, flipped: float = 0.5) -> torch.Tensor:
    """Random views of uint8 (n, 28, 28): float32 (n, 1, 28, 28) in 0..1.

    Zoom 0.75 to 1.15, aspect e^±0.25, flip with probability `flipped`, rotation 0.12 rad, shift, gamma e^(0.3 n),
    brightness 0.75 to 1.15.
    """
    n = len(images)

    def u(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, generator=rng) * (high - low) + low

    zoom, aspect = u(0.75, 1.15), torch.exp(u(-0.125, 0.125))
    angle = 0.12 * torch.randn(n, generator=rng)
    flip = torch.where(torch.rand(n, generator=rng) < flipped, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [flip * cos * zoom * aspect, -sin * zoom, u(-0.1, 0.1), flip * sin * zoom, cos * zoom / aspect, u(-0.1, 0.1)]
    theta = torch.stack(rows, 1).view(n, 2, 3)
    grid = F.affine_grid(theta, [n, 1, 28, 28], align_corners=False)
    view = F.grid_sample(images.float().div(255).unsqueeze(1), grid, align_corners=False)
    gamma = torch.exp(0.3 * torch.randn(n, generator=rng)).view(n, 1, 1, 1)
    return (view.clamp(0, 1) ** gamma * u(0.75, 1.15).view(n, 1, 1, 1)).clamp(0, 1)


def restyle(view: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Icons (n, 1, 28, 28) in 0..1 as other studios might draw them: half of them bolder, thinner, as outlines or
    softer, and a sixth in a badge, dark on a light disc or square or inside a ring."""
    n = len(view)
    style = torch.randint(0, 8, (n, 1, 1, 1), generator=rng)
    wide = F.max_pool2d(view, 3, 1, 1)
    narrow = -F.max_pool2d(-view, 3, 1, 1)
    for number, other in enumerate((wide, (view + narrow) / 2, wide - narrow, F.avg_pool2d(view, 3, 1, 1))):
        view = torch.where(style == number, other, view)
    badge = torch.randint(0, 18, (n, 1, 1, 1), generator=rng)
    small = F.pad(F.interpolate(view, size=(18, 18), mode="bilinear", antialias=True), (5, 5, 5, 5))
    line = (torch.arange(28) - 13.5).abs()
    disc = (line[:, None] ** 2 + line**2 <= 13.5**2).float()
    square = (torch.maximum(line[:, None], line.expand(28, 28)) <= 12.5).float()
    ring = disc - (line[:, None] ** 2 + line**2 <= 12**2).float()
    for number, other in enumerate((disc - small * disc, square - small, torch.maximum(ring.expand_as(small), small))):
        view = torch.where(badge == number, other, view)
    return view.clamp(0, 1)


def to_model(view: torch.Tensor, size: int) -> torch.Tensor:
    """Views (n, 1, 28, 28) in 0..1 as the image tower takes them: float32 (n, 3, size, size), channels last."""
    x = F.interpolate((view - MEAN) / STD, size=(size, size), mode="bilinear", align_corners=False)
    return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def cut_out(view: torch.Tensor, rng: torch.Generator, probability: float = 0.4) -> torch.Tensor:
    """`view` with a rectangle of random place, size (4 to 12 pixels a side) and grey painted over some images."""
    n = len(view)
    sides = torch.randint(4, 13, (n, 2), generator=rng)
    corner = (torch.rand(n, 2, generator=rng) * (28 - sides)).long()
    line = torch.arange(28)
    rows = (line >= corner[:, :1]) & (line < corner[:, :1] + sides[:, :1])
    columns = (line >= corner[:, 1:]) & (line < corner[:, 1:] + sides[:, 1:])
    hit = torch.rand(n, generator=rng) < probability
    mask = (rows[:, :, None] & columns[:, None, :] & hit[:, None, None]).unsqueeze(1)
    return torch.where(mask, torch.rand(n, 1, 1, 1, generator=rng) * 0.5, view)


def targets(view: torch.Tensor) -> torch.Tensor:
    """What a linear decoder must read from the embedding: float32 (n, 588) from views (n, 1, 28, 28).

    Histograms of oriented gradients, 7 × 7 cells × 8 unsigned directions, each cell scaled by the energy of its
    3 × 3 neighbourhood (Dalal and Triggs 2005), and the picture at 14 × 14.
    """
    padded = F.pad(view, (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    size = torch.sqrt(dx * dx + dy * dy + 1e-12)
    place = torch.remainder(torch.atan2(dy, dx) / math.pi, 1.0) * BINS
    centres = torch.arange(BINS, dtype=view.dtype).view(1, BINS, 1, 1)
    distance = (place - centres).abs()
    weight = (1 - torch.minimum(distance, BINS - distance)).clamp(min=0)
    cells = F.avg_pool2d(size * weight, 28 // CELLS)
    energy = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False)
    histogram = cells / torch.sqrt(energy + 1e-3)
    return torch.cat([histogram.flatten(1), F.avg_pool2d(view, 2).flatten(1)], 1)
