"""DICOM files, as scanners write them, with pydicom: the first image, as the file itself says it is to be shown."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

from flora_secure.data.files.values import MORE, UnreadableImageError, Values

if TYPE_CHECKING:
    from PIL.Image import Image

_DEFLATED = b"1.2.840.10008.1.2.1.99"  # inflated without a bound by pydicom, and used for no images


def is_dicom(raw: bytes) -> bool:
    """Whether the bytes begin as DICOM files do."""
    return raw[128:132] == b"DICM"


def open_dicom(raw: bytes, most_pixels: int) -> Image | Values:
    """The first image of a file.

    Grey values are rescaled by the file's slope and intercept; black and white are those of its (first) window, by the
    function that it names, and MONOCHROME1 is inverted. Raises UnreadableImageError for what cannot be read.
    """
    try:
        import pydicom
        from PIL import Image
        from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
    except ImportError:
        raise UnreadableImageError("DICOM, which needs pip install 'flora-secure[medical]'") from None
    if _DEFLATED in raw[:4096]:
        raise UnreadableImageError("DICOM that is compressed as a whole")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that no standard allows
        found = pydicom.dcmread(io.BytesIO(raw))
        if "PixelData" not in found and "FloatPixelData" not in found and "DoubleFloatPixelData" not in found:
            raise UnreadableImageError("DICOM without an image")
        if int(found.Rows) * int(found.Columns) > most_pixels:
            raise UnreadableImageError(f"more than {most_pixels // 10**6} million pixels")
        try:
            array = pixel_array(found, index=0)  # colours come as RGB
        except (RuntimeError, ImportError, NotImplementedError):
            raise UnreadableImageError("DICOM in a compression that pydicom has no decoder for") from None
        kind = str(found.PhotometricInterpretation)
        if kind == "PALETTE COLOR":
            array = apply_color_lut(array, found)
        more = int(found.get("NumberOfFrames", 1) or 1) > 1
        if array.ndim == 3:
            bits = 8 * array.dtype.itemsize
            image = Image.fromarray((array >> (bits - 8)).astype(np.uint8))
            image.info[MORE] = more
            return image
        values = np.asarray(apply_modality_lut(array, found))
        plain = array.dtype == np.uint8 and bool((array == values).all())
        window = _window(found) or ((0.0, 255.0) if plain else None)
        named = "DICOM values" if window else "DICOM values without a window"
        return Values(named, values, window, True, kind == "MONOCHROME1", more)


def _window(found: object) -> tuple[float, float] | None:
    """Black and white by the file's tags (DICOM PS3.3, C.11.2.1.2), `None` where it has none. A sigmoid is taken for
    the straight line with its slope in the middle."""

    def first(name: str) -> float | None:
        value = getattr(found, name, None)
        if value is None or value == "":
            return None
        return float(value if isinstance(value, int | float | str) else value[0])

    center, width = first("WindowCenter"), first("WindowWidth")
    if center is None or width is None:
        return None
    if str(getattr(found, "VOILUTFunction", "LINEAR")) == "LINEAR":
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return center - width / 2, center + width / 2
