"""One encoded image to pixels, with Pillow: what a model is to see of it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from flora_secure.data.files.dicom import is_dicom, open_dicom
from flora_secure.data.files.values import (
    DEEP_COLOUR,
    MORE,
    WHITE_16,
    OddValuesError,
    UnreadableImageError,
    Values,
    wide_values,
)
from flora_secure.data.rendering import AUTO, PLAIN, Rendering
from flora_secure.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 100_000_000  # 300 MB as RGB; a header that promises more is refused before anything is decoded
MOST_SIDE = 65_535  # JPEG's own; what is scaled passes through an image as long, and as wide as the model's
_MOST_SCALED = 1 << 24  # pixels that an image is scaled to before its middle is cut out
# Pillow has readers for more, one of which (PostScript) runs a program
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PNG = b"\x89PNG\r\n\x1a\n"
# EXIF's orientation → Pillow's name of what undoes it
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


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


def readers() -> str:
    """The releases of all that decodes images here, on which it depends what can be decoded."""
    import PIL

    found = [f"pillow {PIL.__version__} {MOST_PIXELS} {MOST_SIDE}"]
    for package in ("pillow_heif", "pydicom"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def open_rgb(raw: bytes, rendering: Rendering = PLAIN, *, draft: int | None = None) -> Image:
    """The image in `raw` as Pillow's RGB, turned as its EXIF orientation says; see `as_rgb`.

    `draft`: let JPEG decode at a smaller scale with sides of at least so many pixels. Raises
    `UnreadableImageError`.
    """
    image = decoded(raw, draft=draft)
    try:
        return as_rgb(image, rendering)
    except UnreadableImageError:
        raise
    except Exception:
        raise UnreadableImageError("corrupt or cut short") from None


def decoded(raw: bytes, *, draft: int | None = None) -> Image | Values:
    """The first image in `raw`, decoded to its end. Raises `UnreadableImageError`."""
    from PIL import Image, UnidentifiedImageError

    if not raw:
        raise UnreadableImageError("empty file")
    try:
        if is_dicom(raw):
            return open_dicom(raw, MOST_PIXELS)
        formats = _formats(raw)
        try:
            return _opened(raw, formats, draft)
        except UnreadableImageError:
            raise
        except Exception:
            if not raw.startswith(_PNG):
                raise
            return _opened(_pixels_only(raw), formats, draft)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("no image") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MOST_PIXELS // 10**6} million pixels") from None
    except Exception:  # a damaged file fails in Pillow's decoders in any way there is
        raise UnreadableImageError("corrupt or cut short") from None


def _opened(raw: bytes, formats: tuple[str, ...], draft: int | None) -> Image:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit, below ours on some releases, and odd metadata
        image: Image.Image = Image.open(io.BytesIO(raw), formats=formats)
        if image.width * image.height > MOST_PIXELS:
            raise UnreadableImageError(f"more than {MOST_PIXELS // 10**6} million pixels")
        if max(image.size) > MOST_SIDE:
            raise UnreadableImageError(f"more than {MOST_SIDE:,} pixels in a row or a column")
        if image.width == 0 or image.height == 0:
            raise UnreadableImageError("no pixels")
        if draft is not None:
            image.draft("RGB", (draft, draft))
        deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        image.load()
        if deep and len(image.getbands()) > 1:
            image.info[DEEP_COLOUR] = True
        return image


def _formats(raw: bytes) -> tuple[str, ...]:
    """Pillow's names of what the bytes may be. Raises UnreadableImageError for what needs a package that is missing."""
    from PIL import features

    brands = raw[8:64] if raw[4:8] == b"ftyp" else b""
    if b"avif" in brands or b"avis" in brands:
        if "avif" not in features.modules or not features.check("avif"):
            raise UnreadableImageError("AVIF, which this Pillow does not read: pip install 'pillow>=11.3'")
        return ("AVIF",)
    if not any(brand in brands for brand in _HEIC):
        return _FORMATS
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UnreadableImageError("HEIC, which needs pip install 'flora-secure[heic]'") from None
    register_heif_opener()
    return ("HEIF",)


def _pixels_only(raw: bytes) -> bytes:
    """A PNG file without its texts, EXIF, profiles and the like: a fault in these is no fault of its pixels."""
    kept, place = [raw[: len(_PNG)]], len(_PNG)
    while place < len(raw):
        kind, end = raw[place + 4 : place + 8], place + 12 + int.from_bytes(raw[place : place + 4], "big")
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(raw[place:end])
        place = end
    return b"".join(kept)


def as_rgb(image: Image | Values, rendering: Rendering = PLAIN) -> Image:
    """A decoded image as RGB, turned as its EXIF orientation says (one that cannot be read turns nothing).

    Palettes are looked up, CMYK is converted, values of more than 8 bits become 8 as `rendering.window` says, and what
    is transparent shows `rendering.background`. Raises UnreadableImageError, and whatever Pillow's decoder does for an
    image that is not loaded.
    """
    from PIL import Image as Pillow

    if isinstance(image, Values):
        return Pillow.fromarray(image.shown(rendering)).convert("RGB")
    image.load()
    if image.info.get(DEEP_COLOUR) and rendering.window not in (AUTO, f"0:{WHITE_16}"):
        raise OddValuesError(f"{DEEP_COLOUR}, of which 8 bits are read, which fits no window of values")
    values = wide_values(image)
    if values is not None:
        rgb = Pillow.fromarray(values.shown(rendering)).convert("RGB")
    elif is_clear(image):
        over = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        rgb = Pillow.alpha_composite(Pillow.new("RGBA", over.size, (*rendering.ground, 255)), over).convert("RGB")
    else:
        rgb = image.convert("RGB")
    turn = _TURNS.get(orientation(image) or 1)
    return rgb if turn is None else rgb.transpose(Pillow.Transpose[turn])


def is_clear(image: Image | Values) -> bool:
    """Whether some of the image may be transparent."""
    if isinstance(image, Values):
        return False
    return image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info


def has_more(image: Image | Values) -> bool:
    """Whether frames, pages or slices follow the decoded image in its file. The second picture that some cameras hide
    behind a photograph is not meant."""
    if isinstance(image, Values):
        return image.more
    try:
        return bool(image.info.get(MORE)) or (image.format != "MPO" and bool(getattr(image, "is_animated", False)))
    except Exception:  # it cannot be found in what follows, which is not used
        return False


def orientation(image: Image | Values) -> int | None:
    """The EXIF orientation of an image, 1 where it has none; `None` where its EXIF cannot be read."""
    if isinstance(image, Values):
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF fails in any way there is
        return None


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
    if inner[0] * inner[1] <= _MOST_SCALED:
        return image.resize(inner, resample).crop((left, top, left + width, top + height))
    # a strip hundreds of times as long as wide: only what is cut out is scaled; pixels differ by rounding
    across, down = image.width / inner[0], image.height / inner[1]
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return image.resize((width, height), resample, box)
