"""Values of an image that are no 0 to 255 yet, and how they become that.

What a kind of value promises decides, never one image by itself, since two images of one data set must be treated
alike: 16 bits reach to 65,535, floats to 1. Values that break the promise are refused, and `data.window` says what is
black and what is white.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flora_secure.data.rendering import EACH, Rendering

if TYPE_CHECKING:
    from PIL.Image import Image

_AT_ONCE = 1 << 22  # values that are float64 at a time
DEEP_COLOUR = "16-bit colours"  # of which Pillow reads the upper 8 bits; in an image's `info`
MORE = "other images follow in the file"  # in an image's `info`
WHITE_16 = 65_535


class UnreadableImageError(Exception):
    """An image that cannot be decoded; `str(error)` is the kind of damage, the same for all that share it."""


class OddValuesError(UnreadableImageError):
    """An image whose values its kind does not promise, so that nothing says which are black and white."""


@dataclass(frozen=True, eq=False)
class Values:
    """Grey values (height, width). `kind`: what they are called; `promised`: what is black and what white by it;
    `cut`: whether values beyond these are cut off, as
    in a window, or odd; `inverted`: the greatest is black; `more`: other images
    follow in the file."""

    kind: str
    array: np.ndarray = field(repr=False)
    promised: tuple[float, float] | None
    cut: bool = False
    inverted: bool = False
    more: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value. Raises UnreadableImageError where one is no number."""
        low, high = float(self.array.min()), float(self.array.max())
        if not np.isfinite((low, high)).all():  # NaN is both
            raise UnreadableImageError("values that are no numbers (NaN or infinite)")
        return low, high

    def clear(self, low: float, high: float) -> bool:
        """Whether the kind says what is black and white of values from `low` to `high`."""
        if self.promised is None or self.cut:
            return self.promised is not None
        slack = (self.promised[1] - self.promised[0]) / 510  # half a step of 8 bits: 1.0000001 is a 1
        return self.promised[0] - slack <= low and high <= self.promised[1] + slack

    def shown(self, rendering: Rendering) -> np.ndarray:
        """The pixels, uint8 (height, width).

        Raises OddValuesError where neither the kind nor the rendering says what is black.
        """
        low, high = self.range
        if rendering.window == EACH:
            black, white = low, high
        elif rendering.limits is not None:
            black, white = rendering.limits
        else:
            if not self.clear(low, high):
                raise OddValuesError(f"{self.kind} from {low:g} to {high:g}, and nothing says what is black")
            assert self.promised is not None
            black, white = self.promised
        shown = np.zeros(self.array.shape, np.uint8)
        if black < white:
            rows = max(1, _AT_ONCE // self.array.shape[1])
            for start in range(0, len(shown), rows):
                part = self.array[start : start + rows].astype(np.float64)
                shown[start : start + rows] = np.rint(np.clip((part - black) * (255 / (white - black)), 0, 255))
        return 255 - shown if self.inverted else shown


def wide_values(image: Image) -> Values | None:
    """The values of one of Pillow's images where they are no 8 bits, `None` where they are."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    inverted = tags.get(262) == 0  # PhotometricInterpretation; Pillow follows it in 8 bits only
    signed, bits = tags.get(339) == (2,), tags.get(258)
    if image.mode == "F":
        return Values("floats", np.asarray(image), (0, 1), inverted=inverted)
    if image.mode.startswith("I;16"):
        twelve = bits == (12,)
        return Values(
            "12-bit values" if twelve else "16-bit values",
            np.asarray(image),
            (0, 4095 if twelve else WHITE_16),
            inverted=inverted,
        )
    if image.mode == "I":
        array = np.asarray(image)
        if image.format in {"PNG", "PPM"}:  # 16 bits, on some releases of Pillow
            return Values("16-bit values", array, (0, WHITE_16))
        if bits == (32,) and not signed:
            array = array.view(np.uint32)
        return Values("whole numbers", array, (0, 255), inverted=inverted)
    if image.mode == "L" and signed:
        return Values("whole numbers", np.asarray(image).view(np.int8), (0, 255), inverted=inverted)
    return None
