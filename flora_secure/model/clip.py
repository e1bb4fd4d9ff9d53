"""Frozen CLIP models: the embedded tiny one and any architecture of open_clip, behind one small interface.

Always built as open_clip's `CustomTextCLIP`, whose `text.text_projection` peft can adapt (on the plain `CLIP` class the
same parameter lies at the root and peft refuses it). Importing this module downloads nothing; loading a model by one of
open_clip's tags does, through open_clip's own cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from open_clip.model import CustomTextCLIP
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F  # noqa: N812

from flora_secure.data.files.pixels import Shape
from flora_secure.errors import ModelError
from flora_secure.model.devices import batch_map
from flora_secure.model.image_views import ImageViews
from flora_secure.model.matrices import TextProjection, visual_unprojected
from flora_secure.model.tokenizers import Tokenizer, cut_at_context

_BATCH = 250
_ALONE = ImageViews()


@dataclass(frozen=True, eq=False)
class Clip:
    """A frozen model in evaluation mode with what is needed to feed it.

    `mean` and `std` are per channel, of images scaled to 0..1; `shape` is the size of its images and how encoded ones
    are brought to it; `config` is open_clip's `model_cfg` of the model, and `model_hash` the SHA-256 of that, as far as
    it matters to embeddings, and of all parameters and buffers with their names. `parameter_count` is of the two towers
    and the logit's scale and bias: CoCa's decoder, which embeds nothing, is no part of the model.
    `precision` is that of the products inside a tower that stays frozen (`torch.autocast`); parameters and embeddings
    are float32. `warnings`: lines for people about what was guessed or replaced when it was loaded.
    """

    name: str
    model: CustomTextCLIP
    tokenizer: Tokenizer
    shape: Shape
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    model_hash: str
    parameter_count: int
    config: dict[str, Any] = field(repr=False)
    precision: torch.dtype = torch.float32
    warnings: tuple[str, ...] = ()

    @property
    def image_size(self) -> tuple[int, int]:
        """The height and width, in pixels, of the images that the image tower reads."""
        return self.shape.size

    @property
    def full_model_bytes(self) -> int:
        """Bytes of all parameters as float32: what federated training of the whole model would send one way."""
        return 4 * self.parameter_count

    @property
    def text_projection(self) -> Tensor:
        """The matrix from pooled text features to the embedding, float32 (width, embed); ModelError without one."""
        if (matrix := self.projection.matrix) is None:
            raise ModelError(
                f"model {self.name!r} has no text projection to adapt; use another `model.placement`, such as "
                "text-attention"
            )
        return matrix

    @property
    def projection(self) -> TextProjection:
        """The last matrix of the text tower, float32 (width, embed), and the bias behind it, if any."""
        return TextProjection.of(self.model.text)

    def pixels(self, images: np.ndarray) -> Tensor:
        """What the image tower reads, float32 (n, 3, height, width), of uint8 images (n, H, W) or (n, H, W, 3).

        Images are scaled bilinearly (antialiased when made smaller) to the model's size, aspect ignored; grey ones feed
        three equal channels. Raises ValueError for any other type or shape.
        """
        if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
            raise ValueError(f"images must be uint8 (n, H, W) or (n, H, W, 3), not {images.dtype} {images.shape}")
        device = self.model.logit_scale.device
        mean = torch.tensor(self.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=device).view(1, 3, 1, 1)
        shrink = images.shape[1] > self.image_size[0] or images.shape[2] > self.image_size[1]
        # nothing is written to it, but torch warns of an array that could not be
        x = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device)
        x = (x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)).float() / 255
        x = F.interpolate(x, self.image_size, mode="bilinear", align_corners=False, antialias=shrink)
        return ((x - mean) / std).contiguous(memory_format=torch.channels_last)

    def image_features(self, images: np.ndarray, *, views: ImageViews = _ALONE, batch: int = _BATCH) -> Tensor:
        """L2-normalised embeddings, float32 (n, embed), of images as `pixels` takes them.

        An image's embedding is the normalised mean of those of its views, at as many times the time.
        """
        return joined(self._outputs(images, views, batch))

    def pooled_image_features(self, images: np.ndarray, *, views: ImageViews = _ALONE, batch: int = _BATCH) -> Tensor:
        """The image tower's output before its last matrix, float32 (n, views, width).

        Raises AdapterError where the tower does not end in a matrix.
        """
        with visual_unprojected(self.model):
            return self._outputs(images, views, batch)

    @torch.no_grad()
    def _outputs(self, images: np.ndarray, views: ImageViews, batch: int) -> Tensor:
        """The image tower's output, float32 (n, views, ·), of the views of each image."""
        device = self.model.logit_scale.device
        sample = self.pixels(images[:2] if len(images) else np.zeros((1, *self.image_size), np.uint8))
        visual = without_batch_norms(self.model.visual, sample)

        @torch.no_grad()  # it does not reach into threads by itself
        def outputs(start: int) -> Tensor:
            x = self.pixels(images[start : start + batch])
            with mixed(device, self.precision):  # of the thread, like no_grad
                return torch.stack([visual(view).float() for view in views.of(x)], dim=1)

        found = list(batch_map(outputs, range(0, len(images), batch), device))
        return torch.cat(found) if found else visual(sample)[:0, None].float().expand(0, views.count, -1)

    def require_short(self, texts: Sequence[str]) -> None:
        """Raise ModelError if a text is longer than the context: what is cut off cannot tell classes apart."""
        tokens, cut = cut_at_context(self.tokenizer, list(texts))
        if long := cut.nonzero().flatten().tolist():
            raise ModelError(
                f"{len(long)} prompts are longer than the {tokens.shape[1]} tokens that model {self.name!r} reads, "
                f"such as {texts[long[0]][:60]!r}: shorten `data.class_names` or `data.templates`"
            )

    def pooled_text_features(self, prompts: Sequence[str]) -> Tensor:
        """What `pooled_token_features` makes of the tokens of prompts, float32 (n, width)."""
        return self.pooled_token_features(self.tokenizer(list(prompts)))

    @torch.no_grad()
    def pooled_token_features(self, tokens: Tensor, batch: int = _BATCH) -> Tensor:
        """The text tower's output H before the projection, float32 (n, width), of tokens int64 (n, context).

        `projection(H)` is the unnormalised output of `model.encode_text`: the projection is the last thing the tower
        does, so it is evaluated with the identity in its place.
        """
        device, identity = self.model.logit_scale.device, self.projection.identity
        with mixed(device, self.precision):
            pooled = [
                torch.func.functional_call(self.model.text, identity, (part.to(device),))
                for part in torch.split(tokens, batch)
            ]
        return torch.cat(pooled).float()

    def pooled_class_features(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """Pooled features averaged over the prompts of each class, float32 (classes, width).

        The average is taken before the projection, so that the class embedding stays linear in it and in any adapter;
        a bias is the same for all prompts.
        """
        counts = [len(group) for group in prompts]
        pooled = self.pooled_text_features([prompt for group in prompts for prompt in group])
        return torch.stack([part.mean(0) for part in torch.split(pooled, counts)])


def mixed(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Within it, matrix products and convolutions are of that precision, where it is not float32."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def joined(views: Tensor) -> Tensor:
    """Unit-norm embeddings (…, embed) of outputs (…, views, embed): the normalised mean of the normalised views."""
    return F.normalize(F.normalize(views, dim=-1).sum(-2), dim=-1)


def class_prompts(class_names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """For each class, each template with the class's name in the place of `{}`."""
    return [[template.format(name) for template in templates] for name in class_names]


def without_batch_norms(visual: nn.Module, sample: Tensor) -> nn.Module:
    """A copy of `visual` with each batch norm folded into its convolution, a third faster on a processor.

    Falls back to `visual` where there is none to fold, torch.fx cannot trace it, or the copy disagrees on `sample`.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in visual.modules()):
        return visual
    try:
        copy: nn.Module = fuse(visual)
        same = torch.allclose(copy(sample), visual(sample), rtol=1e-3, atol=1e-4)
    except Exception:  # what cannot be traced fails in many ways, and the tower itself is always right
        return visual
    return copy if same else visual
