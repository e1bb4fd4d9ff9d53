"""A data set that a program passes: its own torch `Dataset` objects, or anything else of images and labels by place.

Images are held in memory, each as a file (a portable graymap or pixmap; TIFF where values have more than 8 bits, PNG
where there may be transparency), and go the way of any image file
from there: the same checks, the same resizing, the same hashes.
"""

from __future__ import annotations

import io
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from flora_secure.data.class_names import TEMPLATES, odd_names
from flora_secure.data.dataset import Dataset
from flora_secure.data.files.pixels import as_rgb, is_clear, require_pillow
from flora_secure.data.files.samples import Naming, Sample, assemble
from flora_secure.data.images import HeldImage
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.errors import DataError
from flora_secure.planning.config import RunConfig
from flora_secure.planning.names import PASSED

_KINDS = (
    "a PIL image, a uint8 array (H, W) or (H, W, 3), or a uint8 tensor (1, H, W) or (3, H, W), without ToTensor or "
    "Normalize"
)


class Items(Protocol):
    """What a map-style torch `Dataset` has: so many items, each an image and the place of its class."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class OwnData:
    """A data set of one's own for `flora_secure.simulate`.

    Items are pairs of an image and a label: a PIL image, a uint8 array (H, W) or (H, W, 3), or a uint8 tensor (1, H, W)
    or (3, H, W); the label is a place in `class_names`, from 0. Sizes may differ.

    Attributes:
        private: the clients' items by the client's name; or all together, to be dealt by `partition`.
        test: items that score the adapter.
        class_names: in the order of the labels.
        public: items that belong to nobody, for the warm start and the control variate. Their labels are used where
            they are such; give every item the same one, such as 0, where there are none.
        templates: prompts with `{}` for the class's name.
        mirror: whether a mirror image shows the same class.
        window, background: how values of more than 8 bits, and what is transparent, are shown; as the settings of
            these names.
        name: what the run's `config.toml` calls it, as "own:NAME".
    """

    private: Mapping[str, Items] | Items = field(repr=False)
    test: Items = field(repr=False)
    class_names: Sequence[str]
    public: Items | None = field(default=None, repr=False)
    templates: Sequence[str] = TEMPLATES
    mirror: bool = False
    window: str = PLAIN.window
    background: str = PLAIN.background
    name: str = "data"

    def load(self) -> Dataset:
        """Every item, once, as a data set. Raises `flora_secure.errors.DataError`, naming the item, for an image
        or a label that is none, and for a client without items."""
        require_pillow()
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.name):
            raise DataError(f"the name of a data set is of letters, digits and ._-, got {self.name!r}")
        names = require_names(self.class_names, self.templates)
        labels = tuple(map(str, range(len(names))))
        dataset = assemble(
            PASSED + self.name,
            self._samples(len(names)),
            Naming(labels, names),
            tuple(self.templates),
            mirror=self.mirror,
            cache=None,
            rendering=Rendering(self.window, self.background),
        )
        return replace(dataset, warnings=(*dataset.warnings, *odd_names(names)))

    def _samples(self, classes: int) -> Iterator[Sample]:
        private = self.private if isinstance(self.private, Mapping) else {None: self.private}
        parts = [(None if client is None else str(client), "private", items) for client, items in private.items()]
        parts.append((None, "test", self.test))
        if self.public is not None:
            parts.append((None, "public", self.public))
        for client, split, items in parts:
            what = split if client is None else f"client {client}"
            require_items(items, what)
            if len(items) == 0 and split != "public":
                raise DataError(f"data set {self.name!r}: {what} has no item")
            for image, number in held(items, what, classes):
                yield Sample(image, str(number), client, split)


def require_names(class_names: Sequence[str], templates: Sequence[str]) -> tuple[str, ...]:
    """The class names, as texts. Raises `DataError` for fewer than two, two that are equal, a single text in the place
    of a list, and templates without one place for the name."""
    for what, texts in (("class_names", class_names), ("templates", templates)):
        if isinstance(texts, str):
            raise DataError(f"{what} is one text, {texts!r}: give a list of them")
    names = tuple(map(str, class_names))
    if len(names) < 2:
        raise DataError(f"class_names has {len(names)} of them: at least 2 classes are needed")
    if len(set(names)) != len(names):
        raise DataError(f"class names must differ, got {', '.join(names)}")
    for template in templates:
        if template.count("{}") != 1:
            raise DataError(f"template {template!r} needs one {{}} for the class's name")
    return names


def require_items(items: Items, what: str) -> None:
    """Raises `DataError` for what has no places to take items from."""
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise DataError(f"{what} is a {type(items).__name__}, whose items have no places: give a list")


def held(items: Items, what: str, classes: int) -> Iterator[tuple[HeldImage, int]]:
    """Each item as an image in memory and the number of its class, below `classes`. Raises `DataError` naming `what`
    and the place of an item that is none."""
    require_items(items, what)
    for place in range(len(items)):
        where = f"{what}[{place}]"
        try:
            image, label = items[place]
            number = operator.index(label)
        except (TypeError, ValueError):
            raise DataError(f"{where} is no pair of an image and the place of its class, from 0") from None
        if not 0 <= number < classes:
            raise DataError(f"{where} has label {number}: the {classes} class names are numbered from 0")
        yield HeldImage(where, _encoded(image, where)), number


def settings_for(config: RunConfig, passed: Dataset) -> RunConfig:
    """`config` for a new run on a data set that was `passed`; the config of an earlier run on it stays as it is."""
    if config.data.dataset == passed.name:
        return config
    return replace(config, data=replace(config.data, dataset=passed.name))


def _encoded(image: Any, where: str) -> bytes:
    """A file of the image's pixels, that says as much of them as the image does."""
    if hasattr(image, "convert") and hasattr(image, "mode"):
        if 0 in image.size:
            raise DataError(f"{where} has an image without pixels")
        if image.mode[0] in "IF" or is_clear(image):
            stream = io.BytesIO()
            kept = image if image.mode[0] in "IF" else image.convert("RGBA")
            kept.save(stream, "TIFF" if image.mode[0] in "IF" else "PNG", exif=image.getexif())
            return stream.getvalue()
        rgb = as_rgb(image)
        pixels = np.asarray(rgb.convert("L") if image.mode == "L" else rgb)
    else:
        pixels = _pixels(image, where)
    if pixels.size == 0:
        raise DataError(f"{where} has an image without pixels")
    height, width = pixels.shape[:2]
    header = f"{'P5' if pixels.ndim == 2 else 'P6'}\n{width} {height}\n255\n"
    return header.encode() + np.ascontiguousarray(pixels).tobytes()


def _pixels(image: Any, where: str) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) of an array or a tensor."""
    tensor = hasattr(image, "detach")
    array = image.detach().cpu().numpy() if tensor else image
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        kind = f"of type {getattr(array, 'dtype', type(image).__name__)}"
        raise DataError(f"{where} has an image {kind}; give {_KINDS}")
    channels = 0 if tensor else -1
    if array.ndim == 3 and array.shape[channels] in {1, 3}:
        moved = np.moveaxis(array, channels, -1)
        return moved[..., 0] if moved.shape[-1] == 1 else moved
    if array.ndim != 2:
        raise DataError(f"{where} has an image of shape {tuple(array.shape)}; give {_KINDS}")
    return array
