"""What is wrong with each image file, and what a whole data set's values say of black and white."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from flora_secure.data.files.pixels import as_rgb, decoded, has_more, is_clear, open_rgb, orientation
from flora_secure.data.files.values import (
    DEEP_COLOUR,
    WHITE_16,
    OddValuesError,
    UnreadableImageError,
    Values,
    wide_values,
)
from flora_secure.data.images import ImageFile
from flora_secure.data.notes import Notes
from flora_secure.data.rendering import AUTO, EACH, PLAIN, Rendering
from flora_secure.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FLAT = 4.0  # of 255: an image none of whose channels deviates more shows next to nothing
_MANY_FLAT = 0.05  # of a data set's images
_SIXTEEN = ("16-bit values", DEEP_COLOUR)


@dataclass(frozen=True)
class Finding:
    """What decoding one file found. `damage`: why it cannot be used, or ""; `kind`, `low`, `high`: its values where
    they are no 8 bits; `odd`: nothing says which of them are black; `flat`: it decodes to almost one value; `clear`:
    it may be transparent; `more`: others follow in the file; `turned`: its EXIF could be read."""

    damage: str = ""
    kind: str = ""
    low: float = 0.0
    high: float = 0.0
    odd: bool = False
    flat: bool = False
    clear: bool = False
    more: bool = False
    turned: bool = True

    def to_text(self) -> str:
        """A line for the cache, "" for an image of which there is nothing to say."""
        return "" if self == Finding() else json.dumps(astuple(self))

    @classmethod
    def from_text(cls, text: str) -> Finding:
        """The inverse of `to_text`."""
        return cls(*json.loads(text)) if text else cls()


def check(file: ImageFile, rendering: Rendering = PLAIN) -> Finding:
    """What is found in a file when it is decoded to its end."""
    found = Finding()
    try:
        raw = file.read()
        image = decoded(raw, draft=1)
        found = _values(image)
        rgb = as_rgb(image, rendering)
        # JPEG was decoded at an eighth of its size, where fine patterns are grey
        flat = _is_flat(rgb) and _is_flat(open_rgb(raw, rendering))
    except OSError as error:
        return Finding(f"cannot be read: {error.strerror}")
    except OddValuesError:
        return replace(found, odd=True)
    except UnreadableImageError as error:
        return Finding(str(error))
    except Exception:  # what Pillow decoded may still be nothing that it converts
        return Finding("corrupt or cut short")
    turned = orientation(image) is not None
    return replace(found, flat=flat, clear=is_clear(image), more=has_more(image), turned=turned)


def _values(image: Image | Values) -> Finding:
    if not isinstance(image, Values) and image.info.get(DEEP_COLOUR):
        highest = max(place % 256 for place, count in enumerate(image.convert("RGB").histogram()) if count)
        return Finding(kind=DEEP_COLOUR, high=highest * 257.0)
    values = image if isinstance(image, Values) else wide_values(image)
    if values is None:
        return Finding()
    low, high = values.range
    return Finding(kind=values.kind, low=low, high=high)


def _is_flat(image: Image) -> bool:
    counts = image.histogram()
    for band in (counts[:256], counts[256:512], counts[512:]):
        mean = sum(value * count for value, count in enumerate(band)) / sum(band)
        if sum((value - mean) ** 2 * count for value, count in enumerate(band)) > FLAT**2 * sum(band):
            return False
    return True


def tell(name: str, found: Sequence[tuple[str, Finding]], rendering: Rendering, notes: Notes) -> None:
    """Notes what was found in the images of data set `name`, pairs of a file's name and its finding: what is damaged,
    and of the rest what looks wrong. Raises DataError where nothing says which of their values are black and white."""
    for one, finding in found:
        if finding.damage:
            notes.skip(finding.damage, one)
    used = [(one, finding) for one, finding in found if not finding.damage]
    wide: dict[str, list[tuple[str, Finding]]] = {}
    for one, finding in used:
        if finding.kind:
            wide.setdefault(finding.kind, []).append((one, finding))
    for kind, those in wide.items():
        _require_clear(name, kind, those, rendering, notes)
    for one, finding in used:
        if finding.more:
            notes.mark("first of several images in a file, used alone", one)
        if not finding.turned:
            notes.mark("EXIF that cannot be read: used, not turned", one)
        if finding.flat:
            notes.mark("almost one value all over (deviation below 4 of 255), used all the same", one)
    if rendering.window != AUTO and used and not wide:
        notes.warn(f"`data.window` {rendering.window} changes nothing: no image has values of more than 8 bits")
    clear = sum(finding.clear for _, finding in used)
    if rendering.background != PLAIN.background and used and not clear:
        notes.warn(f"`data.background` {rendering.background} changes nothing: no image is transparent")
    flat = [finding for _, finding in used if finding.flat]
    if len(flat) > _MANY_FLAT * len(used):
        causes = [
            f"{sum(finding.clear for finding in flat):,} of them may be transparent and show `data.background` "
            f"{rendering.background}: try another"
            if any(finding.clear for finding in flat)
            else "",
            f"{sum(bool(finding.kind) for finding in flat):,} have more than 8 bits: `data.window` LOW:HIGH says what "
            "is black and white"
            if any(finding.kind for finding in flat)
            else "",
        ]
        told = "; ".join(filter(None, causes)) or "look at them"
        notes.warn(f"{len(flat):,} of {len(used):,} images show almost one value all over; {told}")


def _require_clear(
    name: str, kind: str, those: Sequence[tuple[str, Finding]], rendering: Rendering, notes: Notes
) -> None:
    low, high = min(f.low for _, f in those), max(f.high for _, f in those)
    seen = f"{len(those):,} image(s) of data set {name!r} hold {kind} from {low:g} to {high:g}"
    odd = next((one for one, finding in those if finding.odd), None)
    if odd is not None and kind == DEEP_COLOUR:
        raise DataError(
            f"{seen}, such as {odd!r}, of which 8 bits are read: save them with 8 bits a colour, or leave out "
            f"`data.window` {rendering.window}"
        )
    if odd is not None or (rendering.window == AUTO and kind in _SIXTEEN and high <= WHITE_16 // 2):
        dark = f"of which {WHITE_16:,} is white, so that all are dark"
        why = dark if odd is None else "and nothing says what is black"
        first = "0:65535 takes them as they are" if kind == DEEP_COLOUR else f"{_guess(low, high)} may be right"
        each = "" if kind == DEEP_COLOUR else f", or `data.window` {EACH}, which stretches each image by itself"
        raise DataError(
            f"{seen}, such as {odd or those[0][0]!r}, {why}: say what is black and what is white by `data.window` "
            f"LOW:HIGH ({first}){each}"
        )
    if rendering.window == AUTO:
        black, white = {"floats": "0 1", "whole numbers": "0 255", "12-bit values": "0 4095"}.get(
            kind, f"0 {WHITE_16}"
        ).split()
        shown = f"{black} is black and {white} white"
        if kind.startswith("DICOM"):
            shown = "black and white are those of each file's own window"
        notes.warn(f"{seen}; {shown}, unless `data.window` says otherwise")


def _guess(low: float, high: float) -> str:
    """A window that the values fit: their own, to the next full number of bits where they begin at 0 or above."""
    if low < 0 or high <= 1 or high != int(high):
        return f"{low:g}:{high:g}"
    return f"0:{(1 << int(high).bit_length()) - 1}"
