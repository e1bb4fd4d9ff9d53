"""How the values of an image file become the 0 to 255 that a model is trained on: what the run was told of it.

The rules themselves are in `flora_secure.data.files.values`; docs/data.md has them as a table.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from flora_secure.errors import DataError

AUTO, EACH = "auto", "image"
_COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255)}


@dataclass(frozen=True)
class Rendering:
    """`window`: "auto", by the kind of value; "image", each image's least value black and its greatest white; or
    "LOW:HIGH", the values that are black and white. `background`: "black", "white" or "#rrggbb", what shows through
    where an image is transparent. All images of a run, and all that its adapter is used on, have the same.

    Raises DataError for other texts.
    """

    window: str = AUTO
    background: str = "black"

    def __post_init__(self) -> None:
        if self.window not in (AUTO, EACH):
            low, high = self.limits or (0, 0)
            if not low < high:
                raise DataError(
                    f"`data.window` must be LOW:HIGH, two numbers and the lower first, such as 0:4095, or {AUTO}, or "
                    f"{EACH}; got {self.window!r:.60}"
                )
        if self.background not in _COLOURS and not re.fullmatch("#[0-9a-fA-F]{6}", self.background):
            raise DataError(f"`data.background` must be black, white or #rrggbb, got {self.background!r:.60}")

    @property
    def limits(self) -> tuple[float, float] | None:
        """The values that are black and white, where they were given."""
        low, colon, high = self.window.partition(":")
        try:
            found = float(low), float(high)
        except ValueError:
            return None
        return found if colon and all(map(math.isfinite, found)) else None

    @property
    def ground(self) -> tuple[int, int, int]:
        """The background's red, green and blue."""
        if self.background in _COLOURS:
            return _COLOURS[self.background]
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue


PLAIN = Rendering()
