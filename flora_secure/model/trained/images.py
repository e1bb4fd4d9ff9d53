"""Images as people give them (paths, folders, Pillow's, arrays, tensors), brought to what a model reads.

How an image is brought to the model's size is the run's way, whatever it is given as: a run on small images in arrays
stretches them, one on image files cuts them as open_clip does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flora_secure.boundary.foreign import printable
from flora_secure.data.files.pixels import Shape, as_rgb, fitted, open_rgb
from flora_secure.data.files.samples import IMAGE_SUFFIXES
from flora_secure.data.files.values import UnreadableImageError
from flora_secure.data.folders.kinds import left_out_for, suffix_of
from flora_secure.data.folders.tree import tree_of
from flora_secure.data.images import EncodedFile
from flora_secure.data.notes import Notes, Skipped
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.errors import DataError, first_line
from flora_secure.model.trained.answers import Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

GivenImages = Any  # a path, a Pillow image, an array, a tensor, or a sequence of them: see `listed`
_CHUNK = 256  # files decoded at a time, as in training, so that sums are rounded alike
_ARRAYS = 2_000  # images of one size embedded at a time
_MOST_BYTES = 1 << 28  # of pixels held for that


@dataclass(frozen=True, eq=False)
class Listed:
    """Images in order: files that are not yet read, or pixels uint8 (height, width) or (height, width, 3).

    `names`: a file's path as it was given, and `None` for what has none. `left_out`: what folders hold beside images,
    and why it is not read. `rendering`: how values of more than 8 bits and transparency are shown.
    """

    items: list[EncodedFile | np.ndarray]
    names: list[str | None]
    left_out: tuple[Skipped, ...]
    rendering: Rendering = PLAIN


def listed(images: GivenImages, rendering: Rendering = PLAIN) -> Listed:
    """What `images` names or holds.

    Args:
        images: a path of a file, or of a folder, which is searched to its ends for files with an image's suffix, in the
            order of their paths (hidden ones and links out of it are left out); a Pillow image; a batch
            of pixels, uint8 (n, height, width) or (n, height, width, 3) as array or tensor, for tensors (n, 3, height,
            width) too, and floats in 0…1; or a sequence of paths, Pillow images and single images (without the n).
        rendering: the run's.

    Raises DataError for a path that is not there and ValueError for pixels of another type or shape.
    """
    notes = Notes()
    if isinstance(images, np.ndarray | torch.Tensor):
        batch = _pixels(images, 1)
        return Listed(list(batch), [None] * len(batch), ())
    single = isinstance(images, str | os.PathLike) or not isinstance(images, Sequence)
    items, names = list[EncodedFile | np.ndarray](), list[str | None]()
    for one in [images] if single else images:
        if isinstance(one, str | os.PathLike):
            files = list(_files(Path(one), notes))
            items += files
            names += [file.name for file in files]
        else:
            array = isinstance(one, np.ndarray | torch.Tensor)
            items.append(_pixels(one, 0) if array else _pillow(one, len(items), rendering))
            names.append(None)
    return Listed(items, names, notes.skipped(), rendering)


def _files(path: Path, notes: Notes) -> Iterator[EncodedFile]:
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # a path that no file can have
        there, folder = False, False
    if not there:
        raise DataError(f"image {printable(str(path))!r} does not exist")
    for file in tree_of(path, notes).below() if folder else [path]:
        if folder and suffix_of(file.name) not in IMAGE_SUFFIXES:
            notes.skip(left_out_for(file.name), str(file))
        else:
            yield EncodedFile(printable(str(file)), file)


def _pillow(image: Any, place: int, rendering: Rendering) -> np.ndarray:
    from PIL.Image import Image

    if not isinstance(image, Image):
        raise ValueError(f"images must be paths, Pillow images, uint8 arrays or tensors, not {type(image).__name__}")
    try:
        return np.asarray(as_rgb(image, rendering))
    except Exception as error:  # what Pillow has not loaded yet fails in its decoders in any way there is
        raise DataError(f"image {place} cannot be read: {first_line(error)}") from None


def _pixels(images: np.ndarray | torch.Tensor, axes: int) -> np.ndarray:
    """uint8 pixels of a batch (`axes` 1) or of one image (0)."""
    tensor = isinstance(images, torch.Tensor)
    what = f"{images.dtype} {tuple(images.shape)}"
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu()
        if images.ndim == axes + 3 and images.shape[-1] != 3 and images.shape[axes] in (1, 3):  # channels first
            images = images.movedim(axes, -1)
        if images.is_floating_point():
            if not bool(((images >= 0) & (images <= 1)).all()):
                raise ValueError(f"images in floats must lie in 0…1 (not normalised), got {what} beyond it; or uint8")
            images = (images * 255).round().to(torch.uint8)
        images = images.numpy() if images.dtype == torch.uint8 else np.empty(0)
    if images.ndim == axes + 3 and images.shape[-1] == 1:
        images = images[..., 0]
    grey, colour = images.ndim == axes + 2, images.ndim == axes + 3 and images.shape[-1] == 3
    if images.dtype != np.uint8 or not (grey or colour) or 0 in images.shape[axes:]:
        shapes = "(n, height, width) or (n, height, width, 3)" if axes else "(height, width) or (height, width, 3)"
        floats = ", or floats in 0…1" if tensor else ""
        raise ValueError(f"images must be uint8 {shapes}{floats}; got {what}")
    if axes and grey and images.shape[-1] == 3:
        raise ValueError(f"images {what} may be one image in colour or many that are 3 wide: add the axis n in front")
    return images


def prepared(found: Listed, shape: Shape | None) -> Iterator[tuple[list[int], np.ndarray | Unreadable]]:
    """Images of one size at a time: their k places in `found` and their pixels, uint8 (k, height, width[, 3]).

    `shape`: what every image is brought to; `None` leaves each at its own size. An image that cannot be read comes
    by itself, as its place and what it is. A chunk of files is decoded on a thread a core.
    """
    step, held = _CHUNK if shape is not None else _ARRAYS, 0
    group: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(min(cores, 16)) as pool:
        for start in range(0, len(found.items), _CHUNK):
            part = found.items[start : start + _CHUNK]
            with warnings.catch_warnings():  # Pillow's are switched off by each thread, and filters are shared
                ready = list(pool.map(partial(_opened, shape=shape, rendering=found.rendering), part))
            for place, pixels in enumerate(ready, start):
                if isinstance(pixels, str):
                    yield [place], Unreadable(found.names[place] or f"image {place}", pixels)
                    continue
                same = group.setdefault(pixels.shape, [])
                same.append((place, pixels))
                held += pixels.nbytes
                if len(same) == step:
                    held -= sum(one.nbytes for _, one in same)
                    yield _batch(group.pop(pixels.shape))
            if held > _MOST_BYTES:
                yield from map(_batch, group.values())
                group, held = {}, 0
    yield from map(_batch, group.values())


def _batch(group: list[tuple[int, np.ndarray]]) -> tuple[list[int], np.ndarray]:
    return [place for place, _ in group], np.stack([pixels for _, pixels in group])


def _opened(item: EncodedFile | np.ndarray, shape: Shape | None, rendering: Rendering) -> np.ndarray | str:
    """The pixels of an image, or why they cannot be had."""
    if isinstance(item, np.ndarray):
        return item if shape is None else np.asarray(fitted(_as_image(item), shape))
    try:
        image = open_rgb(item.read(), rendering)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except UnreadableImageError as error:
        return str(error)
    return np.asarray(image if shape is None else fitted(image, shape))


def _as_image(pixels: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
