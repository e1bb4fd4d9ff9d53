"""The images that one party of a federation holds: a site its private ones, the server its test images.

Nobody has all of them, so the class names are given: they are the same at all parties, in the same order. Public images
may lie beside; where there are some, all parties have the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from flora_secure.data.cache import ArrayCache
from flora_secure.data.class_names import TEMPLATES, odd_names
from flora_secure.data.dataset import Dataset
from flora_secure.data.files.samples import Naming, Sample, assemble
from flora_secure.data.folders.listing import list_folder
from flora_secure.data.notes import Notes
from flora_secure.data.passed.own import Items, held, require_names
from flora_secure.data.rendering import PLAIN, Rendering
from flora_secure.errors import DataError, did_you_mean
from flora_secure.planning.names import PASSED

Side = Literal["private", "test"]


@dataclass(frozen=True, eq=False)
class PartyData:
    """One party's images, as the `data.py` of a federation gives them.

    Images are a folder with a folder of image files for each class (its name is the class's, with `_` for a space if
    one likes), or items in memory as `flora_secure.OwnData` has them: pairs of an image and the place of its class.

    Attributes:
        class_names: of the whole federation, in the order of the labels. A party may lack images of some.
        images: a site's private images, or the server's test images.
        public: images that belong to nobody and that all parties have, for the control variate and the server's warm
            start, which uses their labels unless all are the same. None where there are none.
        templates: prompts with `{}` for the class's name.
        mirror: whether a mirror image shows the same class.
        window, background: how values of more than 8 bits, and what is transparent, are shown; as the settings of
            these names.
    """

    class_names: Sequence[str]
    images: Path | Items = field(repr=False)
    public: Path | Items | None = field(default=None, repr=False)
    templates: Sequence[str] = TEMPLATES
    mirror: bool = False
    window: str = PLAIN.window
    background: str = PLAIN.background

    def load(self, side: Side, name: str = "data", cache: ArrayCache | None = None) -> Dataset:
        """A data set whose `private` or `test` part, as `side` says, are this party's images; the other one is empty.

        `name`: what the federation's configuration calls the data. `cache` remembers which files are damaged. Raises
        `flora_secure.errors.DataError` naming folder or item for what is no image, a class that the federation does not
        have, and where no image is left.
        """
        names = require_names(self.class_names, self.templates)
        notes, rendering = Notes(), Rendering(self.window, self.background)
        parts = [(side, self.images), *([] if self.public is None else [("public", self.public)])]
        samples = [sample for split, images in parts for sample in _samples(images, split, names, notes)]
        dataset = assemble(
            PASSED + name,
            samples,
            Naming(tuple(map(str, range(len(names)))), names),
            tuple(self.templates),
            mirror=self.mirror,
            cache=cache,
            notes=notes,
            rendering=rendering,
            needs=(side,),
        )
        return replace(dataset, owners=None, warnings=(*dataset.warnings, *odd_names(names)))


def _samples(images: Path | Items, split: str, names: Sequence[str], notes: Notes) -> Iterator[Sample]:
    what = {"private": "images", "test": "test images", "public": "public images"}[split]
    if not isinstance(images, Path):
        for image, number in held(images, what, len(names)):
            yield Sample(image, str(number), None, split)
        return
    if not images.is_dir():
        raise DataError(f"{what}: {str(images)!r} is no folder; it holds one folder for each class, with its images")
    places = {name: place for place, name in enumerate(names)}
    places |= {name.replace(" ", "_"): place for name, place in places.items()}
    for sample in list_folder(images, layout="classes", notes=notes, least=1):
        if sample.split is not None:
            raise DataError(
                f"{what}: {str(images)!r} is divided into train and others; give the folder of classes that is meant"
            )
        if sample.label not in places:
            raise DataError(
                f"{what}: {str(images / sample.label)!r} is no class of this federation, whose classes are "
                f"{', '.join(names[:20])}{' …' if len(names) > 20 else ''}{did_you_mean(sample.label, names)}"
            )
        yield replace(sample, label=str(places[sample.label]), client=None, split=split)
