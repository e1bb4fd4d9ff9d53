"""Encoded images to pixels, with Pillow, in worker processes where there are many.

Workers are fresh interpreters (no fork of a process that may hold threads) which import this module and Pillow alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from flora_secure.data.images import ImageFile
from flora_secure.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 100_000_000  # 300 MB as RGB; a header that promises more is refused before anything is decoded
_FEW = 128  # that many are done in this process: starting workers takes longer
_PIECE = 16  # a task: few enough that Ctrl-C waits for little
_T = TypeVar("_T")
_R = TypeVar("_R")


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


def damage(file: ImageFile) -> str:
    """What is wrong with an image; nothing, "", with one that decodes to its end."""
    try:
        open_rgb(file.read(), draft=1)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except UnreadableImageError as error:
        return str(error)
    return ""


def digest(file: ImageFile) -> bytes | None:
    """SHA-256 of the file's bytes; `None` where it cannot be read."""
    try:
        return hashlib.sha256(file.read()).digest()
    except OSError:
        return None


def pixels(item: tuple[ImageFile, bytes], shape: Shape) -> np.ndarray | str:
    """The pixels, uint8 (height, width, 3), of a file whose SHA-256 is given, or a line that says it has changed."""
    file, wanted = item
    try:
        raw = file.read()
        if hashlib.sha256(raw).digest() == wanted:
            return np.asarray(fitted(open_rgb(raw), shape))
    except (OSError, UnreadableImageError):
        pass
    return f"image {file.name!r} has changed since it was checked; start the run again"


def decode(files: Sequence[ImageFile], hashes: np.ndarray, shape: Shape, chunk: int) -> Iterator[np.ndarray]:
    """The files' pixels in order, uint8 (at most `chunk`, height, width, 3) at a time.

    Raises DataError for a file that is not what it was when it was checked.
    """
    items = ((file, row.tobytes()) for file, row in zip(files, hashes, strict=True))
    with mapper(len(files)) as over:
        decoded = over(partial(pixels, shape=shape), items)
        while batch := list(islice(decoded, chunk)):
            for image in batch:
                if isinstance(image, str):
                    raise DataError(image)
            yield np.stack(batch)


class _Process(SpawnProcess):
    """A worker that does not run its caller's script once more, as a fresh interpreter otherwise does: nothing that it
    is sent comes from there, and a script need not be written for it."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name that multiprocessing looks for
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _Context(SpawnContext):
    Process = _Process


Mapper = Callable[[Callable[[Any], Any], Iterator[Any]], Iterator[Any]]


@contextmanager
def mapper(count: int) -> Iterator[Mapper]:
    """A lazy `map` in order, over worker processes where `count` items pay for them; few results wait at a time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or count <= _FEW:
        yield lambda function, items: map(function, items)
        return
    # Ctrl-C reaches the whole group; it is this process that ends the workers
    pool = ProcessPoolExecutor(
        min(cores, 16), mp_context=_Context(), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )

    def over(function: Callable[[_T], _R], items: Iterator[_T]) -> Iterator[_R]:
        waiting: deque[Any] = deque()
        while True:
            piece = list(islice(items, _PIECE))
            if piece:
                waiting.append(pool.submit(_each, function, piece))
            if not waiting:
                return
            if not piece or len(waiting) > 2 * cores:
                yield from waiting.popleft().result()

    try:
        yield over
    except BrokenProcessPool:
        raise DataError("a worker that decodes images was ended, most likely for want of memory") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _each(function: Callable[[_T], _R], items: list[_T]) -> list[_R]:
    return [function(item) for item in items]
