"""The data sets by name, each split into the clients' images, a public slice and test images that never overlap.

| name | private | public | test |
|---|---|---|---|
| embedded | Fashion-MNIST train[0:20000] | train[50000:60000] | t10k[0:4000] |
| icons | icons of 157 sets | of Google's and MDI's | others of the same sets; or of unseen studios |
| fashion-mnist | train[0:50000] | train[50000:60000] | all of t10k |
| digits | scikit-learn's, two thirds | a sixth | a sixth |
| cifar10, cifar100 | train[0:40000] | train[40000:50000] | test |

The others are files, listed by the modules of `files`; docs/data.md has their layouts.

The public slice is what pretraining, the choice of hyper-parameters, the warm start and the control variate may see.
Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flora_secure.data.cache import ArrayCache
from flora_secure.data.class_names import TEMPLATES, read_lines, read_templates
from flora_secure.data.dataset import Dataset
from flora_secure.data.files.folders import list_folder, require_folder
from flora_secure.data.files.photographs import PHOTOGRAPHS
from flora_secure.data.files.samples import Naming, Sample, assemble, assemble_captioned
from flora_secure.data.files.shards import list_shards
from flora_secure.data.files.tables import list_table
from flora_secure.data.fixed import _fixed
from flora_secure.data.icons import icons
from flora_secure.data.notes import Notes
from flora_secure.errors import DataError, did_you_mean
from flora_secure.planning.names import FIXED, GENERIC, data_sets
from flora_secure.planning.sections import Test

CLASS_FILE, TEMPLATE_FILE = "classnames.txt", "zeroshot_classification_templates.txt"  # as CLIP_benchmark has them


def load_dataset(
    name: str = "embedded",
    data_root: str | Path | None = None,
    *,
    natural: bool = False,
    class_names: str | Path | None = None,
    templates: str | Path | None = None,
    cache: ArrayCache | None = None,
    test: Test = "default",
) -> Dataset:
    """The data set called `name`; `data_root` is where it lies ("embedded", "icons" and "digits" need none).

    `natural`: the folders above the classes of data set "folder" are clients. `class_names` and `templates` are files
    of one a line that take the place of the data set's own. `cache` remembers which image files are damaged.
    `test`: which test images; but for "icons", data sets have one split of them.

    Raises DataError for an unknown name, a missing folder or files, files that are not what they should be, class names
    or templates for captions, which need neither, and a test split that the data set does not have.
    """
    root = None if data_root is None else Path(data_root)
    lines = None if class_names is None else read_lines(Path(class_names), "`data.class_names`")
    prompts = None if templates is None else read_templates(Path(templates))
    if test != "default" and name != "icons" and name in data_sets():
        raise DataError(f"`data.test` {test} is for data set icons; {name!r} has one test split: leave it out")
    if name in FIXED:
        dataset = icons(test == "unseen-clients") if name == "icons" else _fixed(name, root)
        if lines is not None:
            _require_as_many(lines, len(dataset.class_names), name)
            dataset = replace(dataset, class_names=lines)
        return dataset if prompts is None else replace(dataset, templates=prompts)
    notes = Notes()
    if name in PHOTOGRAPHS:
        kind = PHOTOGRAPHS[name]
        samples, naming = kind.listing(require_folder(root, name), notes)
        if lines is not None:
            assert naming.labels is not None
            _require_as_many(lines, len(naming.labels), name)
            naming = Naming(naming.labels, lines)
        return assemble(name, samples, naming, prompts or kind.templates, mirror=True, cache=cache, notes=notes)
    if name not in GENERIC:
        raise DataError(
            f"unknown `data.dataset` {name!r}: use one of {', '.join(data_sets())}{did_you_mean(name, data_sets())}"
        )
    folder = require_folder(root, name)
    beside = folder if folder.is_dir() else folder.parent
    asked = [
        option
        for option, file in (("`data.class_names`", class_names), ("`data.templates`", templates))
        if file is not None
    ]
    if lines is None and (beside / CLASS_FILE).is_file():
        lines = read_lines(beside / CLASS_FILE, "class name file")
    if prompts is None and (beside / TEMPLATE_FILE).is_file():
        prompts = read_templates(beside / TEMPLATE_FILE)
    if name == "folder":
        listing = list(list_folder(folder, natural=natural, notes=notes))
    elif name == "table":
        listing = list(list_table(folder, notes=notes))
    else:
        listing = list_shards(folder, lines, notes=notes)
    if any(sample.caption for sample in listing):
        if asked:
            raise DataError(
                f"data set {name!r} has captions, which are used as they are: leave out {' and '.join(asked)}"
            )
        return assemble_captioned(name, listing, cache=cache, notes=notes)
    naming, listing = _naming(lines, listing)
    return assemble(name, listing, naming, prompts or TEMPLATES, mirror=False, cache=cache, notes=notes)


def _require_as_many(lines: tuple[str, ...], classes: int, name: str) -> None:
    if len(lines) != classes:
        raise DataError(f"`data.class_names` has {len(lines)} lines, data set {name!r} has {classes} classes")


def _naming(lines: tuple[str, ...] | None, samples: list[Sample]) -> tuple[Naming, list[Sample]]:
    """How a list of class names reads the labels that occur: as names, as numbers from 0, or in their order."""
    if lines is None:
        return Naming(), samples
    found = {sample.label for sample in samples}
    if found & set(lines):
        return Naming(lines), samples
    if all(label.isascii() and label.isdigit() for label in found):
        plain = [replace(sample, label=str(int(sample.label))) for sample in samples]
        return Naming(tuple(str(number) for number in range(len(lines))), lines), plain
    if len(found) == len(lines):
        return Naming(tuple(sorted(found)), lines), samples
    raise DataError(
        f"none of the {len(found)} labels, such as {min(found)!r}, is among the {len(lines)} class names, such as "
        f"{lines[0]!r}: list the labels, or a name for each in their order"
    )
