"""Views of an image that show the same thing: embedded together they tell more than the image alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

_BORDER = 28  # the smaller view has a border of one part in so many on each side


@dataclass(frozen=True)
class Views:
    """Which views there are beside the image itself: its mirror image, both at a smaller scale, or none."""

    mirror: bool = False
    multi_scale: bool = False

    @property
    def count(self) -> int:
        return (1 + self.mirror) * (1 + self.multi_scale)

    def of(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The views of ``pixels`` (n, 3, height, width), each of that shape, the image itself first.

        The smaller view is the image within a border that repeats its outermost pixels, a twenty-eighth of the height
        and width on each side, scaled back to the size it had (bilinear, antialiased).
        """
        scales = (pixels, _smaller(pixels)) if self.multi_scale else (pixels,)
        return tuple(view for scale in scales for view in ((scale, scale.flip(-1)) if self.mirror else (scale,)))


def _smaller(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[2:]
    rows, columns = max(1, round(height / _BORDER)), max(1, round(width / _BORDER))
    padded = F.pad(pixels, (columns, columns, rows, rows), mode="replicate")
    return F.interpolate(padded, (height, width), mode="bilinear", align_corners=False, antialias=True)
