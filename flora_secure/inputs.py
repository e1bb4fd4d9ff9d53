"""What towers read, by index: rows of a tensor, or images that become pixels when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora_secure.clip import Clip
from flora_secure.data.decoding import decode
from flora_secure.data.images import EncodedImages, Images
from flora_secure.views import Views


class Inputs(Protocol):
    """Inputs of a `towers.Tower`."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """Those at ``indices``, (n, …)."""
        ...


@dataclass(frozen=True, eq=False)
class Held:
    """Rows of a tensor."""

    rows: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        return self.rows[torch.from_numpy(indices).to(self.rows.device)]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images for an image tower that trains, float32 (n, views, 3, height, width). Encoded ones
    are decoded each time, since the pixels of all rarely fit in memory."""

    clip: Clip
    images: Images = field(repr=False)
    views: Views

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        if isinstance(self.images, EncodedImages):
            chosen = self.images.at(indices)
            parts = list(decode(chosen.files, chosen.hashes, self.clip.shape, max(1, len(indices))))
            pixels = self.clip.pixels(np.concatenate(parts))
        else:
            pixels = self.clip.pixels(self.images[indices])
        return torch.stack(self.views.of(pixels), dim=1)
