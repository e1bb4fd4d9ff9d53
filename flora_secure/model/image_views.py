"""Views of an image that show the same thing: embedded together they tell more than the image alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from flora_secure.planning.sections import Crops

_PART = 28  # crops differ from the image by one part in so many of its height and width


@dataclass(frozen=True)
class ImageViews:
    """What is embedded together: `crops` of an image, with `mirror` each of them and its mirror image."""

    mirror: bool = False
    crops: Crops = 1

    @property
    def count(self) -> int:
        """How many views an image has, the image itself included."""
        return (1 + self.mirror) * self.crops

    def of(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The views of `pixels` (n, 3, height, width), each of that shape, the image itself first.

        Two crops: the image, and it a twenty-eighth smaller on each side, scaled back bilinearly (antialiased). Four:
        also it moved down and up by a twenty-eighth of the height. Where a crop reaches beyond the image, the
        outermost pixels are repeated.
        """
        height, width = pixels.shape[2:]
        rows, columns = max(1, round(height / _PART)), max(1, round(width / _PART))
        crops = [pixels]
        if self.crops > 1:
            around = F.pad(pixels, (columns, columns, rows, rows), mode="replicate")
            crops.append(F.interpolate(around, (height, width), mode="bilinear", align_corners=False, antialias=True))
        if self.crops > 2:
            above, below = (F.pad(pixels, (0, 0, *sides), mode="replicate") for sides in ((rows, 0), (0, rows)))
            crops += [above[:, :, :height], below[:, :, rows:]]
        return tuple(view for crop in crops for view in ((crop, crop.flip(-1)) if self.mirror else (crop,)))
