"""One encoded image to pixels, with Pillow: what a model is to see of it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from flora_secure.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 100_000_000  # 300 MB as RGB; a header that promises more is refused before anything is decoded


class UnreadableImageError(Exception):
    """An image that cannot be decoded; `str(error)` is the kind of damage, the same for all that share it."""


@dataclass(frozen=True)
class Shape:
    """What a model wants: `size` (height, width) in pixels; `mode` and `filter` as in open_clip's preprocessing.

    "shortest": the shorter side is scaled to the size and the middle is cut out; "squash": aspect ignored; "longest":
    the longer side is scaled, the rest filled with black.
    """

    size: tuple[int, int]
    mode: str = "shortest"
    filter: Literal["bicubic", "bilinear"] = "bicubic"


def require_pillow() -> None:
    """Raises `DataError`, one line that says what to install, where Pillow is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise DataError("image files need Pillow: pip install 'flora-secure[train]'") from None


def open_rgb(raw: bytes, *, draft: int | None = None) -> Image:
    """The image in `raw` as Pillow's RGB, turned as its EXIF orientation says.

    Palettes are looked up, CMYK is converted, 16-bit grey is scaled to 8 bits, and what is transparent shows black.
    `draft`: let JPEG decode at a smaller scale with sides of at least so many pixels. Raises
    `UnreadableImageError`.
    """
    from PIL import Image, UnidentifiedImageError

    if not raw:
        raise UnreadableImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit, below ours on some releases, and odd metadata
            image: Image.Image = Image.open(io.BytesIO(raw))
            if image.width * image.height > MOST_PIXELS:
                raise UnreadableImageError(f"more than {MOST_PIXELS // 10**6} million pixels")
            if image.width == 0 or image.height == 0:
                raise UnreadableImageError("no pixels")
            if draft is not None:
                image.draft("RGB", (draft, draft))
            image.load()
            return as_rgb(image)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("no image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MOST_PIXELS // 10**6} million pixels") from None
    except Exception:  # a damaged file fails in Pillow's decoders in any way there is
        raise UnreadableImageError("corrupt or cut short") from None


def as_rgb(image: Image) -> Image:
    """Any of Pillow's images as `open_rgb` gives it. Raises whatever its decoder does where it is not loaded."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        # Pillow clips at 255 what it converts from 16 bits, which leaves white
        wide = image.mode.startswith("I;16") or values.max(initial=0) > 255
        return Image.fromarray(np.clip(values / 257 if wide else values, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert("RGB")
    return image.convert("RGB")


def fitted(image: Image, shape: Shape) -> Image:
    """`image` (RGB) at the model's size; equal to open_clip's transforms of the same name up to the pixels."""
    from PIL import Image

    height, width = shape.size
    resample = Image.Resampling[shape.filter.upper()]
    if shape.mode == "squash":
        return image.resize((width, height), resample)
    if shape.mode == "longest":
        scale = min(height / image.height, width / image.width)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        canvas = Image.new("RGB", (width, height))
        canvas.paste(image.resize(inner, resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return canvas
    if shape.mode != "shortest":
        raise ValueError(f"resize mode must be shortest, squash or longest, not {shape.mode!r}")
    # the shorter side becomes the size (a square), or, for other sizes, the image covers the size
    if height == width:
        short, long = sorted(image.size)
        scaled = height, int(height * long / short)
        inner = scaled if image.width <= image.height else scaled[::-1]
    else:
        scale = max(height / image.height, width / image.width)
        inner = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    top, left = round((inner[1] - height) / 2.0), round((inner[0] - width) / 2.0)
    return image.resize(inner, resample).crop((left, top, left + width, top + height))
