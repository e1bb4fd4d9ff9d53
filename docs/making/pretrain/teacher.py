"""What the middle of the image tower knows and its embedding has lost: targets for the last phase of the pretraining.

The third of the trunk's four layers tells the classes apart better than the embedding does: pooling forgets where
things are. So a frozen copy of the trunk teaches: the embedding must predict the whitened principal components of
that layer's map.
"""

from __future__ import annotations

import copy

import torch
from timm.models.resnet import ResNet
from torch import Tensor

from pretrain.views import augment, to_model

COMPONENTS = 256
SHRINK = 0.02  # of the whitening, in mean variances of the components


class Teacher:
    """A frozen copy of a trunk, with the centre and the whitening of its third layer's maps."""

    def __init__(self, trunk: ResNet, size: int, centre: Tensor, whitening: Tensor) -> None:
        """`size`: side of the trunk's images; `centre` (features,) and `whitening` (features, components), float32."""
        self.trunk = copy.deepcopy(trunk).requires_grad_(False).eval()
        self.size, self.centre, self.whitening = size, centre, whitening

    @classmethod
    def of(cls, trunk: ResNet, size: int, images: Tensor, seed: int) -> Teacher:
        """The teacher that `trunk` makes now; whitened on uint8 `images` (n, 28, 28) and a random view of each."""
        teacher = cls(trunk, size, torch.empty(0), torch.empty(0))
        views = torch.cat([images.float().div(255).unsqueeze(1), augment(images, torch.Generator().manual_seed(seed))])
        maps = torch.cat([teacher._maps(part) for part in views.split(500)])
        values, vectors = torch.linalg.eigh(torch.cov(maps.T))
        values, vectors = values[-COMPONENTS:], vectors[:, -COMPONENTS:]
        whitening = vectors / (values + SHRINK * values.mean()).sqrt()
        teacher.centre = maps.mean(0)
        teacher.whitening = whitening / ((maps - teacher.centre) @ whitening).std()
        return teacher

    def targets(self, view: Tensor) -> Tensor:
        """What the embedding of views (n, 1, 28, 28) in 0..1 must predict: float32 (n, components), unit variance."""
        return (self._maps(view) - self.centre) @ self.whitening

    @torch.no_grad()
    def _maps(self, view: Tensor) -> Tensor:
        trunk = self.trunk
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(to_model(view, self.size)))))
            x = trunk.layer3(trunk.layer2(trunk.layer1(x)))
        return x.float().contiguous().flatten(1)

    def state(self) -> dict[str, object]:
        return {"trunk": self.trunk.state_dict(), "centre": self.centre, "whitening": self.whitening}

    @classmethod
    def from_state(cls, trunk: ResNet, size: int, state: dict[str, object]) -> Teacher:
        """The teacher of `state`; `trunk` is any trunk of the same architecture."""
        teacher = cls(trunk, size, state["centre"], state["whitening"])
        teacher.trunk.load_state_dict(state["trunk"])
        return teacher
